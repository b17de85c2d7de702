"""Unmodified clients of llama_deploy get results, streams and questions from workers of ours."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.clients import Clients
from tests.compat.peer_process import START_MAX_S, peer
from tests.support.server import ServerProcess, start_control_plane, start_server, start_worker

pytestmark = [pytest.mark.compat, pytest.mark.slow]


@pytest.fixture(scope="module")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    directory = tmp_path_factory.mktemp("worker")
    with (
        start_server(directory / "queue", durability="fsync") as queue,
        start_control_plane(queue, directory / "control") as server,
        start_worker(server, "tests.e2e.worker_flows:chatty"),
    ):
        yield server


def test_it_gets_the_result(python: Path, control_plane: ServerProcess, clients: Clients) -> None:
    said = clients.run(python, control_plane.url, "wf", "--arg", "user_msg=hello")
    assert said["result"] == "echo: hello"


def test_it_gets_every_event(python: Path, control_plane: ServerProcess, clients: Clients) -> None:
    said = clients.run(python, control_plane.url, "wf", "--arg", "user_msg=hello", "--arg", "events=40", "--stream")
    assert said["result"] == "echo: hello"
    assert [data["number"] for data in said["event_data"] if "number" in data] == list(range(40))


def test_it_answers_a_question(python: Path, control_plane: ServerProcess, clients: Clients) -> None:
    asking = ["--arg", "user_msg=hello", "--arg", "ask=who?", "--respond", "Ann"]
    said = clients.run(python, control_plane.url, "wf", *asking)
    assert said["result"] == "answer: Ann"
    assert {"_data": {"prefix": "who?"}} in [{"_data": data.get("_data", data)} for data in said["event_data"]]


def test_it_shows_a_token_in_its_url(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAKEQ_CONTROL_TOKEN", "s3cret")
    with (
        start_server(tmp_path / "queue") as queue,
        start_control_plane(queue, tmp_path / "control", durability="memory") as server,
        start_worker(server, "tests.e2e.worker_flows:chatty"),
        peer(
            python,
            "client",
            *("--control-plane-url", server.url.replace("//", "//:s3cret@"), "--service", "wf"),
            *("--arg", "user_msg=hello", "--stream"),
            errors=tmp_path / "log",
        ) as client,
    ):
        assert client.record(START_MAX_S)["result"] == "echo: hello"
        client.finish()
