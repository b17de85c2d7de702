"""`wakeq services`, `sessions` and `tasks` against real servers and workers."""

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import wakeq as client
from tests.support.cli import Wakeq, ended, misused, refused, said, started
from tests.support.raw import wait_until
from tests.support.server import ServerProcess, start_up, start_worker
from wakeq.cli import app

FLOWS = "tests.e2e.worker_flows"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with (
        start_up(tmp_path_factory.mktemp("data"), "--wait-for-service", "0") as server,
        start_worker(server, f"{FLOWS}:echo", "--description", "Says it again."),
        start_worker(server, f"{FLOWS}:asking", "--service", "asking"),
        start_worker(server, f"{FLOWS}:fail", "--service", "fail", "--max-attempts", "2", "--retry-backoff", "0"),
        start_worker(server, f"{FLOWS}:echo", "--service", "everywhere", "--delivery", "all", "--name", "a"),
    ):
        yield server


@pytest.fixture
def control(server: ServerProcess) -> Iterator[client.ControlPlane]:
    with client.ControlPlane(server.url) as control:
        yield control


@pytest.fixture
def session(control: client.ControlPlane) -> Iterator[str]:
    session = control.create_session()
    yield session
    control.delete_session(session)


@pytest.fixture
def wakeq(server: ServerProcess) -> Wakeq:
    """The command line in this process; its words, where there are only words."""

    def call(*arguments: str) -> Result:
        words = arguments[0].split() if len(arguments) == 1 else arguments
        return CliRunner().invoke(app, words, env={"WAKEQ_CONTROL_PLANE": server.url})

    return call


# Services


def test_services_are_listed_and_shown(wakeq: Wakeq) -> None:
    lines = said(wakeq("services list")).splitlines()
    assert lines[0].split() == ["name", "state", "consumers", "tasks", "each", "run", "by", "description"]
    assert "wf up 1 8 workers Says it again." in [" ".join(line.split()) for line in lines]
    shown = [line.split() for line in said(wakeq("services show wf")).splitlines()]
    assert ["name", "wf"] in shown
    assert [*shown[-2:]] == [["user_msg", "string", "yes"], ["events", "integer", "no"]]
    listed = json.loads(said(wakeq("services list --json")))["services"]
    assert {one["name"] for one in listed} == {"wf", "asking", "fail", "everywhere"}
    assert "attempts 2, 0s to 1m between them" in " ".join(said(wakeq("services show fail")).split())
    assert json.loads(said(wakeq("services show wf --json")))["description"] == "Says it again."


def test_replicas_are_shown_and_what_each_has_of_a_task(wakeq: Wakeq, session: str) -> None:
    shown = [" ".join(line.split()) for line in said(wakeq("services show everywhere")).splitlines()]
    assert "run by replicas" in shown
    assert "replica a up, 0 to end" in shown
    assert json.loads(said(wakeq(f"tasks run everywhere user_msg=x --session {session} --id E"))) == {"a": "echo: x"}
    shown = [" ".join(line.split()) for line in said(wakeq(f"tasks show {session} E")).splitlines()]
    assert "replica a succeeded, attempt 1: echo: x" in shown


@pytest.mark.parametrize(("name", "says"), [("a/b", "none of them /"), ("a@b", "must have no @")])
def test_a_name_that_no_topic_can_end_with_is_a_mistake(name: str, says: str) -> None:
    arguments = ["worker", f"{FLOWS}:echo", "--service", "wf", "--name", name]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("wakeq: name: ")
    assert says in result.stderr


def test_a_service_that_is_mistyped_is_guessed(wakeq: Wakeq) -> None:
    for words in ("services show askin", "tasks run askin", "tasks create askin"):
        result = wakeq(words)
        assert refused(result).startswith("no service 'askin' is registered; there are: ")
        assert "did you mean asking?" in result.stderr


# Tasks


def test_run_prints_the_result(wakeq: Wakeq, control: client.ControlPlane, session: str) -> None:
    before = [found.id for found in control.sessions()]
    assert said(wakeq("tasks", "run", "wf", "user_msg=two\nlines", "events:=2")) == "echo: two\nlines"
    assert said(wakeq("tasks", "run", "wf", '{"user_msg": "3"}')) == "echo: 3"
    assert [found.id for found in control.sessions()] == before
    assert said(wakeq(f"tasks run wf user_msg=3 --session {session} --id T --timeout 1h")) == "echo: 3"
    assert said(wakeq(f"tasks run wf user_msg=3 --session {session} --id T --timeout 1h")) == "echo: 3"
    (task,) = control.tasks(session)
    assert (task.id, task.timeout_s) == ("T", 3_600)


TAKES = "this service takes: user_msg (required, str), events (optional, int)"
WRONG = {
    ("resume=x",): f"unknown argument 'resume'; {TAKES}. Did you mean 'user_msg'?",
    ("user_msg=x", "events=2"): f"events: '2' is not of type 'integer'; {TAKES}",
    ("user_msg",): "'user_msg' is no argument",
    ("=x",): "'=x' is no argument",
    ("user_msg=x", "user_msg=y"): "there are two arguments 'user_msg'",
    ("user_msg:=x",): "argument 'user_msg' is not JSON: ",
    ("{",): "the arguments are not JSON: unexpected end of data, line 1, column 2",
    (
        "user_msg=x",
        "--id",
        "n" * 201,
    ): "body.task_id: Value error, must have 1 to 200 characters, all of them printable, and none of them /",
}


@pytest.mark.parametrize(("arguments", "says"), WRONG.items(), ids=range(len(WRONG)))
def test_wrong_arguments_are_a_mistake(wakeq: Wakeq, arguments: tuple[str, ...], says: str) -> None:
    assert refused(wakeq("tasks", "run", "wf", *arguments), code=2).startswith(says)


def test_a_name_that_no_path_can_have_is_a_mistake(wakeq: Wakeq) -> None:
    assert "none of them /" in misused(wakeq("tasks run a/b"))


def test_a_failure_is_told(wakeq: Wakeq, control: client.ControlPlane, session: str) -> None:
    assert refused(wakeq("tasks run fail why=because")) == "the task failed: ValueError: because"
    task = control.create_task(session, "fail", {"why": "it can't"})
    assert refused(wakeq(f"tasks result {session} {task}")) == "the task failed: ValueError: it can't"
    lines = [" ".join(line.split()) for line in said(wakeq(f"tasks show {session} {task}")).splitlines()]
    assert any(line.startswith("attempt 1 ValueError: it can't (") for line in lines)
    shown = dict(line.split(maxsplit=1) for line in lines)
    assert (shown["status"], shown["error"], shown["result"]) == ("failed", "ValueError: it can't", "-")
    watched = wakeq(f"tasks events {session} {task}")
    assert (watched.exit_code, watched.stdout) == (0, "")
    assert watched.stderr == "the task failed: ValueError: it can't\n"


def test_a_task_is_watched_answered_and_asked_for(wakeq: Wakeq, control: client.ControlPlane, session: str) -> None:
    created = json.loads(said(wakeq(f"tasks create asking --session {session} --json")))
    place = f"{session} {created['task_id']}"
    assert created["session_id"] == session
    assert refused(wakeq(f"tasks result {place} --wait 0")).startswith("the task has not ended: it is ")
    for number, answer in enumerate(["one", "two"]):
        with control.events(session, created["task_id"], after=number - 1 if number else None) as events:
            assert next(events).data == {"prefix": f"question {number}"}
        assert said(wakeq("tasks", "send-event", *place.split(), f'"{answer}"')).startswith("sent to task ")
    assert said(wakeq(f"tasks result {place}")) == "answers: ['one', 'two']"
    lines = said(wakeq(f"tasks events {place}")).splitlines()
    assert [json.loads(line)["prefix"] for line in lines] == ["question 0", "question 1"]
    (line,) = said(wakeq(f"tasks events {place} --after 0 --output json")).splitlines()
    assert json.loads(line) == {"index": 1, "data": {"prefix": "question 1"}}
    assert refused(wakeq(f"tasks send-event {place} 1")) == "the task had ended already: it succeeded"
    assert refused(wakeq(f"tasks cancel {place}")) == "the task had ended already: it succeeded"
    assert refused(wakeq(f"tasks send-event {place} yes"), code=2).startswith("the event is not JSON: ")


def test_a_task_is_cancelled(wakeq: Wakeq, session: str) -> None:
    assert said(wakeq(f"tasks create asking --session {session} --id C")) == f"created task C in session {session}"
    assert said(wakeq(f"tasks cancel {session} C")) == "cancelled task C"
    assert said(wakeq(f"tasks cancel {session} C")) == "cancelled task C"
    (head, line) = said(wakeq(f"tasks list {session}")).splitlines()
    assert head.split() == ["task", "service", "status", "attempt", "events", "created", "took"]
    assert line.split()[:3] == ["C", "asking", "cancelled"]
    assert json.loads(said(wakeq(f"tasks list {session} --json")))["tasks"][0]["status"] == "cancelled"
    assert json.loads(said(wakeq(f"tasks show {session} C --json")))["task_id"] == "C"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 1)])
def test_a_signal_cancels_what_is_run(
    server: ServerProcess, control: client.ControlPlane, session: str, number: signal.Signals, code: int
) -> None:
    words = ["tasks", "run", "asking", "--session", session, "--id", f"S{code}"]
    process = started(server, *words, env={"WAKEQ_CONTROL_PLANE": server.url})
    with control.events(session, f"S{code}") as events:
        wait_until(lambda: f"S{code}" in {task.id for task in control.tasks(session)})
        assert next(events).index == 0
        process.send_signal(number)
        assert ended(process)[:2] == (code, "")
        assert list(events) == []
        assert events.end is not None
        assert events.end.status == "cancelled"


def test_who_is_not_there_is_told_at_once(wakeq: Wakeq) -> None:
    nowhere = "--url http://127.0.0.1:1"
    for words in ("services list", "tasks run wf", "tasks result s t", "tasks events s t", "sessions create"):
        assert "no answer from http://127.0.0.1:1/" in refused(wakeq(f"{words} {nowhere}"))
    assert "no address of a server" in misused(wakeq("services list --url nowhere"))


# Sessions


def test_sessions_are_made_shown_and_deleted(wakeq: Wakeq, control: client.ControlPlane) -> None:
    session = said(wakeq("sessions create"))
    control.update_session_state(session, {"colour": "red"})
    control.run("wf", {"user_msg": "x"}, session_id=session, task_id="shown")
    lines = [line.split()[:6] for line in said(wakeq("sessions list")).splitlines()]
    assert [session, "1", "0", "16", "B", "1"] in lines
    shown = [line.split() for line in said(wakeq(f"sessions show {session}")).splitlines()]
    assert shown[0] == ["session", session]
    assert shown[3:5] == [["version", "1"], ["state", "colour", '"red"']]
    assert shown[-1][:3] == ["shown", "wf", "succeeded"]
    raw: dict[str, Any] = json.loads(said(wakeq(f"sessions show {session} --json")))
    assert (raw["session_id"], raw["tasks"], raw["state"]) == (session, 1, {"colour": "red"})
    assert session in {one["session_id"] for one in json.loads(said(wakeq("sessions list --json")))["sessions"]}
    assert refused(wakeq(f"sessions delete {session}"), code=2).startswith("this destroys a session")
    assert said(wakeq(f"sessions delete {session} --yes")) == f"deleted session {session} with 1 task"
    assert refused(wakeq(f"sessions show {session}")) == "Session not found"
