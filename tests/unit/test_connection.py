"""Which connections the kernel is told to probe, and which requests have a timer."""

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from wakeq._serving.sending import Turn
from wakeq_server.connection import Connection
from wakeq_server.heads import Heads
from wakeq_server.idle import Idle
from wakeq_server.settings import TCP_PROBE_AFTER_S, TCP_PROBE_EVERY_S, TCP_USER_TIMEOUT_S, Settings
from wakeq_server.tcp import set_timeouts, watch_peer

KEPT_S = 75.0


@pytest.fixture
def accepted() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        set_timeouts(listener)
        with socket.create_connection(listener.getsockname()):
            connection, _ = listener.accept()
            with connection:
                yield connection


@pytest.mark.parametrize(
    ("address", "probed"), [("10.1.2.3", 1), ("fd00::1", 1), ("127.0.0.1", 0), ("127.8.8.8", 0), ("::1", 0)]
)
def test_only_other_machines_are_probed(accepted: socket.socket, address: str, probed: int) -> None:
    watch_peer(accepted, address)
    assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == probed


def test_three_probes_may_get_lost(accepted: socket.socket) -> None:
    options = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_USER_TIMEOUT]
    assert [accepted.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [
        TCP_PROBE_AFTER_S,
        TCP_PROBE_EVERY_S,
        TCP_USER_TIMEOUT_S * 1000,
    ]
    assert TCP_PROBE_AFTER_S + 3 * TCP_PROBE_EVERY_S <= TCP_USER_TIMEOUT_S


class Loop:
    """asyncio's, and it notes which timers are set and which are still there."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.set = 0
        self.timers: list[asyncio.TimerHandle] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def call_at(self, when: float, *call: Any) -> asyncio.TimerHandle:
        self.set += 1
        self.timers.append(self._loop.call_at(when, *call))
        return self.timers[-1]

    @property
    def running(self) -> int:
        return sum(not timer.cancelled() for timer in self.timers)


class Transport(asyncio.Transport):
    """Nobody is there."""

    def write(self, data: bytes | bytearray | memoryview) -> None: ...

    def close(self) -> None: ...

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def parked(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.get_running_loop().create_future()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("reads", "set_", "running"),
    [
        ([], 0, 0),
        ([b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"], 0, 0),
        ([b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"], 0, 0),
        ([b"GET / HT", b"TP/1.1\r\nHost: a\r\n\r\n"], 1, 0),
        ([b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na", b"b", b"c"], 1, 0),
        ([b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", b"a", b"b", b"c"], 1, 1),
        ([b"POST / HTTP/1.1\r\nHost: a\r\nContent-", b"Length: 9\r\n\r\na"], 2, 1),
        ([b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"], 0, 0),
    ],
)
async def test_only_a_request_in_parts_has_a_timer(reads: list[bytes], set_: int, running: int) -> None:
    loop = Loop()
    config = uvicorn.Config(parked, http=Connection, ws="none", lifespan="off", log_config=None)
    shared: Any = {"turn": Turn(loop.call_soon), "idle": Idle(asyncio.get_running_loop(), KEPT_S), "heads": Heads()}
    connection = Connection(config, ServerState(), {}, settings=Settings(), _loop=loop, **shared)
    connection.connection_made(Transport())
    for read in reads:
        connection.data_received(read)
    assert (loop.set, loop.running) == (set_, running)
    connection.connection_lost(None)
    assert loop.running == 0
    for task in list(connection.tasks):
        task.cancel()
