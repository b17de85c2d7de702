"""A deployment whose llama_deploy has wakeq in the place of its own queue, by one line."""

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import httpx
import psutil
import pytest

from tests.compat.clients import Clients
from tests.compat.peer_process import START_MAX_S, PeerProcess, peer
from tests.compat.tap import tapped
from tests.compat.test_deployment import EVENTS, SERVICE, Deployment, unused_ports
from tests.compat.under_test import python_of, queue_server
from wakeq_bench.peers.llama_deploy import wakeq_on_path

pytestmark = [pytest.mark.compat, pytest.mark.slow]

TASKS, TASKS_MAX_S = 8, 60.0
NOT_YET_MAX = 15

OF_SERVICE = {"agent_id": SERVICE, "service_id": SERVICE}
"""How tasks and events name their service, up to 0.6 and since."""
ANSWER = json.dumps(
    {
        "__is_pydantic": True,
        "value": {"_data": {"response": "Ann"}},
        "qualified_name": "workflows.events.HumanResponseEvent",
    }
)


@pytest.fixture(scope="module", params=["0.4.2", "0.8.1"])
def deployed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, clients: Clients
) -> Iterator[tuple[Deployment, PeerProcess]]:
    """A deployment, and the process that is its control plane and its service."""
    python = python_of(request.param, for_wakeq=True)
    directory = tmp_path_factory.mktemp("plugin")
    control_plane, service = unused_ports(2)
    environment = wakeq_on_path(tmp_path_factory.mktemp("path"))
    with queue_server(directory / "data") as queue, tapped(queue.host, queue.port) as tap:
        options = ["--plugin", "--queue-port", tap.port, "--service-name", SERVICE]
        options += ["--control-plane-port", control_plane, "--service-port", service]
        with peer(python, "system", *options, errors=directory / "system.log", environment=environment) as system:
            assert system.line(START_MAX_S) == "READY"
            control_plane_url, service_url = (f"http://127.0.0.1:{port}" for port in (control_plane, service))
            yield Deployment(python, queue.url, control_plane_url, service_url, tap, clients), system


@pytest.fixture
def deployment(deployed: tuple[Deployment, PeerProcess]) -> Deployment:
    return deployed[0]


def test_a_task_runs(deployment: Deployment) -> None:
    assert deployment.run("--arg", "user_msg=hello")["result"] == "echo: hello"


def test_events_are_streamed(deployment: Deployment) -> None:
    requests = len(deployment.tap.requests)
    outcome = deployment.run("--arg", "user_msg=hello", "--arg", f"events={EVENTS}", "--stream")
    assert outcome["result"] == "echo: hello"
    assert deployment.tap.requests.count(json.dumps("task_stream").encode(), requests) == EVENTS + 1
    # The original loses some of them, on whatever queue: its services write old ones back over new ones.
    assert [data["number"] for data in outcome["event_data"] if "number" in data] == list(range(EVENTS))


def test_a_human_answers(deployment: Deployment) -> None:
    outcome = deployment.run("--arg", "user_msg=hello", "--arg", "ask=Who are you?", "--respond", "Ann")
    assert outcome["result"] == "answer: Ann"
    assert {"_data": {"prefix": "Who are you?"}} in outcome["event_data"]


def test_it_streams_and_polls_nothing(deployment: Deployment) -> None:
    """However much has gone through it, each of the two consumers has asked for messages once."""
    deployment.run("--arg", "user_msg=hello")
    receives = re.findall(rb"GET /messages/(\S+)\?\S+ HTTP/1.1\r\n", deployment.tap.requests)
    topics = sorted(unquote_to_bytes(topic) for topic in receives)
    assert topics == [b"llama_deploy.agentic_workflow", b"llama_deploy.control_plane"]
    assert deployment.tap.requests.count(b"\r\naccept: text/event-stream\r\n") == 2
    assert b"/claim HTTP/1.1" not in deployment.tap.requests


def test_no_queue_of_its_own_is_started(deployed: tuple[Deployment, PeerProcess]) -> None:
    deployment, system = deployed
    listening = {
        connection.laddr.port
        for connection in psutil.Process(system.process.pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {int(url.rpartition(":")[2]) for url in (deployment.control_plane_url, deployment.service_url)}


def test_a_result_is_held_until_it_is_there(deployment: Deployment) -> None:
    with httpx.Client(base_url=deployment.control_plane_url, timeout=TASKS_MAX_S) as http:
        session, task = started(http, user_msg="hello", ask="Who are you?")
        result = f"/sessions/{session}/tasks/{task}/result"
        # As long as there is none it is held too, and then answered.
        assert http.get(result).json() is None
        http.post(f"/sessions/{session}/tasks/{task}/send_event", json=OF_SERVICE | {"event_obj_str": ANSWER})
        assert asked_until(lambda: http.get(result), lambda answer: answer.json() is not None).json()["result"] == (
            "answer: Ann"
        )


def test_a_stream_ends_with_its_session(deployment: Deployment) -> None:
    with httpx.Client(base_url=deployment.control_plane_url, timeout=TASKS_MAX_S) as http:
        session, task = started(http, user_msg="hello", ask="Who are you?")
        request = http.build_request("GET", f"/sessions/{session}/tasks/{task}/result_stream")
        stream = asked_until(lambda: http.send(request, stream=True), begun)
        with closing(stream):
            lines = stream.iter_lines()
            assert json.loads(next(lines)) == {"_data": {"prefix": "Who are you?"}}
            assert http.post(f"/sessions/{session}/delete").status_code == 200
            assert [json.loads(line) for line in lines] == [{"error": "404: Session not found"}]
        assert http.get(f"/sessions/{session}/tasks/{task}/result").status_code == 404


def test_tasks_of_one_session_lose_nothing_to_each_other(deployment: Deployment) -> None:
    """The original reads a session, publishes, and writes it back, without what others have written meanwhile."""
    with (
        httpx.Client(base_url=deployment.control_plane_url, timeout=TASKS_MAX_S) as http,
        ThreadPoolExecutor(TASKS) as at_once,
    ):
        session = http.post("/sessions/create").json()

        def run(number: int) -> tuple[str, httpx.Response]:
            _, task = started(http, session, user_msg=f"{number}", events=5)
            return task, asked_until(lambda: http.get(f"/sessions/{session}/tasks/{task}/result_stream"), begun)

        ran = list(at_once.map(run, range(TASKS)))
        for number, (task, stream) in enumerate(ran):
            events = [json.loads(line) for line in stream.text.splitlines()]
            assert [event["number"] for event in events if "number" in event] == list(range(5))
            assert http.get(f"/sessions/{session}/tasks/{task}/result").json()["result"] == f"echo: {number}"
        kept = http.get(f"/sessions/{session}").json()["task_ids"]
        assert sorted(kept) == sorted(task for task, _ in ran)


@pytest.mark.parametrize("plugged", ["core", "service"])
def test_a_part_without_the_plug_in_understands_one_with_it(plugged: str, tmp_path: Path, clients: Clients) -> None:
    python, path = python_of("0.8.1", for_wakeq=True), tmp_path / "path"
    path.mkdir()
    environment = wakeq_on_path(path)
    control_plane, service = unused_ports(2)
    with ExitStack() as stack:
        queue = stack.enter_context(queue_server(tmp_path / "data"))
        ports = ["--queue-port", queue.port, "--control-plane-port", control_plane, "--service-port", service]
        for part in ("core", "service"):
            options = [*ports, "--part", part, *(["--plugin"] if part == plugged else [])]
            errors = tmp_path / f"{part}.log"
            running = stack.enter_context(peer(python, "system", *options, errors=errors, environment=environment))
            assert running.line(START_MAX_S) == "READY"
        asking = ["--arg", "user_msg=hello", "--arg", "ask=Who are you?", "--respond", "Ann"]
        said = clients.run(python, f"http://127.0.0.1:{control_plane}", SERVICE, *asking)
        assert said["result"] == "answer: Ann"
        assert {consumer["streams"] for consumer in consumers(queue.url, "control_plane")} == {int(plugged == "core")}


def consumers(queue_url: str, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{queue_url}/topics/llama_deploy.{name}/consumers").json()["consumers"]
    return found


def begun(stream: httpx.Response) -> bool:
    """Whether a stream has events; without any it is held for some seconds, and then not found."""
    return stream.status_code != 404


def asked_until(ask: Callable[[], httpx.Response], final: Callable[[httpx.Response], bool]) -> httpx.Response:
    """The first answer that isn't "not yet", which on a busy machine may come a few times, held each time."""
    return next(answer for answer in (ask() for _ in range(NOT_YET_MAX)) if final(answer))


def started(http: httpx.Client, session: str | None = None, **arguments: Any) -> tuple[str, str]:
    """A new task of a session, which is made if need be: both ids."""
    session = session or http.post("/sessions/create").json()
    created = http.post(f"/sessions/{session}/tasks", json=OF_SERVICE | {"input": json.dumps(arguments)})
    assert created.status_code == 200, created.text
    return session, created.json()
