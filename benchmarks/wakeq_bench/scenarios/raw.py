"""HTTP/1.1 over bare sockets: as little client as possible between the clock and the server.

`AnswerParser` does no I/O: bytes in, answers out. `Connection` is one keep-alive connection that blocks.
"""

import json
import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

_LINE_END = b"\r\n"
_HEAD_END = b"\r\n\r\n"
_RECEIVE_BYTES = 65_536


class BrokenAnswer(RuntimeError):
    """The server closed the connection, or sent what is not an HTTP answer."""


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class AnswerParser:
    """Cuts answers out of the bytes of one connection; no request may be sent before the answer to the one before."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._status = 0
        self._missing_bytes: int | None = None
        self._chunks: bytearray | None = None

    def feed(self, data: bytes) -> Answer | None:
        """Take in bytes; the answer, when they complete it. Raises BrokenAnswer."""
        self._buffer += data
        if not self._status and not self._take_head():
            return None
        body = self._take_sized() if self._chunks is None else self._take_chunks()
        if body is None:
            return None
        answer = Answer(self._status, body)
        self._status, self._missing_bytes, self._chunks = 0, None, None
        return answer

    def _take_head(self) -> bool:
        end = self._buffer.find(_HEAD_END)
        if end < 0:
            return False
        status_line, *fields = bytes(self._buffer[:end]).split(_LINE_END)
        del self._buffer[: end + len(_HEAD_END)]
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(b":") for field in fields)}
        try:
            self._status = int(status_line.split(b" ")[1])
            self._missing_bytes = int(headers.get(b"content-length", b"0"))
        except (IndexError, ValueError) as error:
            raise BrokenAnswer(f"not an HTTP answer: {status_line[:80]!r}") from error
        if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
            self._chunks = bytearray()
        return True

    def _take_sized(self) -> bytes | None:
        assert self._missing_bytes is not None
        if len(self._buffer) < self._missing_bytes:
            return None
        return self._cut(self._missing_bytes)

    def _take_chunks(self) -> bytes | None:
        assert self._chunks is not None
        while (end := self._buffer.find(_LINE_END)) >= 0:
            size = _chunk_size(bytes(self._buffer[:end]))
            if len(self._buffer) < end + size + 2 * len(_LINE_END):
                return None
            self._cut(end + len(_LINE_END))
            chunk = self._cut(size)
            self._cut(len(_LINE_END))
            if not size:
                return bytes(self._chunks)
            # White space in front of the value keeps a parked consumer waiting, for minutes if need be.
            self._chunks += chunk if self._chunks else chunk.lstrip()
        return None

    def _cut(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


class Connection:
    """One keep-alive connection; a context manager that closes it."""

    def __init__(self, url: str, timeout_s: float = 75.0) -> None:
        self._socket = socket.create_connection(address_of(url), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._parser = AnswerParser()

    def exchange(self, request_bytes: bytes) -> Answer:
        """Send a request and read its answer. Raises BrokenAnswer, OSError."""
        self.send(request_bytes)
        return self.receive()

    def send(self, request_bytes: bytes) -> None:
        """Send a request, whose answer `receive` reads. Raises OSError."""
        self._socket.sendall(request_bytes)

    def receive(self) -> Answer:
        """Read one answer. Raises BrokenAnswer, OSError."""
        while True:
            data = self._socket.recv(_RECEIVE_BYTES)
            if not data:
                raise BrokenAnswer("the server closed the connection")
            answer = self._parser.feed(data)
            if answer is not None:
                return answer

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _chunk_size(line: bytes) -> int:
    try:
        return int(line.partition(b";")[0], 16)
    except ValueError as error:
        raise BrokenAnswer(f"not the size of a chunk: {line[:80]!r}") from error


def request(
    url: str, method: str, path: str, body: bytes | None = None, content_type: str = "application/json"
) -> bytes:
    """The bytes of a request."""
    host, port = address_of(url)
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}:{port}"]
    if body is not None:
        lines += [f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def call(url: str, method: str, path: str, body: Any = None) -> Answer:
    """One request on a connection of its own; `body` is sent as JSON. Raises BrokenAnswer, OSError."""
    encoded = None if body is None else json.dumps(body).encode()
    with Connection(url) as connection:
        return connection.exchange(request(url, method, path, encoded))


def address_of(url: str) -> tuple[str, int]:
    """Host and port of a URL."""
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or 80


def made(answer: Answer) -> None:
    """Raises BrokenAnswer where a request was refused."""
    if answer.status >= 300:
        raise BrokenAnswer(f"refused with {answer.status}: {answer.body[:300]!r}")
