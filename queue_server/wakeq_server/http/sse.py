"""An answer of Server-Sent Events (WHATWG HTML, section 9.2) while it is written, whatever its events are.

It is written only while the transport's buffer is empty: what a client doesn't take must not pile up here. A client
that takes nothing for `BLOCKED_S` loses its connection.
"""

import anyio

from wakeq._serving.moments import Beats
from wakeq_server.errors import ConsumerGone
from wakeq_server.http.wire import Connection, Receive, Scope, Send, connection, hung_up
from wakeq_server.settings import BLOCKED_S, STREAM_RETRY_MS

DRAIN = b"event: drain\ndata: {}\n\n"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
]
_COMMENT = b":\n\n"


class EventStream:
    """One open stream of events."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, beats: Beats) -> None:
        self.peer: Connection | None = connection(scope)
        self._receive = receive
        self._send = send
        self._beats = beats

    async def start(self) -> None:
        """Send the head and `retry:`. Raises ConsumerGone."""
        await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await self.write(b"retry: %d\n\n" % STREAM_RETRY_MS)

    async def write(self, part: bytes) -> None:
        """Write, and wait until all of it has left. Raises ConsumerGone."""
        event = {"type": "http.response.body", "body": part, "more_body": True}
        peer = self.peer
        is_sent = peer is not None and not peer.unsent
        if is_sent:
            # It is taken at once, where nothing stands still. Whoever waits for it needn't wait for a limit to be set.
            await self._send(event)
        if peer is not None and is_sent and not peer.unsent:
            return
        left = 0
        with anyio.move_on_after(BLOCKED_S):
            if not is_sent:
                await self._send(event)
            if peer is not None:
                left = peer.unsent
                await peer.flushed()
            return
        # A large part may take a slow client longer, as long as it gets on.
        while peer is not None and peer.unsent < left:
            left = peer.unsent
            with anyio.move_on_after(BLOCKED_S):
                await peer.flushed()
                return
        raise ConsumerGone

    async def attend(self) -> None:
        """Write heartbeats until the client hangs up. Raises ConsumerGone."""
        while True:
            with anyio.CancelScope(deadline=self._beats.next(anyio.current_time())):
                await hung_up(self._receive)
                return
            await self.write(_COMMENT)

    async def end(self) -> None:
        """Finish the answer; one that isn't has its connection closed."""
        await self._send({"type": "http.response.body", "body": b""})


def one_line(value: bytes) -> bytes:
    """JSON without line breaks: between tokens they are white space, and inside strings JSON has none."""
    return value.replace(b"\r", b" ").replace(b"\n", b" ")


def data_lines(text: bytes) -> bytes:
    """Text as data fields, one a line."""
    lines = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return b"\n".join(b"data: " + line for line in lines)
