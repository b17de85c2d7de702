"""Lines on asyncio, whichever loop: what comes wakes the reader at once, without tasks or locks in between."""

import asyncio
import ipaddress
import select
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

import anyio

from wakeq._line import Line, LineTooSlow

_AHEAD_BYTES = 262_144
"""More than that isn't read before somebody asks for it."""
_PIECE_BYTES = 65_536
_HEAD_START_S = 0.25
"""Of an address over the next one (RFC 8305, section 5)."""

_Address = tuple[int, int, int, str, Any]
"""As `getaddrinfo` has them."""


async def connect(host: str, port: int, context: ssl.SSLContext | None) -> Line:
    """A line to a server. Raises OSError."""
    loop = asyncio.get_running_loop()
    connected = await _Race(loop).run(await _addresses(loop, host, port))
    try:
        _, line = await loop.create_connection(
            AsyncioLine, sock=connected, ssl=context, server_hostname=host if context is not None else None
        )
    except BaseException:
        connected.close()
        raise
    return line


async def _addresses(loop: asyncio.AbstractEventLoop, host: str, port: int) -> Sequence[_Address]:
    with suppress(ValueError):
        # To look an address up would take a thread.
        if isinstance(address := ipaddress.ip_address(host), ipaddress.IPv4Address):
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port))]
        if address.scope_id is None:
            return [(socket.AF_INET6, socket.SOCK_STREAM, 0, "", (host, port))]
    return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)


class _Race:
    """The first of several addresses that answers; the next one starts when one has failed, or takes its time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._found: list[socket.socket] = []
        self._failed: list[OSError] = []

    async def run(self, addresses: Sequence[_Address]) -> socket.socket:
        """Raises the first address's OSError where none answers."""
        try:
            async with anyio.create_task_group() as racing:
                for address in addresses:
                    tried = anyio.Event()
                    racing.start_soon(self._try, address, tried, racing.cancel_scope)
                    with anyio.move_on_after(_HEAD_START_S):
                        await tried.wait()
        except BaseException:
            for connected in self._found:
                connected.close()
            raise
        if not self._found:
            raise self._failed[0]
        return self._found[0]

    async def _try(self, address: _Address, tried: anyio.Event, racing: anyio.CancelScope) -> None:
        family, kind, protocol, _, where = address
        trying = socket.socket(family, kind, protocol)
        try:
            trying.setblocking(False)
            await self._loop.sock_connect(trying, where)
            if not self._found:
                self._found.append(trying)
        except OSError as error:
            self._failed.append(error)
        finally:
            if trying not in self._found:
                trying.close()
            tried.set()
        if self._found:
            racing.cancel()


class AsyncioLine(asyncio.Protocol, Line):
    """One that asyncio calls; at most one task waits for it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._closed = asyncio.Event()
        self._parts: list[bytes] = []
        self._size = 0
        self._ended = False
        self._error: Exception | None = None
        self._held_back = False
        """Nothing is read, since nobody takes what has come."""
        self._full = False
        """What was sent stands still for now."""
        self._waiter: asyncio.Future[None] | None = None

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        # uvloop's is none by its class.
        self._transport = cast("asyncio.Transport", transport)
        self._readable = select.poll()
        self._readable.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._parts.append(data)
        self._size += len(data)
        if self._size >= _AHEAD_BYTES and not self._held_back:
            self._held_back = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """See asyncio: the transport closes itself."""
        self._ended = True
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio."""
        self._ended, self._full, self._error = True, False, error
        self._wake()
        self._closed.set()

    def pause_writing(self) -> None:
        """See asyncio."""
        self._full = True

    def resume_writing(self) -> None:
        """See asyncio."""
        self._full = False
        self._wake()

    # What is asked of a line

    async def send(self, data: bytes, limit_s: float) -> None:
        """See `Line`."""
        if len(data) <= _PIECE_BYTES:
            self._transport.write(data)
            return
        for start in range(0, len(data), _PIECE_BYTES):
            self._transport.write(data[start : start + _PIECE_BYTES])
            while self._full and not self._parts:
                await self._wait(limit_s)
            if self._parts or self._ended:
                return

    async def receive(self, limit_s: float) -> bytes:
        """See `Line`."""
        while not self._parts:
            if self._ended:
                if isinstance(self._error, OSError):
                    raise self._error
                return b""
            await self._wait(limit_s)
        parts = self._parts
        self._parts, self._size = [], 0
        if self._held_back:
            self._held_back = False
            self._transport.resume_reading()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @property
    def is_quiet(self) -> bool:
        """See `Line`. The socket itself is asked, too: a loop that was busy has not read it yet."""
        return not (self._parts or self._ended or self._transport.get_write_buffer_size() or self._readable.poll(0))

    async def aclose(self) -> None:
        """See `Line`."""
        self._transport.abort()
        await self._closed.wait()

    async def _wait(self, limit_s: float) -> None:
        waiter = self._waiter = self._loop.create_future()
        timer = self._loop.call_later(limit_s, self._give_up)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _give_up(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(LineTooSlow())
