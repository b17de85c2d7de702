"""A line between a client and a server that breaks where a test says: a TCP proxy, for which bytes mean nothing."""

import selectors
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Literal, NamedTuple

from tests.support.raw import FAIL_S, Address

How = Literal["reset", "cut", "stall", "half"]
"""Both ends see a reset; both see an end; both see nothing more; the server alone sees that its client has ended."""


class Break(NamedTuple):
    """Where and how a connection breaks: behind so many bytes of what the client says, or of what it is answered."""

    how: How
    asked: int | None = None
    answered: int | None = None


class _Side:
    """One direction of one connection."""

    def __init__(self, pair: "_Pair", source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        self.pair = pair
        self.source = source
        self.sink = sink
        self.left = limit


class _Pair:
    """A connection from a client, and the one to the server."""

    def __init__(self, client: socket.socket, server: socket.socket, fault: Break | None) -> None:
        self.client = client
        self.server = server
        self.fault = fault
        asked, answered = (fault.asked, fault.answered) if fault else (None, None)
        self.sides = (_Side(self, client, server, asked), _Side(self, server, client, answered))


class Line:
    """Listens on a free port. Each connection takes the next of ``breaks``; those behind the last one don't break."""

    def __init__(self, server: Address) -> None:
        self.breaks: deque[Break] = deque()
        self.broken: SimpleQueue[Break] = SimpleQueue()
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.host, self.port = self._listener.getsockname()[:2]
        self._selector = selectors.DefaultSelector()
        self._stop, self._stopped = socket.socketpair()
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://{self.host}:{self.port}"

    def wait_broken(self, count: int = 1) -> None:
        """Wait until so many more connections have broken."""
        for _ in range(count):
            self.broken.get(timeout=FAIL_S)

    def close(self) -> None:
        """End it, and its thread."""
        self._stop.close()
        self._thread.join(FAIL_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._stopped, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._stopped:
                    self._end()
                    return
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj in self._open:
                    self._pass(key.data)

    def _end(self) -> None:
        for one in (*self._open, self._listener, self._stopped):
            one.close()
        self._selector.close()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection((self._server.host, self._server.port))
        pair = _Pair(client, server, self.breaks.popleft() if self.breaks else None)
        for side in pair.sides:
            side.sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.add(side.source)
            self._selector.register(side.source, selectors.EVENT_READ, side)

    def _pass(self, side: _Side) -> None:
        """Read no more than may pass: what a broken line has read, its server takes for delivered."""
        if side.left == 0:
            self._break(side.pair)
            return
        try:
            data = side.source.recv(65_536 if side.left is None else min(65_536, side.left))
            side.sink.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._close(side.pair)
        elif side.left is not None:
            side.left -= len(data)
            if not side.left:
                self._break(side.pair)

    def _break(self, pair: _Pair) -> None:
        fault = pair.fault
        assert fault is not None
        if fault.how == "half":
            self._selector.unregister(pair.client)
            pair.server.shutdown(socket.SHUT_WR)
            pair.sides[1].left = None
        elif fault.how == "stall":
            for one in (pair.client, pair.server):
                self._selector.unregister(one)
        else:
            self._close(pair, reset=fault.how == "reset")
        self.broken.put(fault)

    def _close(self, pair: _Pair, *, reset: bool = False) -> None:
        for one in (pair.client, pair.server):
            if one in self._open:
                self._open.discard(one)
                with suppress(KeyError):
                    self._selector.unregister(one)
                if reset:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.close()


@contextmanager
def line_to(server: Address) -> Iterator[Line]:
    """A line, gone on the way out with all that is open on it."""
    line = Line(server)
    try:
        yield line
    finally:
        line.close()
