"""`GET /events`: who comes and goes, as Server-Sent Events.

Who connects is shown everybody who is present, each as if it were just coming, and from then on what happens. There
is no history to resume from: whoever was away, or too slow, connects again and is shown how things stand.
"""

from collections.abc import Iterator
from itertools import islice

import anyio.lowlevel
import orjson

from wakeq_server.core.model import PresenceEvent
from wakeq_server.engine.base import Watch
from wakeq_server.errors import BacklogOverflow, Draining
from wakeq_server.http import params
from wakeq_server.http.messages import Messages
from wakeq_server.http.sse import DRAIN, EventStream
from wakeq_server.http.wire import Receive, Scope, Send, presence_json
from wakeq_server.settings import EVENTS_PART

_SNAPSHOT_END = b"event: snapshot.end\ndata: {}\n\n"
_OVERFLOW = b"event: overflow\ndata: {}\n\n"


async def events(messages: Messages, scope: Scope, receive: Receive, send: Send) -> None:
    """`GET /events?topics=`."""
    query = params.parse_query(params.EventsQuery, scope["query_string"])
    if messages.places.full:
        raise messages.places.refusal()
    watch = await messages.engine.watch(query.topics)
    try:
        with messages.places:
            await _write(watch, EventStream(scope, receive, send, messages.stream_beats))
    finally:
        watch.close()


async def _write(watch: Watch, stream: EventStream) -> None:
    await stream.start()
    await _write_snapshot(watch.snapshot(), stream)
    try:
        while True:
            await _write_part(await watch.take(EVENTS_PART, stream.attend), stream)
    except Draining:
        await stream.write(DRAIN)
    except BacklogOverflow:
        await stream.write(_OVERFLOW)
    await stream.end()


async def _write_snapshot(present: Iterator[PresenceEvent], stream: EventStream) -> None:
    while part := list(islice(present, EVENTS_PART)):
        await _write_part(part, stream)
    await stream.write(_SNAPSHOT_END)


async def _write_part(part: list[PresenceEvent], stream: EventStream) -> None:
    await stream.write(b"".join(map(_frame, part)))
    # A client that takes everything at once must not keep everybody else waiting meanwhile.
    await anyio.lowlevel.checkpoint()


def _frame(event: PresenceEvent) -> bytes:
    data = orjson.dumps(presence_json(event))
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (event.number, event.kind.encode(), data)
