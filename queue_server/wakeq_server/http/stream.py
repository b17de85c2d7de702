"""Messages of a topic as Server-Sent Events, as they come.

With `?lease=` each event is a Delivery that the client settles; at most `prefetch` of them are unsettled at a time,
and a settle from anywhere makes room. Without, events are bodies, acked by the server as for a plain GET.

A stream that has ended may have been read to its last byte or not at all. What was never written is undone at once;
what was written keeps its lease for a grace, so that a client that only lost its connection can extend it first.
"""

import base64
from collections.abc import Mapping

import orjson

from wakeq_server.core.model import Delivery
from wakeq_server.engine.base import Subscription
from wakeq_server.errors import ConsumerGone, Draining, QueueError
from wakeq_server.http import params
from wakeq_server.http.messages import Messages, released_on_failure, require_open, seen_read
from wakeq_server.http.sse import DRAIN, EventStream, data_lines, one_line
from wakeq_server.http.wire import Receive, Scope, Send, delivery_json


def wants_stream(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a GET asks for events."""
    return b"text/event-stream" in headers.get(b"accept", b"")


async def stream(
    messages: Messages, scope: Scope, topic: str, headers: Mapping[bytes, bytes], receive: Receive, send: Send
) -> None:
    """`GET /messages/{topic}` with `Accept: text/event-stream`."""
    query = params.parse_query(params.StreamQuery, scope["query_string"])
    consumer = params.consumer(scope, headers)
    await messages.config(topic)
    leased = query.lease is not None
    subscription = await messages.engine.subscribe(
        topic,
        group=query.group,
        lease_s=query.lease,
        prefetch=query.prefetch if leased else None,
        consumer=consumer,
        stream=True,
    )
    if messages.engine.draining:
        raise Draining
    if messages.places.full:
        raise messages.places.refusal()
    with messages.places:
        events = EventStream(scope, receive, send, messages.stream_beats)
        await Stream(subscription, events, query.prefetch, leased=leased).run(query.grace)


class Stream:
    """One open stream."""

    def __init__(self, subscription: Subscription, events: EventStream, prefetch: int, *, leased: bool) -> None:
        self._subscription = subscription
        self._events = events
        self._prefetch = prefetch
        self._leased = leased

    async def run(self, grace_s: float) -> None:
        """Stream until the client, the topic or the server goes."""
        try:
            await self._events.start()
            while await self._next():
                pass
        except QueueError:
            # The topic or the group is gone, or a body can't be read: an answer that has begun can only end.
            pass
        finally:
            self._subscription.close(grace_s)
        await self._events.end()

    async def _next(self) -> bool:
        try:
            deliveries = await self._subscription.take(self._prefetch, float("inf"), self._events.attend)
        except Draining:
            deliveries = []
        if not deliveries:
            await self._events.write(DRAIN)
            return False
        with released_on_failure(self._subscription, deliveries) as delivered:
            require_open(self._events.peer)
            # One part at a time: what the client doesn't take must not pile up here, leased.
            await self._events.write(b"".join(map(self._frame, deliveries)))
            delivered.done = self._leased or await seen_read(self._events.peer)
        if not delivered.done:
            raise ConsumerGone
        if not self._leased:
            self._subscription.acknowledge(deliveries)
        return True

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


def _text(body: bytes, content_type: str) -> bytes:
    try:
        body.decode()
    except UnicodeDecodeError:
        # Events are text.
        encoded = base64.b64encode(body).decode()
        return orjson.dumps({"body_b64": encoded, "content_type": content_type})
    return body
