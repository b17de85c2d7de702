"""What goes out for an application that answers, and for one that doesn't."""

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from wakeq._serving.sending import Turn
from wakeq_server.connection import Connection
from wakeq_server.heads import Heads
from wakeq_server.idle import Idle
from wakeq_server.settings import Settings

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
PLAIN = [(b"content-length", b"2")]


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def resume_reading(self) -> None: ...


def start(headers: list[tuple[bytes, bytes]], status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(part: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": part, "more_body": more}


async def answer(events: list[dict[str, Any]], request: bytes = REQUEST, *, fails: bool = False) -> Transport:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for event in events:
            await send(event)
        if fails:
            raise ZeroDivisionError

    loop = asyncio.get_running_loop()
    config = uvicorn.Config(app, http=Connection, ws="none", lifespan="off", log_config=None)
    shared: Any = {"settings": Settings(), "turn": Turn(loop.call_soon), "idle": Idle(loop, 75.0), "heads": Heads()}
    connection = Connection(config, ServerState(), {}, _loop=loop, **shared)
    transport = Transport()
    connection.connection_made(transport)
    connection.data_received(request)
    for task in list(connection.tasks):
        await task
    assert not connection.tasks
    closed = transport.closed
    connection.connection_lost(None)
    transport.closed = closed
    return transport


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio


async def test_an_answer_is_one_write() -> None:
    sent = await answer([start(PLAIN), body(b"ok")])
    assert sent.written == [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"]
    assert not sent.closed


async def test_parts_without_a_length_are_chunks() -> None:
    sent = await answer([start([]), body(b"a", more=True), body(b"", more=True), body(b"bc")])
    assert b"".join(sent.written) == (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"
    )


async def test_an_answer_without_a_body_is_its_head() -> None:
    sent = await answer([start([], 204), body(b"")])
    assert sent.written == [b"HTTP/1.1 204 No Content\r\n\r\n"]


async def test_the_answer_to_a_head_request_has_no_body() -> None:
    sent = await answer([start(PLAIN), body(b"ok")], b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert sent.written == [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"]


@pytest.mark.parametrize(
    "request_", [b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"]
)
async def test_a_connection_that_is_not_kept_is_closed_and_says_so(request_: bytes) -> None:
    sent = await answer([start(PLAIN), body(b"ok")], request_)
    assert sent.written == [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"]
    assert sent.closed


@pytest.mark.parametrize("events", [[], [start(PLAIN)]])
@pytest.mark.parametrize("fails", [True, False])
async def test_who_gets_no_answer_is_told(
    events: list[dict[str, Any]], fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    sent = await answer(events, fails=fails)
    assert b"".join(sent.written).startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert sent.closed
    assert "could not be answered" in caplog.text


async def test_an_answer_that_breaks_off_ends_with_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    sent = await answer([start([]), body(b"a", more=True)], fails=True)
    assert b"".join(sent.written).endswith(b"\r\n\r\n1\r\na\r\n")
    assert sent.closed
    assert "could not be answered" in caplog.text


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb", b"a\0b"])
async def test_a_header_is_one_line(value: bytes, caplog: pytest.LogCaptureFixture) -> None:
    sent = await answer([start([(b"content-type", value), *PLAIN]), body(b"ok")])
    written = b"".join(sent.written)
    assert written.startswith(b"HTTP/1.1 500 ")
    assert value not in written
    assert "control character" in caplog.text


@pytest.mark.parametrize("part", [b"o", b"okay"])
async def test_an_answer_has_the_length_that_it_says(part: bytes, caplog: pytest.LogCaptureFixture) -> None:
    sent = await answer([start(PLAIN), body(part)])
    assert sent.closed
    assert "than its content-length" in caplog.text
