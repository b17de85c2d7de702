"""`wakeq run` against a real API server, control plane and worker."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.support.apiserver import ANSWER, Served, start_deployment
from tests.support.cli import Terminal, ended, misused, refused, said, started
from tests.support.server import STOP_S
from wakeq.cli import app

Run = Callable[..., Result]
TAKES = "this service takes: user_msg (required, str), events (optional, int), ask (optional, bool)"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with start_deployment(tmp_path_factory.mktemp("run")) as deployment:
        yield deployment


@pytest.fixture
def run(served: Served) -> Run:
    def call(*arguments: str, stdin: str | None = None, deployment: str = "echoes") -> Result:
        command = ["run", "--deployment", deployment, *arguments]
        return CliRunner().invoke(app, command, input=stdin, env={"WAKEQ_APISERVER": served.server.url})

    return call


def answer(served: Served, path: str, session: str) -> None:
    event = json.dumps({**ANSWER, "value": {"_data": {"response": "Ann"}}})
    sent = {"service_id": "wf", "event_obj_str": event}
    served.http.post(f"{path}/events", params={"session_id": session}, json=sent).raise_for_status()


def test_stdout_has_the_result_alone(run: Run, served: Served) -> None:
    before = served.sessions()
    assert said(run("--arg", "user_msg", "hello there")) == "echo: hello there, run 1"
    assert said(run("-a", "user_msg", "--arg", "-a", "events", "2", "-s", "wf")) == "echo: --arg, run 1"
    assert served.sessions() == before


def test_arguments_come_from_a_file_too(run: Run, tmp_path: Path) -> None:
    (tmp_path / "args.json").write_text('{"user_msg": "filed", "events": 1}')
    assert said(run("--args-json", str(tmp_path / "args.json"))) == "echo: filed, run 1"
    assert said(run("--args-json", "-", "-a", "user_msg", "mine", stdin='{"user_msg": "x"}')) == "echo: mine, run 1"


def test_a_session_has_a_context(run: Run, served: Served) -> None:
    session = served.http.post("/deployments/echoes/sessions/create").json()["session_id"]
    for number in (1, 2):
        assert said(run("-a", "user_msg", "x", "--session", session)) == f"echo: x, run {number}"
    assert session in served.sessions()


def test_events_are_shown_beside_the_result(run: Run) -> None:
    result = run("-a", "user_msg", "x", "-a", "events", "2", "--follow")
    assert (result.exit_code, result.stdout) == (0, "echo: x, run 1\n")
    assert [json.loads(line) for line in result.stderr.splitlines()[:2]] == [{"number": 0}, {"number": 1}]


def test_a_task_can_be_begun_and_left(run: Run, served: Served) -> None:
    begun = json.loads(said(run("-a", "user_msg", "x", "--no-wait")))
    path = f"/deployments/echoes/tasks/{begun['task_id']}/results"
    assert served.http.get(path, params={"session_id": begun["session_id"]}).json()["result"] == "echo: x, run 1"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("-a", "resume", "x"), f"unknown argument 'resume'; {TAKES}. Did you mean 'user_msg'?"),
        ((), f"missing argument 'user_msg'; {TAKES}"),
    ],
)
def test_wrong_arguments_are_the_users(run: Run, arguments: tuple[str, ...], sentence: str) -> None:
    assert refused(run(*arguments), 2) == sentence


def test_a_task_that_fails_is_a_failure(run: Run) -> None:
    assert refused(run("-a", "user_msg", "fail")) == "the task has failed: RuntimeError: it failed"


def test_unknown_names_are_told(run: Run) -> None:
    missing = run("-a", "user_msg", "x", deployment="echos")
    assert refused(missing) == "no deployment 'echos' runs there; there are: echoes"
    assert missing.stderr.splitlines()[1] == "hint: did you mean echoes?"
    assert refused(run("-s", "nope")).startswith("Service 'nope' not found in deployment 'echoes'")
    assert refused(run("-a", "user_msg", "x", "--session", "nope")) == "Session not found"


def test_without_a_server_it_says_where_to_look(run: Run, served: Served) -> None:
    nowhere = run("--api-server", "http://127.0.0.1:1", "-a", "user_msg", "x")
    assert refused(nowhere).startswith("no answer from http://127.0.0.1:1/: ")
    assert "is `wakeq deploy` running there?" in nowhere.stderr
    elsewhere = run("--api-server", served.control_plane.url, "-a", "user_msg", "x")
    assert "is --api-server, or WAKEQ_APISERVER, the address of an API server?" in elsewhere.stderr


def test_misuse_is_told(run: Run, tmp_path: Path) -> None:
    assert "--arg KEY VALUE" in misused(run("--arg=a", "b"))
    assert refused(run("-a", "user_msg"), 2) == "--arg takes a name and a value"
    assert "leave out" in run("--follow", "--no-wait").stderr
    for content, problem in (("[1]", "has no JSON object"), ("{", "is not JSON")):
        (tmp_path / "args").write_text(content)
        assert problem in refused(run("--args-json", str(tmp_path / "args")), 2)
    assert "can't be read" in refused(run("--args-json", str(tmp_path / "missing")), 2)
    assert "no address" in misused(run("--api-server", "nowhere"))


def test_a_person_sees_that_it_waits_and_may_stop_waiting(served: Served) -> None:
    env = {"WAKEQ_APISERVER": served.server.url}
    arguments = ("run", "-d", "echoes", "-a", "user_msg", "x", "-a", "ask", "true")
    with Terminal(served.control_plane, *arguments, env=env) as terminal:
        (task,) = re.findall(r"task (\S+)", terminal.read_until(r"task [0-9a-f-]{36}"))
        terminal.process.send_signal(signal.SIGINT)
        (session,) = re.findall(r"in session (\S+)", terminal.read_until(r"the task goes on: .*\r\n"))
        assert terminal.end()[0] == 130
    answer(served, f"/deployments/echoes/tasks/{task}", session)
    result = served.http.get(f"/deployments/echoes/tasks/{task}/results", params={"session_id": session})
    assert result.json()["result"] == "answer: Ann"


def test_no_spinner_is_where_nobody_looks(served: Served) -> None:
    env = {"WAKEQ_APISERVER": served.server.url}
    process = started(served.control_plane, "run", "-d", "echoes", "-a", "user_msg", "x", env=env)
    assert ended(process) == (0, "echo: x, run 1\n", "")


def test_it_loads_no_more_than_it_needs() -> None:
    program = "import sys, wakeq.cli.run; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=STOP_S)
    needless = ("wakeq_control", "wakeq_server", "wakeq_bench", "uvicorn", "structlog", "yaml")
    assert [name for name in done.stdout.splitlines() if name.partition(".")[0] in needless] == []
