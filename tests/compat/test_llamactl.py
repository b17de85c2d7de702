"""The real `llamactl` of both lines, unmodified, with our API server."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.compat.peer_process import START_MAX_S, PeerProcess, peer
from tests.support.deployments import deploying, none_left
from tests.support.raw import wait_until

pytestmark = [pytest.mark.compat, pytest.mark.slow]

FILE = """\
name: Greetings
control-plane:
  port: 0
default-service: wf
services:
  wf:
    name: Greets
    source:
      type: local
      name: src
    path: src/flows:greet
  asks:
    name: Asks a person
    source:
      type: local
      name: src
    path: src/flows:asks
"""
CODE = """\
from wakeq_control.service import TaskContext


async def greet(user_msg: str, times: int = 1) -> str:
    return " ".join([f"hello {user_msg}"] * times)


async def asks(user_msg: str, task: TaskContext) -> str:
    task.emit({"prefix": user_msg})
    return f"answer: {(await task.receive())['response']}"
"""
TOOK_MAX_S = 60.0

SCRIPT = Path(__file__).parent / "scripts" / "apiserver_calls.py"
MANY = Path(__file__).parent / "scripts" / "llamactls.py"


@dataclass
class Llamactl:
    """`llamactl` of a version, at an API server."""

    python: Path
    api: str
    stack: ExitStack
    many: PeerProcess | None = None

    def __call__(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        if self.many is None:
            self.many = self.stack.enter_context(peer(self.python, MANY, errors=Path("llamactl.log"), is_asked=True))
        self.many.ask(json.dumps(["-s", self.api, *arguments]))
        said = self.many.record(START_MAX_S + TOOK_MAX_S)
        return subprocess.CompletedProcess(arguments, said["code"], said["out"], said["err"])

    def begun(self, *arguments: str) -> "subprocess.Popen[str]":
        """As somebody starts it."""
        command = [str(self.python.with_name("llamactl")), "-s", self.api, *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def llamactl(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Llamactl]:
    """At a server on which nothing is deployed."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "flows.py").write_text(CODE)
    (tmp_path / "greetings.yml").write_text(FILE)
    # 0.4.2 doesn't say where the file is, so sources are where the server is.
    monkeypatch.chdir(tmp_path)
    with (
        deploying("--data", str(tmp_path / "data"), "--api-port", "0", "--grace", "1") as server,
        ExitStack() as stack,
    ):
        yield Llamactl(python, str(server.wait_for_api()["url"]), stack)
        parts = server.parts()
        assert server.terminate() == 0
    assert none_left(parts)


def test_a_deployment_is_made_run_shown_and_reloaded(llamactl: Llamactl, tmp_path: Path) -> None:
    assert "Greetings" not in llamactl("status").stdout
    deployed = llamactl("deploy", "greetings.yml")
    assert (deployed.returncode, "Greetings" in deployed.stdout) == (0, True), deployed
    assert "- Greetings" in llamactl("status").stdout
    ran = llamactl("run", "-d", "Greetings", "--arg", "user_msg", "Ann", "--arg", "times", "2")
    assert (ran.returncode, ran.stdout) == (0, "hello Ann hello Ann\n"), ran
    session = llamactl("sessions", "create", "-d", "Greetings")
    assert "session_id=" in session.stdout
    again = llamactl("deploy", "greetings.yml")
    assert (again.returncode, "409" in again.stderr + again.stdout) == (1, True), again
    (tmp_path / "src" / "flows.py").write_text(CODE.replace("hello", "goodbye"))
    reloaded = llamactl("deploy", "--reload", "greetings.yml")
    assert reloaded.returncode == 0, reloaded
    assert llamactl("run", "-d", "Greetings", "--arg", "user_msg", "Ann").stdout == "goodbye Ann\n"


@pytest.fixture
def ready(llamactl: Llamactl) -> Llamactl:
    """The same, where the file is deployed."""
    file = Path("greetings.yml").read_bytes()
    made = httpx.post(f"{llamactl.api}/deployments/create", files={"config_file": file}, timeout=TOOK_MAX_S)
    assert made.json() == {"name": "Greetings"}
    return llamactl


def test_wrong_arguments_are_told(ready: Llamactl) -> None:
    for arguments, says in ((("--arg", "resume", "x"), "unknown argument 'resume'"), ((), "user_msg (required")):
        refused = ready("run", "-d", "Greetings", *arguments)
        told = refused.stdout + refused.stderr
        assert refused.returncode != 0, told
        assert "INVALID_ARGUMENTS" in told
        assert says in told
        assert "NoneType" not in told


def test_a_person_answers_what_it_runs(ready: Llamactl, tmp_path: Path) -> None:
    """By `Client().apiserver` of the same line, which sees the question in the task's events."""
    with ready.begun("run", "-d", "Greetings", "-s", "asks", "-a", "user_msg", "who?") as running:
        with httpx.Client(base_url=f"{ready.api}/deployments/Greetings") as http:
            wait_until(lambda: bool(http.get("/tasks").json()))
            (task,) = http.get("/tasks").json()
        options = ["--api-server", ready.api, "--file", "Greetings.yml", "--service", "asks"]
        options += ["--answer", task["task_id"], task["session_id"]]
        with peer(ready.python, SCRIPT, *options, errors=tmp_path / "answer.log") as client:
            assert client.record(START_MAX_S) == {"asked": ["who?"], "sent": ["asks"]}
            client.finish()
        out, err = running.communicate(timeout=TOOK_MAX_S)
    assert (running.returncode, out) == (0, "answer: Ann\n"), err
