"""The client's connections: which one a request has, what is written at once, and what becomes of broken ones."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest
from anyio import wait_all_tasks_blocked
from anyio.abc import SocketAttribute, SocketStream, TaskGroup

from wakeq._connection import Content
from wakeq._pool import Pool

pytestmark = pytest.mark.anyio
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Server:
    """Answers each request when its gate is open, and notes what came in one reading, by connection."""

    def __init__(self) -> None:
        self.read: list[tuple[int, bytes]] = []
        self.connections = 0
        self.gate = anyio.Event()
        self.gate.set()
        self.answer = ANSWER
        self.closes = False
        self.url = ""

    async def serve(self, stream: SocketStream) -> None:
        self.connections += 1
        number = self.connections
        async with stream:
            try:
                while True:
                    self.read.append((number, await stream.receive()))
                    await self.gate.wait()
                    await stream.send(self.answer)
                    if self.closes:
                        return
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return


@asynccontextmanager
async def a_server() -> AsyncIterator[tuple[Server, TaskGroup]]:
    server = Server()
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        server.url = f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}/x"
        tasks.start_soon(listener.serve, server.serve)
        yield server, tasks
        tasks.cancel_scope.cancel()


async def ask(pool: Pool, server: Server, content: bytes = b"", pool_s: float | None = None) -> bytes:
    headers = [(b"host", b"x"), (b"content-length", b"%d" % len(content))]
    timeouts = {"timeout": {"pool": pool_s}}
    request = httpx.Request("POST", server.url, headers=headers, stream=Content(content), extensions=timeouts)
    response = await pool.handle_async_request(request)
    try:
        assert isinstance(response.stream, httpx.AsyncByteStream)
        return b"".join([part async for part in response.stream])
    finally:
        await response.aclose()


async def test_a_request_is_written_at_once() -> None:
    async with a_server() as (server, _):
        pool = Pool(verify=False, most=2)
        assert await ask(pool, server, b"body") == b"ok"
        await pool.aclose()
    ((_, came),) = server.read
    assert came.startswith(b"POST /x HTTP/1.1\r\n")
    assert came.endswith(b"\r\n\r\nbody")


async def test_the_connection_that_was_used_last_is_used_again() -> None:
    async with a_server() as (server, tasks):
        pool = Pool(verify=False, most=9)
        server.gate = anyio.Event()
        for _ in range(3):
            tasks.start_soon(ask, pool, server)
        while len(server.read) < 3:
            await wait_all_tasks_blocked()
        server.gate.set()
        await wait_all_tasks_blocked()
        for _ in range(4):
            await ask(pool, server)
        await pool.aclose()
    assert server.connections == 3
    assert len({number for number, _ in server.read[3:]}) == 1


async def test_a_connection_that_the_server_has_closed_is_not_used_again() -> None:
    async with a_server() as (server, _):
        pool = Pool(verify=False, most=1)
        server.closes = True
        for _ in range(3):
            assert await ask(pool, server) == b"ok"
            await wait_all_tasks_blocked()
        await pool.aclose()
    assert server.connections == 3


async def test_who_finds_all_connections_taken_waits_for_one() -> None:
    async with a_server() as (server, tasks):
        pool = Pool(verify=False, most=1)
        server.gate = anyio.Event()
        for _ in range(2):
            tasks.start_soon(ask, pool, server)
        await wait_all_tasks_blocked()
        with pytest.raises(httpx.PoolTimeout):
            await ask(pool, server, pool_s=0.0)
        server.gate.set()
        assert await ask(pool, server) == b"ok"
        await pool.aclose()
    assert server.connections == 1
    assert len(server.read) == 3


async def test_who_is_cancelled_frees_its_place() -> None:
    async with a_server() as (server, tasks):
        pool = Pool(verify=False, most=1)
        server.gate = anyio.Event()
        with anyio.CancelScope() as scope:
            tasks.start_soon(_cancel_when_read, server, scope)
            await ask(pool, server)
        server.gate.set()
        assert await ask(pool, server) == b"ok"
        await pool.aclose()
    assert server.connections == 2


async def _cancel_when_read(server: Server, scope: anyio.CancelScope) -> None:
    while not server.read:
        await wait_all_tasks_blocked()
    scope.cancel()


@pytest.mark.parametrize(("answer", "error"), [(b"what?\r\n\r\n", httpx.RemoteProtocolError), (b"", httpx.ReadError)])
async def test_errors_are_those_of_httpx(answer: bytes, error: type[Exception]) -> None:
    async with a_server() as (server, _):
        pool = Pool(verify=False, most=1)
        server.answer, server.closes = answer, True
        with pytest.raises((error, httpx.RemoteProtocolError)):
            await ask(pool, server)
        server.answer = ANSWER
        assert await ask(pool, server) == b"ok"
        await pool.aclose()


async def test_nobody_there_is_a_connect_error() -> None:
    async with a_server() as (server, _):
        pass
    pool = Pool(verify=False, most=1)
    with pytest.raises(httpx.ConnectError):
        await ask(pool, server)
    await pool.aclose()
