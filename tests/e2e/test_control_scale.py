"""What the control plane does does not grow with what it has: counted in bytes and in times that it wakes."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e.test_control_plane import TOPIC, Control
from tests.support.raw import Client, wait_until
from tests.support.server import ServerProcess, start_control_plane, start_server

pytestmark = pytest.mark.slow
EVENTS = 1_000
WATCHERS = 100
SESSIONS = 1_000
QUIET_S = 4
NDJSON = {"Content-Type": "application/x-ndjson"}


@contextmanager
def running(directory: Path) -> Iterator[Control]:
    with (
        start_server(directory / "queue") as queue,
        start_control_plane(queue, directory / "control", durability="memory") as server,
    ):
        both = Control(queue, server)
        both.register()
        yield both


def written_bytes(server: ServerProcess) -> int:
    """What the process has written, to sockets and files."""
    lines = Path(f"/proc/{server.process.pid}/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])


def wakes(server: ServerProcess) -> int:
    """How often its threads have begun to run after they had waited."""
    tasks = Path(f"/proc/{server.process.pid}/task").glob("*/status")
    lines = (line for task in tasks for line in task.read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def say(control: Control, messages: list[dict[str, object]]) -> None:
    """What services publish, in one batch."""
    lines = [json.dumps({"type": "control_plane", "action": "task_stream", "data": data}) for data in messages]
    with Client(control.queue) as client:
        assert client.call("POST", TOPIC, "\n".join(lines).encode(), NDJSON).status == 200


def lines_of(watcher: Client, count: int) -> list[bytes]:
    """So many lines of a stream, from where the watcher is."""
    read = b""
    while read.count(b"\n") < count:
        read += watcher.chunk().lstrip()
    return read.splitlines()


def test_an_event_costs_the_same_however_many_there_are(tmp_path: Path) -> None:
    with running(tmp_path) as control, ExitStack() as stack:
        session = control.session()
        control.task(session, "T")
        watchers = [stack.enter_context(Client(control.server)) for _ in range(WATCHERS)]
        for watcher in watchers:
            watcher.ask("GET", f"/sessions/{session}/tasks/T/result_stream")
        # The head comes with the first sign of life at the latest.
        for watcher in watchers:
            assert watcher.head().status == 200
        costs = []
        for first in range(0, EVENTS, EVENTS // 2):
            before = written_bytes(control.server)
            indices = range(first, first + EVENTS // 2)
            about = {"session_id": session, "task_id": "T"}
            say(control, [{**about, "index": index, "data": {"n": f"{index:06}"}} for index in indices])
            expected = [json.dumps({"n": f"{index:06}"}).encode() for index in indices]
            for watcher in watchers:
                assert lines_of(watcher, len(indices)) == expected
            costs.append(written_bytes(control.server) - before)
        floor = WATCHERS * sum(len(line) + 1 for line in expected)
        assert floor < costs[0] < 3 * floor
        assert costs[1] < 1.25 * costs[0]
        control.complete("T")
        assert control.result(session, "T") == "done"


def quiet(control: Control, session: str) -> int:
    """How often the server wakes while one request waits for some seconds and nothing else happens."""
    with Client(control.server) as client:
        before = wakes(control.server)
        assert client.call("GET", f"/sessions/{session}/tasks/waits/result?wait={QUIET_S}").json() is None
        return wakes(control.server) - before


def test_what_waits_costs_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as control, Client(control.server) as client:
        first = control.session()
        control.task(first, "waits")
        idle = quiet(control, first)
        asked = []
        for number in range(SESSIONS):
            session = client.call("POST", "/sessions/create").json()
            body = {"input": "{}", "service_id": "wf", "task_id": f"T{number}", "timeout_s": 3_600}
            path = f"/sessions/{session}/tasks"
            assert client.call("POST", path, json.dumps(body).encode()).status == 200
            asked.append({"session_id": session, "task_id": f"T{number}", "index": 0, "data": {"prefix": "?"}})
        say(control, asked)

        def all_wait() -> bool:
            page = client.call("GET", f"/v1/sessions/{session}/tasks").json()
            return bool(page["tasks"][0]["status"] == "waiting_input")

        wait_until(all_wait)
        sessions = client.call("GET", "/v1/sessions?limit=1000").json()
        assert sum(one["unfinished_tasks"] for one in sessions["sessions"]) == SESSIONS
        assert sessions["next"] is not None
        # Apart from the heartbeats of the two streams from the queue.
        assert quiet(control, first) <= idle + 10
