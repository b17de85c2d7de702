"""A service whose replicas each get each task: a queue, a control plane and three workers, all processes."""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_control_plane import Control, running
from tests.e2e.test_control_restart import Machine
from tests.e2e.test_worker import answer, begin, lines, more, show, wait_for_events, working
from tests.support.raw import Client, wait_until
from tests.support.server import LoggedProcess, start_control_plane

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    with running(tmp_path_factory.mktemp("all")) as both:
        yield both


def replica(control: Control, function: str, name: str, *arguments: str) -> Any:
    return working(control, function, "--delivery", "all", "--name", name, *arguments)


def three(control: Control, stack: ExitStack, function: str, *arguments: str) -> list[LoggedProcess]:
    """The service's replicas, as soon as the control plane knows that they are there, and nobody else."""
    before = consumers(control)
    with ThreadPoolExecutor() as threads:
        starting = [threads.submit(stack.enter_context, replica(control, function, name, *arguments)) for name in NAMES]
    # Who has stopped is shown until the queue has seen it go, and is given nothing.
    wait_until(lambda: not before & consumers(control))
    wait_for_replicas(control, *NAMES)
    return [started.result() for started in starting]


def consumers(control: Control) -> set[str]:
    """Whom the control plane knows to be there, by the names of processes."""
    return {*control.get("/v1/services/wf").json().get("consumers", ())}


def wait_for_replicas(control: Control, *names: str) -> None:
    def there() -> bool:
        found = control.get("/v1/services/wf").json()["replicas"]
        return [one["name"] for one in found if one["state"] == "up"] == list(names)

    wait_until(there)


def wait_for_topics(control: Control, *names: str) -> None:
    """Until those are the replicas that have one."""
    wanted = [f"llama_deploy@wf@{name}" for name in names]

    def left() -> bool:
        with Client(control.queue) as client:
            topics = client.call("GET", "/topics?after=llama_deploy@").json()["topics"]
        return [topic["name"] for topic in topics] == wanted

    wait_until(left)


def runs(control: Control, session: str, task_id: str) -> list[tuple[str, str, int]]:
    task = show(control, session, task_id)
    return [(one["replica"], one["status"], one["attempt"]) for one in task["replicas"]]


def end(control: Control, session: str, task_id: str) -> dict[str, Any]:
    control.result(session, task_id, 60)
    return show(control, session, task_id)


def test_each_replica_runs_each_task_once(control: Control) -> None:
    with ExitStack() as stack:
        three(control, stack, "echo")
        session = begin(control, "T0", user_msg="hello", events=100)
        for number in range(1, 6):
            more(control, session, f"T{number}", user_msg=f"hello {number}")
        assert json.loads(control.result(session, "T0")) == dict.fromkeys(NAMES, "echo: hello")
        for number in range(6):
            task = end(control, session, f"T{number}")
            assert (task["status"], task["delivery"], task["worker"]) == ("succeeded", "all", None)
            assert runs(control, session, f"T{number}") == [(name, "succeeded", 1) for name in NAMES]
        workers = {one["worker"].rpartition(":")[0] for one in show(control, session, "T0")["replicas"]}
        assert workers == set(NAMES)
        assert Counter(control.stream(session, "T0")) == dict.fromkeys(range(100), 3)
        body = _server_sent(control, session, "T0")
        assert [line for line in body if line.startswith("id:")] == [f"id: {number}" for number in range(300)]
        assert control.get(f"/sessions/{session}").json()["task_ids"] == [f"T{number}" for number in range(6)]
        assert len(control.get(f"/sessions/{session}/tasks").json()) == 6
        service = control.get("/v1/services/wf").json()
        assert (service["delivery"], service["state"], len(service["consumers"])) == ("all", "up", 3)
        assert [one["unfinished_tasks"] for one in service["replicas"]] == [0, 0, 0]
    # Who has stopped is given nothing more, though the queue may not know yet.
    with replica(control, "echo", "d"):
        wait_until(lambda: "d" in [one["name"] for one in control.get("/v1/services/wf").json()["replicas"]])
        session = begin(control, "next", user_msg="hello")
        assert json.loads(control.result(session, "next")) == {"d": "echo: hello"}


def _server_sent(control: Control, session: str, task_id: str) -> list[str]:
    path = f"/sessions/{session}/tasks/{task_id}/result_stream"
    with Client(control.server) as client:
        return client.call("GET", path, headers={"Accept": "text/event-stream"}).body.decode().splitlines()


def test_inputs_reach_each_and_so_does_a_cancellation(control: Control) -> None:
    with ExitStack() as stack:
        three(control, stack, "asking", "--max-concurrent-tasks", "1")
        session = begin(control, "asked")
        wait_for_events(control, session, "asked", 3)
        assert show(control, session, "asked")["status"] == "waiting_input"
        answer(control, session, "asked", "one")
        wait_for_events(control, session, "asked", 6)
        answer(control, session, "asked", "two")
        assert json.loads(control.result(session, "asked")) == dict.fromkeys(NAMES, "answers: ['one', 'two']")
        assert Counter(line["prefix"] for line in lines(control, session, "asked")) == {
            "question 0": 3,
            "question 1": 3,
        }
        more(control, session, "cancelled")
        wait_for_events(control, session, "cancelled", 3)
        assert control.post(f"/sessions/{session}/tasks/cancelled/cancel").json()["status"] == "cancelled"
        assert runs(control, session, "cancelled") == [(name, "cancelled", 1) for name in NAMES]
        # Each has room for another.
        more(control, session, "next-in")
        wait_for_events(control, session, "next-in", 3)
        assert control.post(f"/sessions/{session}/delete").status == 200


def test_one_replica_begins_anew_what_failed(control: Control, tmp_path: Path) -> None:
    with ExitStack() as stack:
        three(control, stack, "first_fails", "--max-attempts", "2", "--retry-backoff", "0")
        session = begin(control, "T-re", path=str(tmp_path / "there"))
        assert json.loads(control.result(session, "T-re")) == dict.fromkeys(NAMES, "done")
        task = show(control, session, "T-re")
        assert sorted(one["attempt"] for one in task["replicas"]) == [1, 1, 2]
        (failure,) = [one for run in task["replicas"] for one in run["failures"]]
        assert failure["error"] == "ValueError: the first of all"


def test_a_replica_that_is_killed_fails_its_task(control: Control) -> None:
    with ExitStack() as stack:
        workers = three(control, stack, "waiting")
        session = begin(control, "T-ki")
        wait_for_events(control, session, "T-ki", 3)
        workers[1].kill()
        wait_until(lambda: runs(control, session, "T-ki")[1][1] == "failed")
        answer(control, session, "T-ki", "end")
        task = end(control, session, "T-ki")
        assert task["status"] == "failed"
        assert task["error"].startswith("1 of 3 replicas failed: b: REPLICA_GONE: ")
        assert [one["result"] for one in task["replicas"]][::2] == ["told: end", "told: end"]
        wait_for_replicas(control, "a", "c")
        wait_for_topics(control, "a", "c")
        more(control, session, "next-ki")
        wait_for_events(control, session, "next-ki", 2)
        answer(control, session, "next-ki", "end")
        assert set(json.loads(control.result(session, "next-ki"))) == {"a", "c"}


def test_workers_of_one_name_are_one_replica_and_one_goes_on_for_the_other(control: Control) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(replica(control, "stuck_at_first", "a"))
        wait_for_replicas(control, "a")
        session = begin(control, "T-co")
        wait_for_events(control, session, "T-co", 5)
        stack.enter_context(replica(control, "stuck_at_first", "a"))
        first.kill()
        assert json.loads(control.result(session, "T-co", 60)) == {"a": "attempt 2"}
        assert control.stream(session, "T-co") == list(range(10))


def test_a_replica_that_stops_may_end_what_it_has_and_others_take_what_comes(control: Control) -> None:
    with ExitStack() as stack:
        worker = stack.enter_context(replica(control, "waiting", "a", "--grace", "60"))
        wait_for_replicas(control, "a")
        session = begin(control, "T-st")
        wait_for_events(control, session, "T-st", 1)
        worker.process.terminate()
        wait_until(lambda: control.get("/v1/services/wf").json()["state"] == "down")
        assert show(control, session, "T-st")["status"] == "running"
        answer(control, session, "T-st", "end")
        more(control, session, "waits")
        assert json.loads(control.result(session, "T-st")) == {"a": "told: end"}
    assert (show(control, session, "waits")["status"], runs(control, session, "waits")) == ("queued", [])
    wait_for_topics(control)
    with replica(control, "waiting", "b"):
        answer(control, session, "waits", "end")
        assert json.loads(control.result(session, "waits")) == {"b": "told: end"}


@pytest.mark.parametrize("killed", ["control plane", "queue"])
def test_tasks_go_on_when_a_server_was_killed(tmp_path: Path, killed: str) -> None:
    with ExitStack() as stack, ExitStack() as workers:
        machine = Machine(tmp_path, stack)
        control = machine.control
        three(control, workers, "waiting")
        session = begin(control, "T")
        wait_for_events(control, session, "T", 3)
        if killed == "queue":
            machine.restart_queue()
        else:
            port = control.server.port
            control.server.kill()
            server = start_control_plane(machine.queue, tmp_path / "control", port=port)
            control = Control(machine.queue, stack.enter_context(server))
        answer(control, session, "T", "end")
        assert json.loads(control.result(session, "T", 60)) == dict.fromkeys(NAMES, "told: end")
        assert control.stream(session, "T") == [0, 0, 0]
        if killed == "control plane":
            assert runs(control, session, "T") == [(name, "succeeded", 1) for name in NAMES]
        wait_for_replicas(control, *NAMES)
        more(control, session, "next")
        wait_for_events(control, session, "next", 3)
        answer(control, session, "next", "end")
        assert set(json.loads(control.result(session, "next"))) == set(NAMES)
