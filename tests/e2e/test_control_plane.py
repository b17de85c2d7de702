"""The control plane over sockets: who waits is woken, what was answered survives, nobody waits in vain."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.raw import JSON, Answer, Client, wait_until
from tests.support.receiver import free_port, receiving
from tests.support.server import ServerProcess, start_control_plane, start_server

TOPIC = "/messages/llama_deploy.control_plane"


class Control:
    """What these tests ask of a control plane and of its queue."""

    def __init__(self, queue: ServerProcess, server: ServerProcess) -> None:
        self.queue = queue
        self.server = server

    def post(self, path: str, body: Any = None) -> Answer:
        with Client(self.server) as client:
            return client.call("POST", path, json.dumps(body).encode())

    def get(self, path: str) -> Answer:
        with Client(self.server) as client:
            return client.call("GET", path)

    def register(self, name: str = "wf", **more: Any) -> None:
        assert self.post("/services/register", {"service_name": name, "description": "d", **more}).status == 200
        # The queue is told a moment after the answer.
        with Client(self.queue) as client:
            wait_until(lambda: client.call("GET", f"/topics/llama_deploy.{name}").status == 200)

    def session(self) -> str:
        return str(self.post("/sessions/create").json())

    def task(self, session: str, task_id: str, **more: Any) -> Answer:
        body = {"input": "{}", "service_id": "wf", "task_id": task_id, **more}
        return self.post(f"/sessions/{session}/tasks", body)

    def taken(self, wait_s: int = 10) -> dict[str, Any]:
        """The next message to the service."""
        with Client(self.queue) as client:
            answer = client.call("GET", f"/messages/llama_deploy.wf?wait={wait_s}")
        message: dict[str, Any] = answer.json()
        assert "data" in message, f"{answer} is no message"
        return message

    def say(self, action: str, **data: Any) -> None:
        """What a service publishes."""
        message = json.dumps({"type": "control_plane", "action": action, "data": data}).encode()
        with Client(self.queue) as client:
            assert client.call("POST", TOPIC, message, JSON).status == 200

    def emit(self, session: str, task_id: str, index: int) -> None:
        self.say("task_stream", task_id=task_id, session_id=session, data={"n": index}, index=index)

    def complete(self, task_id: str, text: str = "done") -> None:
        self.say("completed_task", task_id=task_id, history=[], result=text, data={})

    def result(self, session: str, task_id: str, wait_s: int = 20) -> str:
        return str(self.get(f"/sessions/{session}/tasks/{task_id}/result?wait={wait_s}").json()["result"])

    def stream(self, session: str, task_id: str) -> list[int]:
        body = self.get(f"/sessions/{session}/tasks/{task_id}/result_stream").body
        # A stream whose last word was a sign of life ends with `{}`.
        return [data["n"] for data in map(json.loads, body.splitlines()) if data]


def said(watcher: Client) -> bytes:
    """The next chunk that is more than a sign of life."""
    while not (chunk := watcher.chunk()).strip():
        assert chunk, "the stream has ended"
    return chunk


def broken_off(watcher: Client) -> bool:
    """Whether nothing but signs of life comes before the connection ends: no last chunk, so there would be more."""
    left = b"".join(iter(lambda: watcher.socket.recv(1024), b""))
    return not left.replace(b"1\r\n \r\n", b"")


@contextmanager
def running(directory: Path, *arguments: str) -> Iterator[Control]:
    with (
        start_server(directory / "queue", durability="os") as queue,
        start_control_plane(queue, directory / "control", *arguments) as server,
    ):
        yield Control(queue, server)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    with running(tmp_path_factory.mktemp("control")) as both:
        both.register()
        yield both


def test_a_task_goes_from_its_client_to_its_service_and_back(control: Control) -> None:
    session = control.session()
    assert control.task(session, "there").json() == "there"
    message = control.taken()
    assert (message["action"], message["type"], message["data"]["task_id"]) == ("new_task", "wf", "there")
    for index in range(3):
        control.emit(session, "there", index)
    control.complete("there")
    assert control.result(session, "there") == "done"
    assert control.stream(session, "there") == [0, 1, 2]


def test_an_event_is_shown_when_it_comes(control: Control) -> None:
    session = control.session()
    control.task(session, "live")
    assert control.taken()["data"]["task_id"] == "live"
    with Client(control.server) as watcher:
        watcher.ask("GET", f"/sessions/{session}/tasks/live/result_stream")
        for index in range(5):
            control.emit(session, "live", index)
            if index == 0:
                assert watcher.head().get("content-type") == "application/x-ndjson"
            assert json.loads(said(watcher)) == {"n": index}
        control.complete("live")
        assert watcher.rest().strip() in (b"", b"{}")


def test_many_watch_one_task(control: Control) -> None:
    session = control.session()
    control.task(session, "watched")
    assert control.taken()["data"]["task_id"] == "watched"
    with ThreadPoolExecutor(20) as watchers:
        streams = [watchers.submit(control.stream, session, "watched") for _ in range(20)]
        for index in range(10):
            control.emit(session, "watched", index)
        control.complete("watched")
        assert [stream.result(20) for stream in streams] == [list(range(10))] * 20


def test_an_answer_reaches_the_service_behind_its_task(control: Control) -> None:
    session = control.session()
    control.task(session, "asks")
    control.say("task_stream", task_id="asks", session_id=session, data={"_data": {"prefix": "?"}}, index=0)
    wait_until(lambda: control.get(f"/sessions/{session}/tasks/asks").json()["status"] == "waiting_input")
    body = {"service_id": "wf", "event_obj_str": "Ann"}
    assert control.post(f"/sessions/{session}/tasks/asks/send_event", body).body == b"null"
    assert [control.taken()["action"] for _ in range(2)] == ["new_task", "send_event"]
    assert control.get(f"/sessions/{session}/tasks/asks").json()["status"] == "running"


def test_a_message_that_comes_again_changes_nothing(control: Control) -> None:
    session = control.session()
    control.task(session, "twice")
    assert control.taken()["data"]["task_id"] == "twice"
    for _ in range(2):
        control.emit(session, "twice", 0)
    for text in ("first", "second"):
        control.complete("twice", text)
    control.task(session, "behind")
    assert control.taken()["data"]["task_id"] == "behind"
    control.complete("behind")
    # Messages are heard in their order.
    control.result(session, "behind")
    assert control.result(session, "twice") == "first"
    assert control.stream(session, "twice") == [0]


def test_the_same_task_again_is_the_same(control: Control) -> None:
    session = control.session()
    assert [control.task(session, "again").json() for _ in range(2)] == ["again", "again"]
    assert control.task(session, "again", input="[]").json()["code"] == "TASK_CONFLICT"
    control.task(session, "next")
    assert [control.taken()["data"]["task_id"] for _ in range(2)] == ["again", "next"]


def test_a_message_that_nobody_understands_is_a_dead_letter(control: Control) -> None:
    control.say("task_stream", task_id="T")
    with Client(control.queue) as client:

        def dead() -> list[dict[str, Any]]:
            answer = client.call("GET", "/topics/llama_deploy.control_plane/messages?state=dead")
            messages: list[dict[str, Any]] = answer.json()["messages"]
            return messages

        wait_until(lambda: len(dead()) == 1)
        assert "session_id" in dead()[0]["reason"]


def test_what_utf8_has_no_bytes_for_is_handed_on(control: Control) -> None:
    session = control.session()
    control.task(session, "surrogate")
    assert control.taken()["data"]["task_id"] == "surrogate"
    half = "\ud83d"
    control.say("task_stream", task_id="surrogate", session_id=session, data={"n": half}, index=0)
    control.complete("surrogate", half)
    assert control.result(session, "surrogate") == half
    (line,) = control.get(f"/sessions/{session}/tasks/surrogate/result_stream").body.splitlines()
    assert json.loads(line) == {"n": half}


def test_a_task_that_the_queue_cannot_take_fails(control: Control) -> None:
    session = control.session()
    control.task(session, "unsendable", input="\ud83d")
    assert "QUEUE_REFUSED" in control.result(session, "unsendable")
    shown = control.get(f"/sessions/{session}/tasks/unsendable").json()
    assert shown["status"] == "failed"
    assert "surrogates" in shown["error"]


@pytest.mark.parametrize("name", ["", "a/b", "n" * 151, "line\nbreak", "half \ud83d", "control_plane"])
def test_a_service_has_a_name_that_a_topic_can_have(control: Control, name: str) -> None:
    refused = control.post("/services/register", {"service_name": name, "description": "d"})
    assert (refused.status, refused.json()["detail"][0]["loc"]) == (422, ["body", "service_name"])


@pytest.mark.parametrize("task_id", ["", "a/b", "n" * 201, "line\nbreak", "half \ud83d"])
def test_a_task_has_an_id_that_a_key_can_have(control: Control, task_id: str) -> None:
    refused = control.task(control.session(), task_id)
    assert (refused.status, refused.json()["detail"][0]["loc"]) == (422, ["body", "task_id"])


def test_a_service_whose_address_is_none_is_registered_all_the_same(control: Control) -> None:
    control.register("odd", host="no host at all", port=1)
    control.post("/services/deregister?service_name=odd")


def test_a_task_by_the_queue_gets_a_session(control: Control) -> None:
    control.say("new_task", input="{}", service_id="wf", task_id="queued")
    message = control.taken()
    assert message["data"]["task_id"] == "queued"
    control.say("new_task", input="{}", service_id="wf", task_id="queued")
    control.complete("queued")
    assert control.result(message["data"]["session_id"], "queued") == "done"


def test_a_session_that_is_deleted_ends_its_waits(control: Control) -> None:
    session = control.session()
    control.task(session, "gone")
    assert control.taken()["data"]["task_id"] == "gone"
    with Client(control.server) as waiting, Client(control.server) as watching:
        waiting.ask("GET", f"/sessions/{session}/tasks/gone/result")
        watching.ask("GET", f"/sessions/{session}/tasks/gone/result_stream")
        control.emit(session, "gone", 0)
        assert watching.head().status == 200
        assert said(watching) == b'{"n": 0}\n'
        control.post(f"/sessions/{session}/delete")
        assert broken_off(watching)
        assert waiting.answer().body.strip() == b"null"


def test_a_client_that_hangs_up_is_nobodys_wait(control: Control) -> None:
    session = control.session()
    with Client(control.server) as client:
        client.ask("POST", f"/sessions/{session}/tasks", b'{"input": "{}", "service_id": "later", "task_id": "T"}')
    control.register("later")
    # Had it been taken, it would be there now: nothing of it waits any more.
    assert control.get(f"/sessions/{session}/tasks/T").json()["code"] == "TASK_NOT_FOUND"
    control.post("/services/deregister?service_name=later")


def test_a_task_waits_for_its_service(control: Control) -> None:
    session = control.session()
    with Client(control.server) as client:
        client.ask("POST", f"/sessions/{session}/tasks", b'{"input": "{}", "service_id": "late", "task_id": "L"}')
        assert client.silent()
        control.register("late")
        assert client.answer().json() == "L"
    control.post("/services/deregister?service_name=late")


def test_a_task_for_nobody_is_refused_in_time(tmp_path: Path) -> None:
    with running(tmp_path, "--wait-for-service", "0.2") as control:
        control.register()
        session = control.session()
        refused = control.task(session, "T", service_id="ghost")
        assert (refused.status, refused.json()["code"]) == (404, "SERVICE_NOT_FOUND")
        assert refused.json()["detail"] == "no service 'ghost' is registered; there are: wf"
        assert control.get(f"/sessions/{session}").json()["task_ids"] == []


def test_a_service_with_an_address_is_pushed_to(tmp_path: Path) -> None:
    with running(tmp_path) as control, receiving() as service:
        control.register(host="127.0.0.1", port=service.port)
        session = control.session()
        control.task(session, "pushed")
        posted = service.next()
        assert posted.line == "POST /process_message HTTP/1.1"
        assert json.loads(posted.body)["data"]["task_id"] == "pushed"
        posted.answer(200)
        control.post("/services/deregister?service_name=wf")
        with Client(control.queue) as client:
            wait_until(lambda: client.call("GET", "/topics/llama_deploy.wf/push").json()["pushes"] == [])


def test_where_a_service_no_longer_is_nothing_is_pushed_to(tmp_path: Path) -> None:
    with running(tmp_path) as control, receiving() as service:
        control.register(host="127.0.0.1", port=free_port())
        control.register(host="127.0.0.1", port=service.port)
        session = control.session()
        # Pushes take turns, so that by the second task the one that can't be reached has been tried.
        for number in range(3):
            control.task(session, f"T{number}")
            posted = service.next()
            assert json.loads(posted.body)["data"]["task_id"] == f"T{number}"
            posted.answer(200)
        with Client(control.queue) as client:

            def pushes() -> list[str]:
                shown = client.call("GET", "/topics/llama_deploy.wf/push").json()["pushes"]
                return [push["name"] for push in shown]

            wait_until(lambda: pushes() == [f"127.0.0.1:{service.port}"])


def test_presence_is_that_of_the_queue(tmp_path: Path) -> None:
    with running(tmp_path) as control:
        control.register()

        def standing() -> tuple[str, list[str]]:
            (service,) = control.get("/v1/services").json()["services"]
            return service["state"], service["consumers"]

        wait_until(lambda: standing() == ("down", []))
        with Client(control.queue) as consumer:
            consumer.ask("GET", "/messages/llama_deploy.wf", headers={"Wakeq-Consumer": "worker 1"})
            wait_until(lambda: standing() == ("up", ["worker 1"]))


def test_who_waits_is_told_that_the_server_stops(tmp_path: Path) -> None:
    with running(tmp_path) as control:
        control.register()
        session = control.session()
        control.task(session, "T")
        control.emit(session, "T", 0)
        with Client(control.server) as waiting, Client(control.server) as watching:
            watching.ask("GET", f"/sessions/{session}/tasks/T/result_stream")
            assert watching.head().status == 200
            assert said(watching) == b'{"n": 0}\n'
            waiting.ask("GET", f"/sessions/{session}/tasks/T/result")
            # A space says that the server has it, and waits.
            assert waiting.head().status == 200
            code: list[int] = []
            stopping = threading.Thread(target=lambda: code.append(control.server.terminate()))
            stopping.start()
            assert waiting.rest().strip() == b"null"
            assert broken_off(watching)
            stopping.join()
            assert code == [0]
        assert not control.server.events("ASGI callable returned without completing response.")


def test_a_usage_error_is_told_in_a_sentence(tmp_path: Path) -> None:
    for arguments, problem in (
        (["--port", "70000"], "wakeq: port: must be from 0 to 65535"),
        (["--queue", "nonsense"], "wakeq: queue: 'nonsense' is no address of a server; write http://HOST:PORT"),
    ):
        command = [sys.executable, "-m", "wakeq", "control-plane", "--data", str(tmp_path), *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert ended.returncode == 2
        assert ended.stderr.splitlines() == [problem, "hint: see wakeq control-plane --help"]
