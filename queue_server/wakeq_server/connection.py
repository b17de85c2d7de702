"""uvicorn's connection, as this server needs it: it knows whether its client has what it was sent, and writes once.

What it adds is what `wakeq_server.http.wire.Connection` asks for.
"""

import asyncio
import fcntl
import socket
import sys
import termios
from typing import Any

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from wakeq._serving.hosts import is_loopback
from wakeq_server.arrival import Arrival
from wakeq_server.errors import RequestTimeout
from wakeq_server.http.wire import error_response
from wakeq_server.settings import (
    TCP_PROBE_AFTER_S,
    TCP_PROBE_EVERY_S,
    TCP_USER_TIMEOUT_S,
    Settings,
)

_TCP_ESTABLISHED = 1
_TCP_CLOSE_WAIT = 8


class Connection(HttpToolsProtocol):
    """One connection of the queue server."""

    incoming = False
    """Whether a request has begun to come that isn't whole."""
    _had_read_whole = False
    _answering: RequestResponseCycle | None = None
    _late: RequestResponseCycle | None = None
    _arrival: Arrival | None = None
    _view: socket.socket | None = None

    def __init__(self, *arguments: Any, settings: Settings, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._head_timeout_s = settings.head_timeout
        self._body_timeout_s = settings.body_timeout

    @property
    def gone(self) -> bool:
        """Whether the client has closed the connection: the kernel knows before the loop does."""
        return self.transport.is_closing() or _tcp_state(self._socket()) not in (None, _TCP_ESTABLISHED)

    @property
    def read_whole(self) -> bool:
        """Whether it did so after reading every byte that was sent."""
        return self._had_read_whole if self.transport.is_closing() else self._has_read_whole()

    @property
    def kept_alive(self) -> bool:
        """Whether it stays open when the answer that is being given is finished."""
        return self._answering is not None and self._answering.keep_alive

    @property
    def late(self) -> bool:
        """Whether the body of the request that is being answered came too slowly."""
        return self._late is not None and self._late is self._answering

    async def flushed(self) -> None:
        """Return when everything written has left for the kernel."""
        if self.transport.get_write_buffer_size() == 0:
            return
        self.transport.set_write_buffer_limits(high=0)
        try:
            await self.flow.drain()
        finally:
            self.transport.set_write_buffer_limits()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """uvicorn's, and a client on another machine is watched for being cut off."""
        super().connection_made(transport)
        self.flow = _Flow(self)
        if self.client is not None:
            watch_peer(transport.get_extra_info("socket"), self.client[0])

    def on_message_begin(self) -> None:
        """uvicorn's, and the request can find its connection."""
        super().on_message_begin()
        self.incoming = True
        self.scope["state"] = {"connection": self}

    def on_message_complete(self) -> None:
        """uvicorn's, and nothing is waited for any more."""
        self.incoming = False
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """uvicorn's, and a request that didn't come whole has a time to do so."""
        super().data_received(data)
        if self.incoming:
            self._wait_for_rest(len(data))
        elif self._arrival is not None:
            self._stop_waiting()

    # Requests that come in parts

    def _wait_for_rest(self, size: int) -> None:
        arrival = self._arrival
        cycle: RequestResponseCycle | None = self.cycle
        has_head = cycle is not None and cycle.scope is self.scope
        if arrival is not None and arrival.scope is self.scope and arrival.has_head == has_head:
            arrival.note(size, self.loop.time())
            return
        self._stop_waiting()
        if not self.transport.is_closing():
            timeout_s = self._body_timeout_s if has_head else self._head_timeout_s
            self._arrival = Arrival(self.scope, timeout_s, self.loop.time(), has_head=has_head)
            self._look_later()

    def _look_later(self) -> None:
        assert self._arrival is not None
        self._arrival.timer = self.loop.call_at(self._arrival.due, self._look)

    def _stop_waiting(self) -> None:
        if self._arrival is not None:
            self._arrival.timer.cancel()
            self._arrival = None

    def _look(self) -> None:
        """A request in parts may have had its time."""
        arrival, cycle, now = self._arrival, self.cycle, self.loop.time()
        assert arrival is not None
        if self.flow.read_paused or (arrival.has_head and cycle.waiting_for_100_continue):
            # It is this server that doesn't read on.
            arrival.begin_anew(now)
        elif arrival.over(now):
            self._give_up(arrival, now)
        elif arrival.has_head and cycle.response_complete:
            # What is still coming is for nobody. A client that is sending must get to read its answer, though.
            if arrival.is_for_nobody:
                self.transport.close()
            arrival.is_for_nobody = True
            arrival.begin_anew(now)
        if not self.transport.is_closing():
            self._look_later()

    def _give_up(self, arrival: Arrival, now: float) -> None:
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or (not arrival.has_head and cycle.response_complete):
            self._refuse()
        elif not arrival.has_head or cycle.response_started or self.late:
            # Another request is being answered, or this one has been.
            self.transport.close()
        else:
            # The application says it when it asks for more of the body, and if it never asks, it needn't.
            self._late = cycle
            cycle.message_event.set()
            arrival.begin_anew(now)

    def _refuse(self) -> None:
        response = error_response(RequestTimeout("the request's head came too slowly"), legacy=False)
        headers = [*self.server_state.default_headers, *response.headers]
        head = b"".join(b"%b: %b\r\n" % header for header in headers)
        length = b"content-length: %d\r\n\r\n" % len(response.body)
        self.transport.write(STATUS_LINE[response.status] + head + length + response.body)
        self.transport.close()

    def reads_on(self) -> None:
        """This server had stopped reading for a while, which is not to be held against the client."""
        if self._arrival is not None:
            self._arrival.begin_anew(self.loop.time())

    # Answers

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        cycle.transport = _HeadFirst(self.transport)  # type: ignore[assignment]
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """uvicorn's, for an answer that was all head as well."""
        if self._answering is not None:
            self._answering.transport.flush()  # type: ignore[attr-defined]
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """uvicorn's, and the request that is being answered is told."""
        super().connection_lost(exc)
        self._stop_waiting()
        # uvicorn tells the request that came last. With pipelining that is not the one that is parked.
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()
        if self._view is not None:
            # The descriptor is the transport's to close.
            self._view.detach()
            self._view = None

    def eof_received(self) -> None:
        """The client has closed its side; ours is still open, and can be asked about it."""
        self._had_read_whole = self._has_read_whole()

    def _has_read_whole(self) -> bool:
        return self.transport.get_write_buffer_size() == 0 and _peer_has_read(self._socket())

    def _socket(self) -> socket.socket:
        # The transport's own makes a socket object anew for every question.
        if self._view is None:
            own: Any = self.transport.get_extra_info("socket")
            self._view = socket.socket(own.family, own.type, own.proto, fileno=own.fileno())
        return self._view


def set_timeouts(listener: socket.socket) -> None:
    """How soon dead peers are found; connections inherit it from the listening socket.

    Without it a consumer whose machine has lost its network takes messages with it for a quarter of an hour.
    """
    options = {
        "TCP_KEEPIDLE": TCP_PROBE_AFTER_S,
        "TCP_KEEPINTVL": TCP_PROBE_EVERY_S,
        "TCP_USER_TIMEOUT": TCP_USER_TIMEOUT_S * 1000,
    }
    for name, value in options.items():
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def watch_peer(sock: Any, address: str) -> None:
    """Have the kernel probe a silent connection, unless its client is on this machine.

    There, nothing gets cut off without a reset; but the probes of thousands of parked consumers fall together, more
    than the loopback device queues are lost, and connections that are well would be ended.
    """
    if not is_loopback(address):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


class _Flow(FlowControl):
    """uvicorn's, and the connection hears that it is read on."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection.transport)
        self._connection = connection

    def resume_reading(self) -> None:
        """uvicorn's."""
        if self.read_paused:
            super().resume_reading()
            self._connection.reads_on()


class _HeadFirst:
    """A transport that holds the head of an answer back until its body comes, so that both are one system call."""

    __slots__ = ("_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def write(self, data: bytes) -> None:
        """Write, or hold."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 1"):
            self._head = data
            return
        self._transport.write(data)

    def is_closing(self) -> bool:
        """The transport's."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Write what is held, and close."""
        self.flush()
        self._transport.close()

    def flush(self) -> None:
        """Write what is held: the answer has no body."""
        if self._head:
            self.write(b"")


def _tcp_state(sock: socket.socket) -> int | None:
    """The connection's state; None where the system doesn't tell."""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] if hasattr(socket, "TCP_INFO") else None
    except OSError:
        return None


def _peer_has_read(sock: socket.socket) -> bool:
    """Whether a peer that has closed its side had read every byte sent to it.

    TCP knows: who closes a socket with unread bytes, or gets bytes after closing it, answers with a reset; and bytes
    sent to one who closed before are not acknowledged. A clean end with nothing outstanding is a satisfied client.
    """
    if _tcp_state(sock) not in (None, _TCP_CLOSE_WAIT):
        return False
    try:
        outstanding = int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        return not outstanding and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    except OSError:
        return False
