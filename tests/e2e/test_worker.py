"""Workers of our own over sockets: a queue, a control plane and workers, each in a process of its own."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_control_plane import Control, running
from tests.e2e.test_control_restart import Machine
from tests.support.raw import Client, wait_until
from tests.support.server import LoggedProcess, start_control_plane, start_worker

FLOWS = "tests.e2e.worker_flows"


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    with running(tmp_path_factory.mktemp("worker")) as both:
        yield both


@contextmanager
def working(control: Control, name: str, *arguments: str) -> Iterator[LoggedProcess]:
    with start_worker(control.server, f"{FLOWS}:{name}", *arguments) as worker:
        yield worker


def begin(control: Control, task_id: str, **arguments: Any) -> str:
    session = control.session()
    more(control, session, task_id, **arguments)
    return session


def more(control: Control, session: str, task_id: str, **arguments: Any) -> None:
    answer = control.task(session, task_id, input=json.dumps(arguments))
    assert answer.status == 200, answer


def show(control: Control, session: str, task_id: str) -> dict[str, Any]:
    task: dict[str, Any] = control.get(f"/sessions/{session}/tasks/{task_id}").json()
    return task


def answer(control: Control, session: str, task_id: str, event: Any) -> None:
    body = {"event_obj_str": json.dumps(event), "service_id": "wf"}
    assert control.post(f"/sessions/{session}/tasks/{task_id}/send_event", body).status == 200


def lines(control: Control, session: str, task_id: str) -> list[dict[str, Any]]:
    body = control.get(f"/sessions/{session}/tasks/{task_id}/result_stream").body
    return [json.loads(line) for line in body.splitlines()]


@contextmanager
def watching(control: Control, session: str, task_id: str) -> Iterator[Client]:
    with Client(control.server) as watcher:
        watcher.ask("GET", f"/sessions/{session}/tasks/{task_id}/result_stream")
        assert watcher.head().status == 200
        yield watcher


def wait_for_event(control: Control, session: str, task_id: str) -> None:
    with watching(control, session, task_id) as watcher:
        assert watcher.chunk()


def wait_for_events(control: Control, session: str, task_id: str, count: int) -> None:
    with watching(control, session, task_id) as watcher:
        seen = b""
        while seen.count(b"\n") < count:
            seen += watcher.chunk()


def test_a_function_runs(control: Control) -> None:
    with working(control, "echo"):
        session = begin(control, "echo", user_msg="hello", events=300)
        assert control.result(session, "echo") == "echo: hello"
        assert control.stream(session, "echo") == list(range(300))
        task = show(control, session, "echo")
        assert (task["status"], task["attempt"], task["error"]) == ("succeeded", 1, None)
        refused = control.task(session, "wrong", input='{"resume": "x"}')
    assert (refused.status, refused.json()["code"]) == (400, "INVALID_ARGUMENTS")
    assert refused.json()["detail"] == (
        "unknown argument 'resume'; this service takes: user_msg (required, str), events (optional, int)."
        " Did you mean 'user_msg'?"
    )
    assert control.get(f"/sessions/{session}").json()["task_ids"] == ["echo"]


def test_an_error_is_a_failure_with_its_text(control: Control) -> None:
    with working(control, "fail"):
        session = begin(control, "failing", why="no luck")
        assert control.result(session, "failing") == "no luck"
        task = show(control, session, "failing")
    assert (task["status"], task["error"]) == ("failed", "ValueError: no luck")


def test_a_workflow_streams_and_asks_and_remembers(control: Control) -> None:
    with working(control, "flow"):
        session = begin(control, "flow", user_msg="hello", events=40)
        assert control.result(session, "flow") == "echo: hello, run 1"
        assert [line["number"] for line in lines(control, session, "flow") if "number" in line] == list(range(40))
        more(control, session, "asks", user_msg="hello", ask=True)
        wait_for_event(control, session, "asks")
        assert show(control, session, "asks")["status"] == "waiting_input"
        event = {"_data": {"response": "Ann"}}
        name = "workflows.events.HumanResponseEvent"
        answer(control, session, "asks", {"__is_pydantic": True, "value": event, "qualified_name": name})
        assert control.result(session, "asks") == "answer: Ann"
        more(control, session, "fails", user_msg="fail")
        assert control.result(session, "fails") == "it failed"
        assert show(control, session, "fails")["error"].endswith("Error: it failed")
        more(control, session, "again", user_msg="hello")
        assert control.result(session, "again") == "echo: hello, run 3"


def test_a_task_of_a_worker_that_was_killed_completes_elsewhere(control: Control) -> None:
    with working(control, "stuck_at_first") as first:
        session = begin(control, "killed")
        wait_for_events(control, session, "killed", 5)
        with working(control, "stuck_at_first"):
            first.kill()
            assert control.result(session, "killed", 60) == "attempt 2"
            assert control.stream(session, "killed") == list(range(10))
            assert show(control, session, "killed")["attempt"] == 2


def test_answers_come_again_when_they_are_asked_for(control: Control) -> None:
    with working(control, "asking") as first:
        session = begin(control, "asked")
        wait_for_events(control, session, "asked", 1)
        answer(control, session, "asked", "stop")
        wait_for_events(control, session, "asked", 2)
        first.kill()
    with working(control, "asking"):
        wait_for_events(control, session, "asked", 3)
        answer(control, session, "asked", "end")
        assert control.result(session, "asked", 60) == "answers: ['stop', 'end']"
    assert lines(control, session, "asked") == [{"prefix": "question 0"}, {"n": 1}, {"prefix": "question 1"}]


def test_a_cancellation_reaches_the_function(control: Control) -> None:
    with working(control, "waiting", "--max-concurrent-tasks", "1") as worker:
        session = begin(control, "cancelled")
        wait_for_event(control, session, "cancelled")
        control.post(f"/sessions/{session}/tasks/cancelled/cancel")
        # There is room for another only when it has ended.
        more(control, session, "next")
        wait_for_event(control, session, "next")
        ended = worker.wait_for("task ended")
        assert (ended["task"], ended["how"]) == ("cancelled", "cancelled")
        answer(control, session, "next", "x")
        assert control.result(session, "next") == "told: x"


def test_as_many_run_as_may(control: Control) -> None:
    with working(control, "waiting", "--max-concurrent-tasks", "2"):
        session = control.session()
        for name in ("first", "second", "third"):
            more(control, session, name)
        for name in ("first", "second"):
            wait_for_event(control, session, name)
        with Client(control.queue) as client:
            held = client.call("GET", "/topics/llama_deploy.wf").json()["groups"]["default"]
        assert (held["leased"], held["ready"]) == (2, 1)
        answer(control, session, "third", "early")
        answer(control, session, "first", "x")
        assert control.result(session, "third") == "told: early"
        assert show(control, session, "second")["status"] == "running"
        control.post(f"/sessions/{session}/tasks/second/cancel")


def test_a_signal_lets_tasks_end(control: Control) -> None:
    with working(control, "waiting", "--grace", "30") as worker:
        session = begin(control, "graceful")
        wait_for_event(control, session, "graceful")
        worker.process.send_signal(signal.SIGTERM)
        worker.wait_for("stopping")
        answer(control, session, "graceful", "end")
        assert control.result(session, "graceful") == "told: end"
        assert worker.wait() == 0


def test_what_has_not_ended_in_time_is_given_back(control: Control) -> None:
    with working(control, "stuck_at_first") as first:
        session = begin(control, "back")
        wait_for_events(control, session, "back", 5)
        assert first.terminate() == 0
    with working(control, "stuck_at_first"):
        assert control.result(session, "back") == "attempt 2"
    assert control.stream(session, "back") == list(range(10))


def test_an_attempt_that_fails_is_followed_by_another(control: Control) -> None:
    with working(control, "flaky", "--max-attempts", "3", "--retry-backoff", "0.01"):
        session = begin(control, "retried", good=3)
        assert control.result(session, "retried") == "attempt 3"
        task = show(control, session, "retried")
        assert (task["status"], task["attempt"], task["error"]) == ("succeeded", 3, None)
        assert [(one["attempt"], one["error"]) for one in task["failures"]] == [
            (1, "ValueError: attempt 1"),
            (2, "ValueError: attempt 2"),
        ]
        assert control.stream(session, "retried") == [0, 1, 2]
        more(control, session, "hopeless", good=4)
        assert control.result(session, "hopeless") == "attempt 3"
        assert show(control, session, "hopeless")["error"] == "ValueError: attempt 3"
        more(control, session, "final", good=2, final=True)
        assert control.result(session, "final") == "never"
        assert show(control, session, "final")["failures"] == []
        service = control.get("/v1/services/wf").json()
    assert service["retry"] == {"max_attempts": 3, "backoff_s": 0.01, "max_backoff_s": 60.0}
    assert service["max_concurrent_tasks"] == 8


def test_a_failed_attempt_is_followed_by_another_of_a_control_plane_that_was_killed(tmp_path: Path) -> None:
    with ExitStack() as stack:
        machine = Machine(tmp_path, stack)
        control = machine.control
        options = ("--max-attempts", "2", "--retry-backoff", "2")
        stack.enter_context(start_worker(control.server, f"{FLOWS}:flaky", *options))
        session = begin(control, "T", good=2)
        wait_until(lambda: len(show(control, session, "T")["failures"]) == 1)
        port = control.server.port
        control.server.kill()
        server = start_control_plane(machine.queue, tmp_path / "control", port=port)
        control = Control(machine.queue, stack.enter_context(server))
        assert control.result(session, "T") == "attempt 2"
        assert control.stream(session, "T") == [0, 1]


def test_workers_register_anew_where_a_control_plane_has_lost_everything(tmp_path: Path) -> None:
    with ExitStack() as stack:
        machine = Machine(tmp_path, stack)
        control = machine.control
        options = ("--max-concurrent-tasks", "1")
        worker = stack.enter_context(start_worker(control.server, f"{FLOWS}:waiting", *options))
        session = begin(control, "runs")
        more(control, session, "waits")
        wait_for_event(control, session, "runs")
        port = control.server.port
        control.server.kill()
        server = start_control_plane(machine.queue, tmp_path / "empty", port=port)
        control = Control(machine.queue, stack.enter_context(server))
        # Nobody knows what the two were for: they are there for people to see.
        with Client(machine.queue) as client:

            def dead() -> list[dict[str, Any]]:
                found = client.call("GET", "/topics/llama_deploy.wf/messages?state=dead").json()["messages"]
                return sorted(found, key=lambda one: str(one["body"]["data"]["task_id"]))

            wait_until(lambda: len(dead()) == 2)
            reasons = [one["reason"] for one in dead()]
        assert reasons == [
            f"task {name}: the control plane does not know the task: SESSION_NOT_FOUND" for name in ("runs", "waits")
        ]
        new = begin(control, "new")
        wait_for_event(control, new, "new")
        answer(control, new, "new", "end")
        assert control.result(new, "new") == "told: end"
        # The data is found again, and what was put aside goes on.
        control.server.kill()
        server = start_control_plane(machine.queue, tmp_path / "control", port=port)
        control = Control(machine.queue, stack.enter_context(server))
        with Client(machine.queue) as client:
            client.call("POST", "/topics/llama_deploy.wf/redrive", b"{}", {"content-type": "application/json"})
        for name in ("runs", "waits"):
            answer(control, session, name, "end")
            assert control.result(session, name) == "told: end"
        assert worker.process.poll() is None


def test_a_task_that_was_deleted_is_no_dead_letter(control: Control) -> None:
    with working(control, "waiting", "--max-concurrent-tasks", "1"):
        session = begin(control, "deleted")
        more(control, session, "never begun")
        wait_for_event(control, session, "deleted")
        control.post(f"/sessions/{session}/delete")
        session = begin(control, "other")
        wait_for_event(control, session, "other")
        answer(control, session, "other", "end")
        assert control.result(session, "other") == "told: end"
        with Client(control.queue) as client:
            group = client.call("GET", "/topics/llama_deploy.wf").json()["groups"]["default"]
        assert (group["dead"], group["ready"]) == (0, 0)


def test_a_task_goes_on_while_the_control_plane_is_away(tmp_path: Path) -> None:
    with ExitStack() as stack:
        machine = Machine(tmp_path, stack)
        control = machine.control
        stack.enter_context(start_worker(control.server, f"{FLOWS}:waiting"))
        session = begin(control, "T")
        wait_for_event(control, session, "T")
        port = control.server.port
        control.server.kill()
        server = start_control_plane(machine.queue, tmp_path / "control", port=port)
        control = Control(machine.queue, stack.enter_context(server))
        answer(control, session, "T", "end")
        assert control.result(session, "T", 60) == "told: end"
        assert show(control, session, "T")["attempt"] == 1


def test_a_task_goes_on_when_the_queue_was_killed(tmp_path: Path) -> None:
    with ExitStack() as stack:
        machine = Machine(tmp_path, stack)
        control = machine.control
        stack.enter_context(start_worker(control.server, f"{FLOWS}:waiting"))
        session = begin(control, "T")
        wait_for_event(control, session, "T")
        machine.restart_queue()
        answer(control, session, "T", "end")
        # Begun anew or not, it is given the answer.
        assert control.result(session, "T", 60) == "told: end"
        assert lines(control, session, "T") == [{"n": 0}]


def test_a_worker_that_waits_for_its_control_plane_can_be_ended() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        options = [f"{FLOWS}:echo", "--service", "wf", "--control-plane", url]
        worker = LoggedProcess(options, command="worker")
        try:
            assert worker.wait_for("trying again")["what"] == "asking where the queue is"
            assert worker.terminate() == 0
        finally:
            if worker.process.poll() is None:
                worker.kill()


def test_what_is_no_control_plane_is_named(control: Control) -> None:
    command = [sys.executable, "-m", "wakeq", "worker", f"{FLOWS}:echo", "--service", "wf"]
    command += ["--control-plane", control.queue.url]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "asking where the queue is: " in ended.stderr
    assert "hint: is --control-plane the address of a wakeq control plane?" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "'nothing' names no object"),
        (["no_such_module:x"], "No module named 'no_such_module'"),
        ([f"{FLOWS}:nothing"], f"{FLOWS} has no 'nothing'"),
        ([f"{FLOWS}:Flow"], "it is a class, and neither an async function nor an instance of a workflow"),
        ([f"{FLOWS}:echo", "--control-plane", "here"], "control-plane: 'here' is no address of a server"),
        ([f"{FLOWS}:echo", "--service", "a/b"], "service: must have 1 to 150 characters"),
        (
            [f"{FLOWS}:echo", "--retry-backoff", "90"],
            "max-retry-backoff: must be at least --retry-backoff, which is 90",
        ),
    ],
)
def test_a_mistake_is_named(arguments: list[str], said: str) -> None:
    command = [sys.executable, "-m", "wakeq", "worker", "--service", "wf", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
