"""Every request recorded from llama_deploy's own control plane, made again to wakeq's, and answered as recorded.

The differences that are intended stand in `docs/control-plane.md`. Any other fails here, and so does one that is listed
and doesn't show. Ids that a server makes up are learnt from the answers and put into the requests that follow.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_control_plane import said
from tests.support.control_differences import Expected, differences, documented
from tests.support.raw import Answer, Client
from tests.support.recordings import VERSIONS, Recorded, recording
from tests.support.replay import Ids, matches, named
from tests.support.server import ServerProcess, start_control_plane, start_server

_EMPTY_POLLS = {"queue (2)", "queue (3)", "queue (4)", "queue (6)", "queue wf after completion", "queue human topic"}
PARKED = "stream not started"
"""The one request that isn't made: it would be parked, and has a test of its own."""


class Replay(Ids):
    """One run through a recording."""

    def __init__(self, version: str, queue: ServerProcess, control_plane: ServerProcess) -> None:
        super().__init__()
        self.version = version
        self.queue = queue
        self.control_plane = control_plane
        self.id_field = "agent_id" if version == "0.4.2" else "service_id"

    def ask(self, name: str, recorded: Recorded) -> Answer:
        target, sent = self.translated(recorded.target), recorded.sent
        server = self.control_plane
        if target.startswith("/messages/"):
            server = self.queue
            # What is published comes a moment after the answer to who caused it.
            target += "?wait=0" if name in _EMPTY_POLLS else "?wait=10"
        elif target.endswith("/result"):
            target += "?wait=0"
        body = None if sent is None else self.translated(sent.decode()).encode()
        with Client(server) as client:
            client.ask(recorded.method, target, body, {"Connection": "close"} if not is_open(recorded) else {})
            if is_open(recorded):
                return read_open(client, len(lines_of(recorded)))
            return client.answer(has_body=recorded.method != "HEAD")


def is_open(recorded: Recorded) -> bool:
    """Whether the answer was still open when the recorder gave up."""
    return b"<<TIMEOUT>>" in recorded.body


def lines_of(recorded: Recorded) -> list[Any]:
    """The JSON of a stream, whatever its chunks."""
    return [json.loads(line) for line in recorded.body.split(b"\r\n") if line.startswith(b"{")]


def read_open(client: Client, lines: int) -> Answer:
    """So many lines of an answer that stays open."""
    head = client.head()
    if head.get("transfer-encoding") != "chunked":
        return Answer(head, client.exactly(int(head.get("content-length") or 0)))
    body = b""
    while body.count(b"\n") < lines:
        body += client.chunk()
    return Answer(head, body)


def content(recorded_type: str | None, body: bytes) -> Any:
    if recorded_type == "application/x-ndjson":
        return [json.loads(line) for line in body.splitlines()]
    return json.loads(body) if body else None


def expected_of(recorded: Recorded) -> Expected:
    kind = recorded.headers["content-type"]
    if kind == "application/x-ndjson":
        return Expected(recorded.status, lines_of(recorded))
    if kind.startswith("text/plain"):
        return Expected(recorded.status, recorded.body.decode())
    return Expected(recorded.status, json.loads(recorded.body) if recorded.body else None)


def without_own_members(status: int, body: Any) -> Any:
    """An error as llama_deploy has it; what stands beside it is checked here."""
    if status < 400 or body is None:
        return body
    assert list(body) == ["detail", "type", "title", "status", "code"]
    assert body["status"] == status
    return {"detail": body["detail"]}


def check_headers(recorded: Recorded, answer: Answer) -> None:
    headers = dict(answer.head.fields)
    assert "server" not in headers
    assert headers["content-type"] == "application/json" or recorded.headers["content-type"] == headers["content-type"]
    assert recorded.headers.get("allow") == headers.get("allow")


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """Of which the queue may push nowhere, so that what is published stays until it is asked for."""
    with (
        start_server(tmp_path / "queue", "--push-allow", "192.0.2.1", durability="os") as queue,
        start_control_plane(queue, tmp_path / "control", "--wait-for-service", "0") as control_plane,
    ):
        yield queue, control_plane


@pytest.mark.parametrize("version", VERSIONS)
def test_every_recorded_request_is_answered_as_recorded(
    servers: tuple[ServerProcess, ServerProcess], version: str
) -> None:
    replay = Replay(version, *servers)
    requests = dict(named(recording(version, "control-plane")))
    orphan, other = json.loads(requests["S session"].body)["task_ids"][:2]
    made = json.loads(requests["add task w/o task_id"].body)
    listed = differences(orphan, made)
    listed = [difference for difference in listed if version in difference.versions]
    for name, recorded in requests.items():
        if name == PARKED:
            continue
        answer = replay.ask(name, recorded)
        expected = expected_of(recorded)
        for difference in listed:
            if name in difference.answers:
                before, expected = expected, difference.answers[name](expected)
                assert before != expected, f"{difference.name} does not show in {name!r}"
        check_headers(recorded, answer)
        ours = content(answer.head.get("content-type"), answer.body)
        ours = without_own_members(answer.status, ours)
        replay.learn(expected.body, ours)
        if name == "add task, OTHER id field name":
            replay.ours[other] = ours
            with Client(replay.queue) as client:
                assert client.call("GET", "/messages/llama_deploy.wf?wait=10").json()["data"]["task_id"] == ours
        where = f"line {recorded.line}: {name}: {recorded.method} {recorded.target}"
        assert answer.status == expected.status, where
        assert matches(replay.translate(expected.body), ours), f"{where}: {ours} is not {expected.body}"


def test_a_recording_is_read_to_its_last_line() -> None:
    for version in VERSIONS:
        assert len(recording(version, "control-plane")) == 96


# What no recording has


Made = tuple[str, str]
"""A session and a task in it."""


class Control:
    """A control plane to ask, with a service that is nobody."""

    def __init__(self, queue: ServerProcess, server: ServerProcess) -> None:
        self.queue = queue
        self.server = server
        self.post("/services/register", {"service_name": "wf", "description": "d"})

    def post(self, path: str, body: Any, **more: Any) -> Answer:
        with Client(self.server) as client:
            return client.call("POST", path, json.dumps(body).encode(), **more)

    def get(self, path: str, headers: dict[str, str | None] | None = None) -> Answer:
        with Client(self.server) as client:
            return client.call("GET", path, headers=headers)

    def task(self) -> Made:
        session = self.post("/sessions/create", None).json()
        return session, self.post(f"/sessions/{session}/tasks", {"input": "{}", "service_id": "wf"}).json()

    def event(self, made: Made, index: int) -> None:
        data = {"task_id": made[1], "session_id": made[0], "data": {"n": index}, "index": index}
        assert self.post("/process_message", {"action": "task_stream", "data": data}).status == 200

    def complete(self, made: Made, text: str = "done") -> None:
        data = {"task_id": made[1], "history": [], "result": text}
        assert self.post("/process_message", {"action": "completed_task", "data": data}).status == 200


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    data = tmp_path_factory.mktemp("data")
    with start_server(data) as queue, start_control_plane(queue, data, durability="memory") as server:
        yield Control(queue, server)


def a_stream_is_parked(control: Control) -> None:
    made = control.task()
    with Client(control.server) as watcher:
        watcher.ask("GET", f"/sessions/{made[0]}/tasks/{made[1]}/result_stream")
        control.event(made, 0)
        assert watcher.head().status == 200
        assert said(watcher) == b'{"n": 0}\n'
        control.complete(made)
        assert watcher.rest().strip() in (b"", b"{}")


def a_result_is_parked(control: Control) -> None:
    session, task = made = control.task()
    path = f"/sessions/{session}/tasks/{task}/result"
    assert control.get(f"{path}?wait=0").body == b"null"
    bad = control.get(f"{path}?wait=61")
    assert (bad.status, bad.json()["detail"]) == (400, "wait: must be a number of seconds from 0 to 60")
    with Client(control.server) as waiting:
        waiting.ask("GET", path)
        # A space says that the server has it, and waits.
        assert waiting.head().get("transfer-encoding") == "chunked"
        assert waiting.chunk() == b" "
        control.complete(made)
        assert json.loads(waiting.rest())["result"] == "done"


def a_silent_stream_ends_as_a_line(control: Control) -> None:
    session, task = made = control.task()
    with Client(control.server) as watcher:
        watcher.ask("GET", f"/sessions/{session}/tasks/{task}/result_stream")
        assert watcher.head().status == 200
        assert watcher.chunk() == b" "
        control.event(made, 0)
        assert said(watcher) == b'{"n": 0}\n'
        assert watcher.chunk() == b" "
        control.complete(made)
        assert watcher.rest().lstrip() == b"{}\n"


def a_late_event_is_waited_for(control: Control) -> None:
    session, task = made = control.task()
    for index in (0, 2, 1):
        control.event(made, index)
    control.complete(made)
    body = control.get(f"/sessions/{session}/tasks/{task}/result_stream").body
    assert body == b'{"n": 0}\n{"n": 1}\n{"n": 2}\n'


def a_state_that_is_written_back_undoes_nothing(control: Control) -> None:
    session, task = made = control.task()
    control.event(made, 0)
    path = f"/sessions/{session}/state"
    stale = control.get(path).json()
    control.event(made, 1)
    control.complete(made)
    assert control.post(path, stale | {"k": 1, f"result_{task}": None}).body == b"null"
    state = control.get(path).json()
    assert [event["index"] for event in state[f"stream_{task}"]] == [0, 1]
    assert (state[f"result_{task}"]["result"], state["k"]) == ("done", 1)


def calls_of_our_own(control: Control) -> None:
    session, task = control.task()
    shown = control.get(f"/sessions/{session}/tasks/{task}").json()
    assert (shown["task_id"], shown["status"], shown["service_id"]) == (task, "queued", "wf")
    assert control.get("/v1/services").json()["services"][0]["name"] == "wf"
    assert control.get("/healthz").json()["status"] == "ok"
    cancelled = control.post(f"/sessions/{session}/tasks/{task}/cancel", None).json()
    assert cancelled["status"] == "cancelled"
    assert control.get(f"/sessions/{session}/tasks/{task}/result").json()["result"] == cancelled["error"]


def no_pages_and_no_redirects(control: Control) -> None:
    for path in ("/docs", "/redoc", "/openapi.json", "/services/", "/sessions//state"):
        assert control.get(path).status == 404


def odd_names_are_refused(control: Control) -> None:
    assert control.post("/services/register", {"service_name": "a/b", "description": "d"}).status == 422
    session, _ = control.task()
    odd = {"input": "{}", "service_id": "wf", "task_id": "a/b"}
    assert control.post(f"/sessions/{session}/tasks", odd).status == 422


def foreigners_are_refused(control: Control) -> None:
    foreign: tuple[dict[str, str | None], ...] = ({"Origin": "http://example.org"}, {"Host": "example.org"})
    for headers in foreign:
        assert control.get("/services", headers).json()["code"] == "ORIGIN_REFUSED"
    assert control.get("/services", {"Host": "localhost", "Origin": "http://localhost"}).status == 200


def a_huge_body_is_refused(control: Control) -> None:
    session, _ = control.task()
    with Client(control.server) as client:
        head = {"Content-Type": "application/json", "Content-Length": str(64 * 1024 * 1024 + 2)}
        client.ask("POST", f"/sessions/{session}/state", headers=head)
        client.socket.sendall(b" " * (64 * 1024 * 1024 + 1))
        assert client.answer().json()["code"] == "BODY_TOO_LARGE"


def a_deep_body_is_refused(control: Control) -> None:
    session, _ = control.task()
    with Client(control.server) as client:
        deep = b'{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}"
        assert client.call("POST", f"/sessions/{session}/state", deep).status == 422
    assert control.get(f"/sessions/{session}/state").status == 200


def a_state_has_a_tag(control: Control) -> None:
    session, _ = control.task()
    path = f"/sessions/{session}/state"
    tag = control.get(path).head.get("etag")
    assert control.post(path, {"k": 1}).head.get("etag") != tag
    with Client(control.server) as client:
        stale = client.call("POST", path, b'{"k": 2}', {"If-Match": tag})
    assert (stale.status, stale.json()["code"]) == (412, "STATE_CONFLICT")
    assert control.get(path).json()["k"] == 1


NOT_RECORDED: dict[str, Callable[[Control], None]] = {
    "`GET …/result_stream` before the first event": a_stream_is_parked,
    "`GET …/result` of a task without one": a_result_is_parked,
    "`GET …/result_stream` of a task that says nothing for 3 s": a_silent_stream_ends_as_a_line,
    "events that come out of order": a_late_event_is_waited_for,
    "`GET …/state` and `POST …/state`": a_state_has_a_tag,
    "`POST …/state` with what the control plane keeps": a_state_that_is_written_back_undoes_nothing,
    "`GET …/tasks/{task}`, `POST …/cancel`, `/v1/…`, `/healthz`": calls_of_our_own,
    "`/docs`, `/redoc`, `/openapi.json`, a path with a slash at its end": no_pages_and_no_redirects,
    "names of services and ids of tasks that no topic, key or path can have": odd_names_are_refused,
    "a foreign `Origin` or `Host`": foreigners_are_refused,
    "a body of more than 64 MiB": a_huge_body_is_refused,
    "a body nested some hundred levels deep": a_deep_body_is_refused,
}
EVERYWHERE = ["any answer", "any error"]
"""Checked with each recorded answer."""


@pytest.mark.parametrize("name", NOT_RECORDED)
def test_a_difference_that_no_recording_has(control: Control, name: str) -> None:
    NOT_RECORDED[name](control)


def test_every_difference_is_documented_once() -> None:
    assert documented() == [*EVERYWHERE, *(one.name for one in differences("", "")), *NOT_RECORDED]
