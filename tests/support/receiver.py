"""A service that messages are pushed to, over bare sockets: each request waits for the test to answer it, or not."""

import contextlib
import queue
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

FAIL_S = 20.0
_RECEIVE_BYTES = 1 << 16


class Posted(NamedTuple):
    """One request. Header names are in lower case; values as latin-1 has them, which HTTP's bytes always are."""

    line: str
    headers: Mapping[str, str]
    body: bytes
    connection: socket.socket
    answered: threading.Event

    def answer(self, status: int = 200, body: bytes = b"null", **headers: str) -> None:
        """Answer it; the connection is kept."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.send(b"HTTP/1.1 %d Said\r\ncontent-length: %d\r\n%b\r\n%b" % (status, len(body), lines.encode(), body))

    def send(self, data: bytes) -> None:
        """Answer with these bytes, whatever they are."""
        self.connection.sendall(data)
        self.answered.set()

    def close(self) -> None:
        """Close the connection without an answer."""
        self.connection.shutdown(socket.SHUT_RDWR)
        self.answered.set()

    def reset(self) -> None:
        """Reset it, as a killed process does."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.answered.set()


class Receiver:
    """Listens on 127.0.0.1. Every read is bounded, and everything is closed by `stop`."""

    def __init__(self, port: int = 0) -> None:
        self._posted: queue.Queue[Posted] = queue.Queue()
        self._connections: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        threading.Thread(target=self._accept, daemon=True).start()

    def next(self) -> Posted:
        """The next request, as soon as it has come."""
        return self._posted.get(timeout=FAIL_S)

    @property
    def waiting(self) -> int:
        """How many requests have come that nobody has asked for."""
        return self._posted.qsize()

    @property
    def accepted(self) -> int:
        """How many connections there have been."""
        return len(self._connections)

    def stop(self) -> None:
        """Refuse connections from now on, and close those there are."""
        # A thread in accept() keeps a listener that is merely closed alive.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            # Those that the test has closed, or the client, can't be shut down.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections.append(connection)
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        received = b""
        while True:
            while b"\r\n\r\n" not in received:
                if not (data := _receive(connection)):
                    return
                received += data
            head, _, received = received.partition(b"\r\n\r\n")
            line, *fields = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
            while len(received) < int(headers.get("content-length", 0)):
                if not (data := _receive(connection)):
                    return
                received += data
            size = int(headers.get("content-length", 0))
            posted = Posted(line, headers, received[:size], connection, threading.Event())
            received = received[size:]
            self._posted.put(posted)
            posted.answered.wait()


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(_RECEIVE_BYTES)
    except OSError:
        return b""


@contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    """A receiver, stopped on the way out."""
    receiver = Receiver(port)
    try:
        yield receiver
    finally:
        receiver.stop()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: Any = listener.getsockname()[1]
        return int(port)
