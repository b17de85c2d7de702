"""The real `Client().apiserver` of both lines, unmodified, with our API server."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.compat.peer_process import START_MAX_S, PeerProcess, peer
from tests.e2e import worker_flows
from tests.support.deployments import Deployed, deploying, none_left

pytestmark = [pytest.mark.compat, pytest.mark.slow]

SCRIPT = Path(__file__).parent / "scripts" / "apiserver_calls.py"
NAME = "echoes"
FILE = """\
name: echoes
control-plane: {port: 0}
message-queue: {type: simple, port: 0}
default-service: wf
services:
  wf: {name: Flow, source: {type: local, name: src}, path: "src/worker_flows:flow"}
"""
TAKES = "this service takes: user_msg (required, str), events (optional, int), ask (optional, bool)"
EVENTS = 40


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A deployment's, in the folder in which servers are started: 0.4.2 can't say where it is."""
    (tmp_path / "src").mkdir()
    shutil.copy(worker_flows.__file__, tmp_path / "src")
    monkeypatch.chdir(tmp_path)
    made = tmp_path / f"{NAME}.yml"
    made.write_text(FILE)
    return made


@contextmanager
def calls(python: Path, server: Deployed, file: Path, *options: str) -> Iterator[PeerProcess]:
    """The script, which has to come to its end."""
    arguments = ["--api-server", server.wait_for_api()["url"], "--file", file, *options]
    with peer(python, SCRIPT, *arguments, errors=file.with_name("calls.log")) as client:
        yield client
        client.finish()


def test_every_call_does_what_it_should(python: Path, file: Path, tmp_path: Path) -> None:
    with deploying("--data", str(tmp_path / "data"), "--api-port", "0", "--grace", "0") as server:
        with calls(python, server, file) as client:
            made = client.record(START_MAX_S)
            ran, sessions, streamed, asked, answered, lost = client.records(6)
        parts = server.parts()
        assert server.terminate() == 0
    assert none_left(parts)

    assert (made["before"], made["after"]) == (["Healthy"], ["Healthy", NAME])
    assert [made[what] for what in ("made", "reloaded", "found")] == [NAME] * 3
    assert [made[what][0] for what in ("missing", "gone", "again")] == [404, 404, 409]
    assert f"DEPLOYMENT_EXISTS: Deployment already exists: {NAME}" in made["again"][1]

    assert (ran["right"], ran["failed"]) == ("echo: hello, run 1", "it failed")
    assert ran["in_a_session"] == ["echo: hello, run 1", "echo: hello, run 2"]
    for what, sentence in (("wrong", "unknown argument 'resume'"), ("none", "missing argument 'user_msg'")):
        status, told = ran[what]
        assert (status, f"INVALID_ARGUMENTS: {sentence}; {TAKES}" in told) == (400, True), told
    assert sessions == {"before": [], "listed": [True], "left": []}

    assert streamed == {"result": "echo: hello, run 1", "numbers": list(range(EVENTS)), "again": True}
    assert (asked, answered) == ({"asked": ["who?"], "sent": ["wf"]}, {"answered": "answer: Bea"})
    # After a 404 they would ask again for ever.
    assert [lost[what][0] for what in ("unknown", "gone")] == [410, 410]
