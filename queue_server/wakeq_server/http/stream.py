"""Server-Sent Events (WHATWG HTML, section 9.2): messages of a topic, as they come.

With `?lease=` each event is a Delivery that the client settles; at most `prefetch` of them are unsettled at a time,
and a settle from anywhere makes room. Without, events are bodies, acked by the server as for a plain GET.

A stream that has ended may have been read to its last byte or not at all. What was never written is undone at once;
what was written keeps its lease for a grace, so that a client that only lost its connection can extend it first.
"""

import base64
from collections.abc import Mapping

import anyio
import orjson

from wakeq_server.core.model import Delivery
from wakeq_server.engine.base import Subscription
from wakeq_server.errors import ConsumerGone, Draining, QueueError
from wakeq_server.http import params
from wakeq_server.http.messages import Messages, released_on_failure, require_open, seen_read
from wakeq_server.http.moments import Beats
from wakeq_server.http.wire import Connection, Receive, Scope, Send, connection, delivery_json, hung_up
from wakeq_server.settings import STREAM_BLOCKED_S, STREAM_RETRY_MS

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
]
_COMMENT = b":\n\n"
_DRAIN = b"event: drain\ndata: {}\n\n"


def wants_stream(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a GET asks for events."""
    return b"text/event-stream" in headers.get(b"accept", b"")


async def stream(messages: Messages, scope: Scope, topic: str, receive: Receive, send: Send) -> None:
    """`GET /messages/{topic}` with `Accept: text/event-stream`."""
    query = params.parse_query(params.StreamQuery, scope["query_string"])
    await messages.config(topic)
    leased = query.lease is not None
    subscription = await messages.engine.subscribe(
        topic, group=query.group, lease_s=query.lease, prefetch=query.prefetch if leased else None
    )
    if messages.engine.draining:
        raise Draining
    await Stream(
        subscription, connection(scope), receive, send, query.prefetch, messages.stream_beats, leased=leased
    ).run(query.grace)


class Blocked(Exception):
    """The client has taken nothing for `STREAM_BLOCKED_S`."""


class Stream:
    """One open stream."""

    def __init__(
        self,
        subscription: Subscription,
        peer: Connection | None,
        receive: Receive,
        send: Send,
        prefetch: int,
        beats: Beats,
        *,
        leased: bool,
    ) -> None:
        self._subscription = subscription
        self._peer = peer
        self._receive = receive
        self._send = send
        self._prefetch = prefetch
        self._beats = beats
        self._leased = leased

    async def run(self, grace_s: float) -> None:
        """Stream until the client, the topic or the server goes."""
        await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        try:
            await self._write(b"retry: %d\n\n" % STREAM_RETRY_MS)
            while await self._next():
                pass
        except (ConsumerGone, Blocked):
            # Returning without a last part makes the server close the connection.
            return
        except QueueError:
            # Too late to say so: the topic or its group is gone, or a body can't be read.
            pass
        finally:
            self._subscription.close(grace_s)
        await self._send({"type": "http.response.body", "body": b""})

    async def _next(self) -> bool:
        try:
            deliveries = await self._subscription.take(self._prefetch, float("inf"), self._attend)
        except Draining:
            deliveries = []
        if not deliveries:
            await self._write(_DRAIN)
            return False
        with released_on_failure(self._subscription, deliveries) as delivered:
            require_open(self._peer)
            await self._write(b"".join(map(self._frame, deliveries)))
            delivered.done = self._leased or await seen_read(self._peer)
        if not delivered.done:
            raise ConsumerGone
        if not self._leased:
            self._subscription.acknowledge(deliveries)
        return True

    async def _attend(self) -> None:
        while True:
            with anyio.CancelScope(deadline=self._beats.next(anyio.current_time())):
                await hung_up(self._receive)
                return
            await self._write(_COMMENT)

    async def _write(self, part: bytes) -> None:
        with anyio.move_on_after(STREAM_BLOCKED_S):
            await self._send({"type": "http.response.body", "body": part, "more_body": True})
            # One part at a time: what the client doesn't take must not pile up here, leased.
            if self._peer is not None:
                await self._peer.flushed()
            return
        raise Blocked

    def _frame(self, delivery: Delivery) -> bytes:
        message = delivery.message
        assert message.body is not None
        if self._leased:
            data = b"data: " + one_line(delivery_json(delivery))
        elif message.content_type is None:
            data = b"data: " + one_line(message.body)
        else:
            data = data_lines(_text(message.body, message.content_type))
        return b"id: %d\nevent: message\n%b\n\n" % (message.seq, data)


def one_line(value: bytes) -> bytes:
    """JSON without line breaks: between tokens they are white space, and inside strings JSON has none."""
    return value.replace(b"\r", b" ").replace(b"\n", b" ")


def data_lines(text: bytes) -> bytes:
    """Text as data fields, one a line."""
    lines = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return b"\n".join(b"data: " + line for line in lines)


def _text(body: bytes, content_type: str) -> bytes:
    try:
        body.decode()
    except UnicodeDecodeError:
        # Events are text.
        encoded = base64.b64encode(body).decode()
        return orjson.dumps({"body_b64": encoded, "content_type": content_type})
    return body
