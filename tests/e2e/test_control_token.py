"""Control planes that ask for a token: of everyone, and all of wakeq shows it, without ever writing it anywhere."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import wakeq
from tests.support.apiserver import start_deployment
from tests.support.deployments import deployed, quick_start
from tests.support.raw import Address, Answer, call
from tests.support.server import STOP_S, ServerProcess, start_control_plane, start_server, start_up, start_worker

ECHO = "tests.e2e.worker_flows:echo"
OF_THE_QUEUE = "the-Queues-s3cret"
TOKEN = "the-Control-planes-s3cret"
RIGHT = {"Authorization": f"Bearer {TOKEN}"}


@contextmanager
def running(directory: Path, *arguments: str) -> Iterator[ServerProcess]:
    with (
        start_server(directory / "queue") as queue,
        start_control_plane(queue, directory / "control", *arguments, durability="memory") as control_plane,
    ):
        yield control_plane


def ask(server: Address, path: str, **headers: str) -> Answer:
    return call(server, "GET", path, headers={"Host": "localhost", **headers})


def test_workers_and_clients_show_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    monkeypatch.setenv("WAKEQ_TOKEN", OF_THE_QUEUE)
    with running(tmp_path, "--token-file", str(tmp_path / "token")) as server:
        assert ask(server, "/queue_config").json()["code"] == "UNAUTHENTICATED"
        # That of the queue is another.
        assert ask(server, "/queue_config", Authorization=f"Bearer {OF_THE_QUEUE}").status == 401
        assert ask(server, "/queue_config", **RIGHT).status == 200
        monkeypatch.setenv("WAKEQ_CONTROL_TOKEN", TOKEN)
        with start_worker(server, ECHO) as worker, wakeq.ControlPlane(server.url) as control:
            assert control.run("wf", {"user_msg": "hello"}) == "echo: hello"
        written = [*server.log, *worker.log]
    assert not [line for line in written if TOKEN in str(line) or OF_THE_QUEUE in str(line)]


def test_an_api_server_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAKEQ_CONTROL_TOKEN", TOKEN)
    with start_deployment(tmp_path) as served:
        assert ask(served.control_plane, "/sessions").status == 401
        assert served.run(user_msg="hello").json().startswith("echo: hello")


def test_all_parts_of_a_deployment_show_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAKEQ_TOKEN", OF_THE_QUEUE)
    monkeypatch.setenv("WAKEQ_CONTROL_TOKEN", TOKEN)
    with deployed(quick_start(tmp_path), tmp_path / "data") as running:
        assert ask(running, "/services").status == 401
        command = [sys.executable, "-m", "wakeq", "run", "--deployment", "QuickStart", "--arg", "message", "Hello!"]
        api = str(running.wait_for_api()["url"])
        ran = subprocess.run([*command, "--api-server", api], capture_output=True, text=True, timeout=STOP_S)
        assert (ran.returncode, ran.stdout) == (0, "Message received: Hello!\n")
        assert running.terminate() == 0
    assert not [line for line in running.log if TOKEN in str(line) or OF_THE_QUEUE in str(line)]
    # Nobody was refused and tried again, or gave up.
    assert not [line for line in running.log if "asks for its token" in str(line)]


def test_a_worker_without_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAKEQ_CONTROL_TOKEN", raising=False)
    monkeypatch.delenv("WAKEQ_TOKEN", raising=False)
    with running(tmp_path, "--token", TOKEN) as server:
        command = [sys.executable, "-m", "wakeq", "worker", ECHO, "--service", "wf", "--control-plane", server.url]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=STOP_S)
    assert ended.returncode == 1
    message, hint = ended.stderr.splitlines()[-2:]
    assert message.startswith("wakeq: asking where the queue is: this control plane asks for its token")
    assert hint == "hint: WAKEQ_CONTROL_TOKEN, else WAKEQ_TOKEN, has the token that it is shown"


@pytest.mark.parametrize("of_its_own", [False, True])
def test_both_servers_of_one_process_have_one_unless_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_its_own: bool
) -> None:
    monkeypatch.setenv("WAKEQ_TOKEN", OF_THE_QUEUE)
    if of_its_own:
        monkeypatch.setenv("WAKEQ_CONTROL_TOKEN", TOKEN)
    with start_up(tmp_path) as server:
        right, wrong = (TOKEN, OF_THE_QUEUE) if of_its_own else (OF_THE_QUEUE, TOKEN)
        assert ask(server, "/services", Authorization=f"Bearer {right}").status == 200
        assert ask(server, "/services", Authorization=f"Bearer {wrong}").status == 401
        with start_worker(server, ECHO), wakeq.ControlPlane(server.url) as control:
            assert control.run("wf", {"user_msg": "hello"}) == "echo: hello"


@pytest.mark.parametrize("with_token", [True, False])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_the_log_says_who_can_use_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_token: bool, host: str
) -> None:
    if with_token:
        monkeypatch.setenv("WAKEQ_CONTROL_TOKEN", TOKEN)
    with running(tmp_path, "--host", host) as server:
        assert ask(server, "/").status == (401 if with_token else 200)
        assert ask(server, "/healthz").status == 200
        assert server.terminate() == 0
    beyond = server.events("listening beyond this machine")
    assert [line["level"] for line in beyond] == ([] if host == "127.0.0.1" else ["info" if with_token else "warning"])
    assert TOKEN not in str(server.log)
    if beyond and not with_token:
        assert "asks for no token" in str(beyond[0]["meaning"])
        assert "WAKEQ_CONTROL_TOKEN" in str(beyond[0]["remedy"])


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--token", "no token"], 2, "token: must have 1 to 4096 characters, printable ASCII without spaces"),
        (["--token", "x", "--token-file", "/x"], 2, "token-file: there is a token already"),
        (["--token-file", "/nowhere/token"], 1, "the token can't be read from /nowhere/token: No such file"),
        (["--max-sessions", "0"], 2, "max-sessions: must be from 1 to 10000000"),
        (["--max-state-bytes", "many"], 2, "max-state-bytes: must be a number of bytes, or one with a unit"),
        (["--keep-sessions-for", "59"], 2, "keep-sessions-for: must be 0, or from 60 to 315360000"),
    ],
)
def test_settings_that_there_are_not_are_told(tmp_path: Path, arguments: list[str], code: int, says: str) -> None:
    options = ["--port", "0", "--durability", "memory", *arguments]
    command = [sys.executable, "-m", "wakeq", "control-plane", *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=STOP_S)
    assert ended.returncode == code
    message, hint = ended.stderr.splitlines()
    assert message.startswith(f"wakeq: {says}")
    assert hint.startswith("hint: ")
