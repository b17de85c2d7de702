"""The client's connections: which one a request has, what is written at once, and what becomes of broken ones."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import wait_all_tasks_blocked
from anyio.abc import ByteStream, SocketAttribute, TaskGroup
from anyio.streams.tls import TLSListener

from wakeq import _http
from wakeq._http import Http
from wakeq._wire import Arriving, Broken, Kind, Request

pytestmark = pytest.mark.anyio
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
BEGUN = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n"
PATIENCE_S = 30.0


@pytest.fixture(params=["asyncio", "uvloop", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return ("asyncio", {"use_uvloop": True}) if request.param == "uvloop" else request.param


class Server:
    """Answers each request when its gate is open, and notes what came in one reading, by connection."""

    def __init__(self) -> None:
        self.read: list[tuple[int, bytes]] = []
        self.connections = 0
        self.gate = anyio.Event()
        self.gate.set()
        self.answer = ANSWER
        self.closes = False
        self.ended = 0
        self.port = 0

    async def serve(self, stream: ByteStream) -> None:
        self.connections += 1
        number = self.connections
        try:
            async with stream:
                with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                    await self._answer(number, stream)
        finally:
            self.ended += 1

    async def _answer(self, number: int, stream: ByteStream) -> None:
        while True:
            self.read.append((number, await stream.receive()))
            await self.gate.wait()
            if self.answer:
                await stream.send(self.answer)
            if self.closes:
                return


@asynccontextmanager
async def a_server() -> AsyncIterator[tuple[Server, TaskGroup]]:
    server = Server()
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        server.port = listener.extra(SocketAttribute.local_port)
        tasks.start_soon(listener.serve, server.serve)
        with anyio.fail_after(PATIENCE_S):
            yield server, tasks
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def connections(server: Server) -> AsyncIterator[Http]:
    http = Http("127.0.0.1", server.port, is_secure=False, headers=[(b"host", b"x")], timeout_s=PATIENCE_S)
    yield http
    await http.aclose()


@asynccontextmanager
async def served(handler: Callable[[ByteStream], Awaitable[None]]) -> AsyncIterator[Http]:
    """Connections to a server of one kind of answer."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handler)
        port = listener.extra(SocketAttribute.local_port)
        http = Http("127.0.0.1", port, is_secure=False, headers=[(b"host", b"x")], timeout_s=PATIENCE_S)
        yield http
        await http.aclose()
        tasks.cancel_scope.cancel()


async def begin(http: Http, content: bytes = b"", kind: Kind = "requests", silence_s: float = PATIENCE_S) -> Arriving:
    headers = [(b"content-length", b"%d" % len(content))]
    return await http.send(Request("POST", b"/x", headers, content), kind, silence_s)


async def ask(http: Http, content: bytes = b"", silence_s: float = PATIENCE_S) -> bytes:
    arriving = await begin(http, content, silence_s=silence_s)
    try:
        return await arriving.whole()
    finally:
        await arriving.aclose()


async def test_a_request_is_written_at_once() -> None:
    async with a_server() as (server, _), connections(server) as http:
        assert await ask(http, b"body") == b"ok"
    assert server.read == [(1, b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody")]


async def test_the_connection_that_was_used_last_is_used_again() -> None:
    async with a_server() as (server, tasks), connections(server) as http:
        server.gate = anyio.Event()
        for _ in range(3):
            tasks.start_soon(ask, http)
        while len(server.read) < 3:
            await wait_all_tasks_blocked()
        server.gate.set()
        await wait_all_tasks_blocked()
        for _ in range(4):
            await ask(http)
        assert server.connections == 3
        assert len({number for number, _ in server.read[3:]}) == 1


async def test_a_connection_that_the_server_has_closed_is_not_used_again() -> None:
    async with a_server() as (server, _), connections(server) as http:
        server.closes = True
        for number in range(1, 4):
            assert await ask(http) == b"ok"
            while server.ended < number:
                await wait_all_tasks_blocked()
    assert server.connections == 3


@pytest.mark.parametrize("answer", [ANSWER + ANSWER, ANSWER.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")])
async def test_a_connection_with_something_else_on_it_is_not_used_again(answer: bytes) -> None:
    async with a_server() as (server, _), connections(server) as http:
        server.answer = answer
        for _ in range(2):
            assert await ask(http) == b"ok"
    assert server.connections == 2


async def test_who_finds_all_connections_taken_waits_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_http.MOST, "requests", 1)
    async with a_server() as (server, tasks), connections(server) as http:
        server.gate = anyio.Event()
        tasks.start_soon(ask, http)
        while not server.read:
            await wait_all_tasks_blocked()
        with monkeypatch.context() as patch:
            patch.setattr(http, "_timeout_s", 0.0)
            with pytest.raises(Broken, match="all connections are in use") as error:
                await ask(http)
        assert error.value.unsent
        # Another kind has places of its own.
        server.gate.set()
        arriving = await begin(http, kind="settles")
        await arriving.aclose()
        assert await ask(http) == b"ok"


@pytest.mark.parametrize("answer", [b"", BEGUN], ids=["before its head", "in its body"])
async def test_who_is_cancelled_frees_its_place_and_closes_its_connection(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_http.MOST, "requests", 1)
    async with a_server() as (server, tasks), connections(server) as http:
        server.answer = answer
        with anyio.CancelScope() as scope:
            tasks.start_soon(_cancel_when_read, server, scope)
            await ask(http)
        assert scope.cancelled_caught
        while not server.ended:
            await wait_all_tasks_blocked()
        server.answer = ANSWER
        assert await ask(http) == b"ok"
    assert server.connections == 2


async def _cancel_when_read(server: Server, scope: anyio.CancelScope) -> None:
    while not server.read:
        await wait_all_tasks_blocked()
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_a_cancellation_at_any_moment_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_http.MOST, "requests", 1)

    async def cancel_later(scope: anyio.CancelScope, turns: int) -> None:
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        scope.cancel()

    cancelled = []
    async with a_server() as (server, tasks):
        for turns in range(40):
            # On a new connection, and on one that is there.
            async with connections(server) as http:
                for _ in range(2):
                    with anyio.CancelScope() as scope:
                        tasks.start_soon(cancel_later, scope, turns)
                        await ask(http)
                    cancelled.append(scope.cancelled_caught)
                    assert await ask(http) == b"ok"
        while server.ended < server.connections:
            await wait_all_tasks_blocked()
    assert True in cancelled


async def test_an_answer_that_is_left_in_the_middle_closes_its_connection() -> None:
    async with a_server() as (server, _), connections(server) as http:
        server.answer = BEGUN
        arriving = await begin(http)
        assert await anext(arriving) == b"ok"
        await arriving.aclose()
        with pytest.raises(Broken):
            await anext(arriving)
        while not server.ended:
            await wait_all_tasks_blocked()


@pytest.mark.parametrize("answer", [b"what?\r\n\r\n", b"", ANSWER[:-1]])
async def test_what_is_no_answer_is_an_error_of_its_request_alone(answer: bytes) -> None:
    async with a_server() as (server, _), connections(server) as http:
        server.answer, server.closes = answer, True
        with pytest.raises(Broken) as error:
            await ask(http)
        assert not error.value.unsent
        server.answer = ANSWER
        assert await ask(http) == b"ok"


async def test_a_silent_server_has_gone() -> None:
    async with a_server() as (server, _), connections(server) as http:
        for server.answer in (b"", BEGUN):
            with pytest.raises(Broken, match="silent for too long") as error:
                await ask(http, silence_s=0.01)
            assert not error.value.unsent


async def test_nobody_there_is_known_to_have_read_nothing() -> None:
    async with a_server() as (server, _):
        pass
    async with connections(server) as http:
        with pytest.raises(Broken) as error:
            await ask(http)
    assert error.value.unsent


@pytest.mark.parametrize("name", ["nowhere.invalid", "x" * 64 + ".invalid", "a..b"])
async def test_a_name_that_nobody_has_is_known_to_have_read_nothing(name: str) -> None:
    http = Http(name, 80, is_secure=False, headers=[(b"host", b"x")], timeout_s=PATIENCE_S)
    with pytest.raises(Broken) as error:
        await ask(http)
    assert error.value.unsent
    await http.aclose()


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="there is no IPv6 here")
async def test_an_address_of_the_newer_kind_needs_no_name() -> None:
    server = Server()
    async with await anyio.create_tcp_listener(local_host="::1") as listener, anyio.create_task_group() as tasks:
        server.port = listener.extra(SocketAttribute.local_port)
        tasks.start_soon(listener.serve, server.serve)
        http = Http("::1", server.port, is_secure=False, headers=[], timeout_s=PATIENCE_S)
        assert await ask(http) == b"ok"
        await http.aclose()
        tasks.cancel_scope.cancel()


async def test_a_name_with_an_address_where_nobody_listens_leads_to_the_other() -> None:
    async with a_server() as (server, _):
        # ::1 comes first there, or is missing.
        http = Http("localhost", server.port, is_secure=False, headers=[(b"host", b"x")], timeout_s=PATIENCE_S)
        assert await ask(http) == b"ok"
        await http.aclose()


async def test_a_long_request_is_sent_whole() -> None:
    content = bytes(range(256)) * 8_192
    async with a_server() as (server, _), connections(server) as http:
        server.answer = b""
        async with anyio.create_task_group() as asking:
            asking.start_soon(ask, http, content)
            while sum(len(part) for _, part in server.read) < len(content):
                await wait_all_tasks_blocked()
            asking.cancel_scope.cancel()
    assert b"".join(part for _, part in server.read).endswith(content)


async def test_a_server_that_answers_before_it_has_read_everything_is_heard() -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno"
    answered = anyio.Event()

    async def refuse(stream: ByteStream) -> None:
        async with stream:
            await stream.receive(100)
            await stream.send(refusal)
            answered.set()
            # What is closed with unread bytes takes its answer back.
            while True:
                try:
                    await stream.receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    return

    async with served(refuse) as http:
        arriving = await begin(http, b"x" * 16_000_000)
        assert (arriving.status, await arriving.whole()) == (413, b"no")
        await arriving.aclose()


async def test_who_does_not_read_holds_the_server_back() -> None:
    sent = 0
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"

    async def flood(stream: ByteStream) -> None:
        nonlocal sent
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(1_000):
                await stream.send(chunk)
                sent += 1
            await stream.send(b"0\r\n\r\n")

    async with served(flood) as http:
        arriving = await begin(http)
        await wait_all_tasks_blocked()
        before = -1
        while before < sent:
            before = sent
            for _ in range(10):
                await wait_all_tasks_blocked()
        assert sent < 1_000
        assert len(await arriving.whole()) == 1_000 * 65_536
        await arriving.aclose()


async def test_tls_is_spoken_with_whom_the_certificate_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parents[1] / "support" / "tls"
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(folder / "localhost.crt", folder / "localhost.key")
    theirs = ssl.create_default_context(cafile=str(folder / "localhost.crt"))
    monkeypatch.setattr(_http, "_context", lambda: theirs)
    server = Server()
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as plain, anyio.create_task_group() as tasks:
        listener = TLSListener(plain, ours, standard_compatible=False)
        tasks.start_soon(listener.serve, server.serve)
        server.port = plain.extra(SocketAttribute.local_port)
        http = Http("localhost", server.port, is_secure=True, headers=[], timeout_s=PATIENCE_S)
        for _ in range(3):
            assert await ask(http, b"body") == b"ok"
        await http.aclose()
        assert server.connections == 1
        monkeypatch.setattr(_http, "_context", ssl.create_default_context)
        http = Http("localhost", server.port, is_secure=True, headers=[], timeout_s=PATIENCE_S)
        with pytest.raises(Broken, match="certificate verify failed") as error:
            await ask(http)
        assert error.value.unsent
        await http.aclose()
        tasks.cancel_scope.cancel()
