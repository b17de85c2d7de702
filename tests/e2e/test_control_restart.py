"""What the control plane has answered survives its end, however it ends; and that of the queue."""

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.test_control_plane import Control
from tests.support.raw import Client, wait_until
from tests.support.receiver import free_port, receiving
from tests.support.server import ServerProcess, start_control_plane, start_server


class Machine:
    """A queue and a control plane that can be killed and started again."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self.queue = self._queue(0)
        self.control = self.start()

    def start(self) -> Control:
        server = start_control_plane(self.queue, self._directory / "control")
        return Control(self.queue, self._stack.enter_context(server))

    def restart_control_plane(self) -> Control:
        if self.control.server.process.poll() is None:
            self.control.server.kill()
        self.control = self.start()
        return self.control

    def restart_queue(self) -> None:
        self.queue.kill()
        self.queue = self.control.queue = self._queue(self.queue.port)

    def _queue(self, port: int) -> ServerProcess:
        return self._stack.enter_context(start_server(self._directory / "queue", durability="fsync", port=port))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with ExitStack() as stack:
        yield Machine(tmp_path, stack)


def taken_behind(control: Control, before: str) -> str:
    """The task that comes next; the one before may come again, since its ack wasn't waited for."""
    found: str = control.taken(60)["data"]["task_id"]
    return found if found != before else str(control.taken(60)["data"]["task_id"])


def test_everything_answered_is_there_again(machine: Machine) -> None:
    control = machine.control
    control.register()
    session = control.session()
    control.task(session, "ended")
    control.task(session, "running")
    for index in range(3):
        control.emit(session, "running", index)
        control.emit(session, "ended", index)
    control.complete("ended")
    assert control.result(session, "ended") == "done"
    control.post(f"/sessions/{session}/state", {"context": "c"})
    # Events of both were heard before that result.
    paths = (f"/sessions/{session}", "/services", f"/v1/sessions/{session}", f"/v1/sessions/{session}/state")
    before = [control.get(path).json() for path in paths]
    assert before[-1] == {"version": 1, "state": {"context": "c"}}
    control = machine.restart_control_plane()
    assert [control.get(path).json() for path in paths] == before
    assert control.result(session, "ended") == "done"
    assert control.stream(session, "ended") == [0, 1, 2]
    assert [control.taken()["data"]["task_id"] for _ in range(2)] == ["ended", "running"]
    control.emit(session, "running", 3)
    control.complete("running")
    assert control.result(session, "running") == "done"
    assert control.stream(session, "running") == [0, 1, 2, 3]


def test_a_task_that_was_not_published_is_after_a_restart(machine: Machine) -> None:
    control = machine.control
    control.register()
    session = control.session()
    control.task(session, "before")
    assert control.taken()["data"]["task_id"] == "before"
    machine.queue.kill()
    assert control.task(session, "early").status == 200
    control.server.kill()
    machine.restart_queue()
    control = machine.restart_control_plane()
    assert taken_behind(control, "before") == "early"
    control.complete("early")
    assert control.result(session, "early") == "done"


def test_what_was_said_meanwhile_is_heard_after_a_restart(machine: Machine) -> None:
    control = machine.control
    control.register()
    session = control.session()
    control.task(session, "T")
    assert control.taken()["data"]["task_id"] == "T"
    control.server.kill()
    for index in range(5):
        control.emit(session, "T", index)
    control.complete("T")
    control = machine.restart_control_plane()
    assert control.result(session, "T") == "done"
    assert control.stream(session, "T") == [0, 1, 2, 3, 4]


def test_what_was_in_hand_comes_before_what_was_said_later(machine: Machine) -> None:
    control = machine.control
    control.register()
    session = control.session()
    control.task(session, "T")
    assert control.taken()["data"]["task_id"] == "T"
    # It is handed the first event, and dies before it can read it.
    control.server.process.send_signal(signal.SIGSTOP)
    control.emit(session, "T", 0)
    with Client(machine.queue) as client:

        def leased() -> int:
            groups = client.call("GET", "/topics/llama_deploy.control_plane").json()["groups"]
            return int(groups["default"]["leased"])

        wait_until(lambda: leased() == 1)
    control.server.kill()
    control.emit(session, "T", 1)
    control.complete("T")
    control = machine.restart_control_plane()
    assert control.result(session, "T") == "done"
    assert control.stream(session, "T") == [0, 1]


def test_a_disk_that_refuses_ends_the_process(machine: Machine, tmp_path: Path) -> None:
    machine.control.server.terminate()
    with sqlite3.connect(tmp_path / "control" / "control.sqlite3") as database:
        database.execute("CREATE TRIGGER full BEFORE INSERT ON session BEGIN SELECT RAISE(ABORT, 'no room'); END")
    database.close()
    control = machine.restart_control_plane()
    with Client(control.server) as client:
        client.ask("POST", "/sessions/create")
        assert client.answer().status == 500
    assert control.server.wait() == 1
    said = [line["text"] for line in control.server.events("raw")]
    assert said == [
        "wakeq: a change can't be stored: no room",
        "hint: what was answered is kept; make room, and start it again",
    ]


def test_a_queue_that_comes_back_is_used_again(machine: Machine) -> None:
    control = machine.control
    control.register(host="127.0.0.1", port=9)
    session = control.session()
    # What was published is on disk, and its topic with it.
    control.task(session, "before")
    assert control.taken()["data"]["task_id"] == "before"
    machine.restart_queue()
    control.task(session, "T")
    assert taken_behind(control, "before") == "T"
    control.emit(session, "T", 0)
    control.complete("T")
    assert control.result(session, "T", 60) == "done"


def test_a_push_that_went_down_unheard_is_removed(machine: Machine) -> None:
    control = machine.control
    with receiving() as service, Client(machine.queue) as client:
        there = f"127.0.0.1:{service.port}"

        def pushes() -> dict[str, str]:
            shown = client.call("GET", "/topics/llama_deploy.wf/push").json()["pushes"]
            return {push["name"]: push["state"] for push in shown}

        gone = f"127.0.0.1:{free_port()}"
        for address in (gone, there):
            control.register(host="127.0.0.1", port=int(address.partition(":")[2]))
            wait_until(lambda: address in pushes())  # noqa: B023
        control.server.kill()
        # Pushes take turns, so that by the second message the one that can't be reached has been tried.
        for _ in range(2):
            client.call("POST", "/messages/llama_deploy.wf", b'{"type": "wf"}', {"content-type": "application/json"})
            service.next().answer(200)
        wait_until(lambda: pushes() == {gone: "suspended", there: "up"})
        machine.restart_control_plane()
        wait_until(lambda: pushes() == {there: "up"})


def test_who_is_there_is_unknown_while_the_queue_is_away(machine: Machine) -> None:
    control = machine.control
    control.register()

    def standing() -> tuple[str, list[str]]:
        service = control.get("/v1/services/wf").json()
        return service["state"], service["consumers"]

    with Client(machine.queue) as first, Client(machine.queue) as second:
        for name, client in (("stays", first), ("goes", second)):
            client.ask("GET", "/messages/llama_deploy.wf", headers={"Wakeq-Consumer": name})
        wait_until(lambda: standing() == ("up", ["goes", "stays"]))
    machine.queue.kill()
    wait_until(lambda: standing() == ("unknown", []))
    machine.restart_queue()
    with Client(machine.queue) as client:
        client.ask("GET", "/messages/llama_deploy.wf", headers={"Wakeq-Consumer": "stays"})
        wait_until(lambda: standing() == ("up", ["stays"]))


def test_a_queue_that_forgot_everything_is_told_again(tmp_path: Path) -> None:
    with ExitStack() as stack:
        queue = stack.enter_context(start_server(tmp_path / "queue"))
        control = Control(queue, stack.enter_context(start_control_plane(queue, tmp_path / "control")))
        control.register(host="127.0.0.1", port=9)
        with Client(queue) as client:
            wait_until(lambda: len(client.call("GET", "/topics/llama_deploy.wf/push").json()["pushes"]) == 1)
        queue.kill()
        queue = stack.enter_context(start_server(tmp_path / "queue", port=queue.port))
        with Client(queue) as watcher, Client(queue) as client:
            watcher.ask("GET", "/events?topics=llama_deploy.wf,llama_deploy.control_plane")
            assert watcher.head().status == 200
            seen = b""

            def told() -> bool:
                pushes = client.call("GET", "/topics/llama_deploy.wf/push").json().get("pushes", [])
                return b"llama_deploy.control_plane" in seen and [push["name"] for push in pushes] == ["127.0.0.1:9"]

            # Whoever watches is told of both when they come, unless they were there before.
            for _ in range(10):
                if told():
                    break
                seen += watcher.chunk()
            assert told()
