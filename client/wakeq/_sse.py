"""Server-Sent Events (WHATWG HTML, section 9.2.6), bytes in and events out; no I/O.

`httpx-sse` splits a line anew from all that has arrived with each chunk, which is quadratic in an event's length,
and does not show comments, which are the heartbeats here.
"""

from typing import NamedTuple


class ServerSentEvent(NamedTuple):
    """One event."""

    event: str
    data: str
    id: str


class SSEParser:
    """Takes a stream in pieces of any size."""

    def __init__(self) -> None:
        self.retry_ms: int | None = None
        """What the server last said about how long to wait before reconnecting."""
        # Not bytes: adding to those copies all that has come.
        self._rest = bytearray()
        self._after_cr = False
        self._first = True
        self._event = ""
        self._data: list[str] = []
        self._last_id = ""

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """The events that are complete with this piece."""
        events = []
        for line in self._lines(data):
            if line:
                self._field(line.decode(errors="replace"))
            elif (event := self._dispatch()) is not None:
                events.append(event)
        return events

    def _lines(self, data: bytes) -> list[bytes]:
        # A CR ends its line at once; should a LF follow in the next piece, it belongs to it.
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if not data:
            return []
        self._after_cr = data.endswith(b"\r")
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        head, newline, tail = data.rpartition(b"\n")
        if not newline:
            self._rest += data
            return []
        lines = bytes(self._rest + head).split(b"\n")
        self._rest = bytearray(tail)
        if self._first:
            self._first = False
            lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
        return lines

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._last_id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_ms = int(value)

    def _dispatch(self) -> ServerSentEvent | None:
        event, data = self._event, self._data
        self._event, self._data = "", []
        return ServerSentEvent(event or "message", "\n".join(data), self._last_id) if data else None
