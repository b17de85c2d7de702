"""HTTP/1.1 over bare sockets, for tests of what is on the wire: nothing is hidden, retried or corrected.

Every read blocks until the server says something; the timeout only bounds a failure.
"""

import json
import socket
import struct
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

FAIL_S = 20.0
# What is tried again by itself pauses for up to 10 s between two attempts.
_PATIENCE_S = 60.0
_ASK_EVERY_S = 0.005
_RECEIVE_BYTES = 1 << 16

JSON = {"Content-Type": "application/json"}


class Address(Protocol):
    """Where a server listens."""

    host: str
    port: int


class Head(NamedTuple):
    """Status line and header fields of an answer, names in lower case."""

    version: str
    status: int
    fields: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str | None:
        """The value of a header that is there at most once."""
        values = [value for field, value in self.fields if field == name]
        assert len(values) <= 1, f"{name} is there {len(values)} times"
        return values[0] if values else None


class Answer(NamedTuple):
    """A whole answer."""

    head: Head
    body: bytes

    @property
    def status(self) -> int:
        """Of the status line."""
        return self.head.status

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class Client:
    """One connection; a context manager that closes it."""

    def __init__(self, server: Address, *, timeout_s: float = FAIL_S, receive_buffer: int = 0) -> None:
        self.server = server
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.settimeout(timeout_s)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect((server.host, server.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._host = f"{server.host}:{server.port}"
        self._buffer = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it; the kernel sends a FIN, or a reset where something is unread."""
        self.socket.close()

    def reset(self) -> None:
        """Close it with a reset, as a killed process or a balancer does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def ask(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str | None] | None = None,
        version: str = "1.1",
    ) -> None:
        """Send a request without waiting for its answer; a header that is None is left out."""
        self.socket.sendall(request(self._host, method, target, body, headers, version))

    def call(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str | None] | None = None,
        version: str = "1.1",
    ) -> Answer:
        """Send a request and read its answer."""
        self.ask(method, target, body, headers, version)
        return self.answer(has_body=method != "HEAD")

    def answer(self, *, has_body: bool = True) -> Answer:
        """Read one answer."""
        head = self.head()
        if not has_body or head.status in (100, 204, 304):
            return Answer(head, b"")
        if head.get("transfer-encoding") == "chunked":
            return Answer(head, self.rest())
        return Answer(head, self.exactly(int(head.get("content-length") or 0)))

    def answers(self) -> list[Answer]:
        """Read all answers until the server closes the connection."""
        answers = []
        while self._buffer or self.socket.recv(1, socket.MSG_PEEK):
            answers.append(self.answer())
        return answers

    def head(self) -> Head:
        """Read a status line and its headers."""
        first, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, status, _ = first.split(" ", 2)
        pairs = (line.partition(":") for line in lines)
        return Head(version, int(status), tuple((name.lower(), value.strip()) for name, _, value in pairs))

    def chunk(self) -> bytes:
        """Read one chunk; the last is empty."""
        size = int(self._until(b"\r\n"), 16)
        data = self.exactly(size)
        assert self.exactly(2) == b"\r\n"
        return data

    def rest(self) -> bytes:
        """Read the remaining chunks, the last included."""
        parts: list[bytes] = []
        until = time.monotonic() + FAIL_S
        while part := self.chunk():
            # Heartbeats may go on for ever, and no read ever times out.
            assert time.monotonic() < until, f"no end after {len(parts)} chunks"
            parts.append(part)
        return b"".join(parts)

    def exactly(self, count: int) -> bytes:
        """Read so many bytes."""
        while len(self._buffer) < count:
            self._receive()
        return self._cut(count)

    def ended(self) -> bool:
        """Whether the server closes the connection, having sent nothing more."""
        return not self._buffer and not self.socket.recv(1)

    def silent(self) -> bool:
        """Whether nothing has come so far that was not read."""
        self.socket.setblocking(False)
        try:
            return not self._buffer and not self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(FAIL_S)

    def _until(self, end: bytes) -> bytes:
        while (found := self._buffer.find(end)) < 0:
            self._receive()
        line = self._cut(found)
        self._cut(len(end))
        return line

    def _receive(self) -> None:
        data = self.socket.recv(_RECEIVE_BYTES)
        assert data, f"the server closed the connection after {bytes(self._buffer[:200])!r}"
        self._buffer += data

    def _cut(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


def request(
    host: str,
    method: str,
    target: str,
    body: bytes | None = None,
    headers: Mapping[str, str | None] | None = None,
    version: str = "1.1",
) -> bytes:
    """The bytes of a request; a header that is None is left out."""
    fields: dict[str, str | None] = {"Host": host}
    if body is not None:
        fields |= {**JSON, "Content-Length": str(len(body))}
    fields |= headers or {}
    lines = [f"{method} {target} HTTP/{version}", *(f"{name}: {value}" for name, value in fields.items() if value)]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def call(
    server: Address,
    method: str,
    target: str,
    body: bytes | None = None,
    headers: Mapping[str, str | None] | None = None,
    version: str = "1.1",
) -> Answer:
    """One request on a connection of its own."""
    with Client(server) as client:
        return client.call(method, target, body, headers, version)


def metric(client: Client, sample: str) -> float:
    """A sample of `/metrics`, by its name with its labels; 0 where it is not there."""
    for line in client.call("GET", "/metrics").body.decode().splitlines():
        name, _, value = line.rpartition(" ")
        if name == sample:
            return float(value)
    return 0.0


def wait_until(condition: Callable[[], bool]) -> None:
    """Ask until it is so."""
    end = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"still not so after {_PATIENCE_S:g} s"
        # Asking all the time would take the processor from whoever it is that makes it so.
        time.sleep(_ASK_EVERY_S)


def wait_parked(monitor: Client, count: int) -> None:
    """Wait until so many consumers are parked, where no heartbeat tells it."""
    wait_until(lambda: metric(monitor, "wakeq_parked_consumers") == count)
