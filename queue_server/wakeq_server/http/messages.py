"""The hot path: the plain GET of llama_deploy and curl, claim and settle; publishing is beside it.

It is called before the router, with the topic already cut out of the path.

A plain GET has no second request that would confirm it, so its message is acked by the server: leased, written
whole with its length, and acked only when the client is then seen to have it: the connection is still open after a
look, or it was closed by a client that had read every byte (`seen_read`). What dies with an open connection and the
message unread in its buffer is this tier's one window of loss; `claim` and leased streams have none.
"""

from collections.abc import Callable, Mapping, Sequence

import anyio
import structlog

from wakeq._serving.moments import Beats, Moments
from wakeq_server.core.model import Delivery, TopicConfig
from wakeq_server.engine.base import Engine, Subscription
from wakeq_server.errors import ConsumerGone, Draining, QueueError, TopicNotFound, fresh
from wakeq_server.http import params
from wakeq_server.http.places import Places
from wakeq_server.http.polls import PollWatch
from wakeq_server.http.publishing import Publishing
from wakeq_server.http.wire import (
    JSON_TYPE,
    Connection,
    Headers,
    Receive,
    Response,
    Scope,
    Send,
    client_address,
    connection,
    deliveries_json,
    hung_up,
    json_response,
    read_body,
    send_response,
)
from wakeq_server.settings import (
    EARLY_SHARE,
    LOOK_S,
    REQUEST_MAX_BYTES,
    SILENT_ANSWER_S,
    STREAM_HEARTBEAT_S,
    Settings,
)

LEGACY_CONFIG = TopicConfig(schema="queue_message")
"""Of topics that are made by llama_deploy's call, or by being named."""

NULL = Response(200, [JSON_TYPE], b"null")
NOTHING = Response(204, [], b"")

_log = structlog.get_logger("wakeq.server")


class Messages:
    """`/messages/{topic}` and what hangs on it."""

    def __init__(self, engine: Engine, settings: Settings, now: Callable[[], float], *, auto_create: bool) -> None:
        """``now``: the clock that deadlines go by."""
        self.engine = engine
        self._now = now
        self.publishing = Publishing(engine, self.config)
        self.polls = PollWatch()
        self.places = Places(settings.max_parked)
        self._auto_create = auto_create
        self._legacy_wait_s = settings.legacy_wait
        self._beats = Beats(settings.legacy_heartbeat) if settings.legacy_heartbeat else None
        self.stream_beats = Beats(STREAM_HEARTBEAT_S)
        self._ends = Moments()

    async def config(self, topic: str) -> TopicConfig:
        """The topic's configuration; makes the topic where that is wished for. Raises TopicNotFound."""
        try:
            return await self.engine.topic_config(topic)
        except TopicNotFound:
            if not self._auto_create:
                raise
        await self.engine.create_topic(params.topic_name(topic), LEGACY_CONFIG)
        return await self.engine.topic_config(topic)

    def shortened(self, wait_s: float) -> float:
        """A wait, up to a tenth shorter, so that those of a few consumers end together, and of many do not."""
        if wait_s <= 0:
            return 0.0
        now = self._now()
        return self._ends.within(now, now + wait_s * (1.0 - EARLY_SHARE), now + wait_s) - now

    # Receive

    async def receive(
        self, scope: Scope, topic: str, headers: Mapping[bytes, bytes], receive: Receive, send: Send
    ) -> None:
        """`GET /messages/{topic}`: one message's body, or `null` when none has come."""
        query = params.receive_query(scope["query_string"]) if scope["query_string"] else params.DEFAULT_RECEIVE
        config = await self.config(topic)
        wait_s = query.wait
        if wait_s is None and b"prefer" in headers:
            wait_s = params.prefer_wait(headers[b"prefer"])
        subscription = await self.engine.subscribe(topic, group=query.group, consumer=params.consumer(scope, headers))
        answer = LegacyAnswer(self.engine, subscription, connection(scope), receive, send)
        park_s, beats = self._parking(scope, config, wait_s)
        empty: Response | QueueError = NULL
        if config.schema != "queue_message":
            empty = NOTHING
            if park_s and self.places.full and not self.engine.draining:
                # A message that is there is handed over all the same.
                park_s, empty = 0.0, self.places.refusal()
        with self.places:
            await answer.give(self.shortened(park_s), empty, beats)
        if answer.was_empty and not park_s:
            self._note_poll(scope, topic)

    def _parking(self, scope: Scope, config: TopicConfig, wait_s: float | None) -> tuple[float, Beats | None]:
        """How long a plain GET is parked, and what keeps it alive meanwhile."""
        if wait_s is not None:
            return wait_s, None
        if config.schema != "queue_message":
            return 0.0, None
        if self._beats is not None and scope["http_version"] != "1.0":
            return self._legacy_wait_s, self._beats
        return min(self._legacy_wait_s, SILENT_ANSWER_S), None

    def _note_poll(self, scope: Scope, topic: str) -> None:
        address = client_address(scope)
        if self.polls.empty_answer(address, topic, self._now()):
            _log.warning(
                "tight polling", client=address, topic=topic,
                meaning="this consumer asks again at once instead of waiting",
                remedy="leave out wait=0, or ask with ?wait=60, or stream with Accept: text/event-stream",
            )  # fmt: skip

    # Claim and settle

    async def claim(
        self, scope: Scope, topic: str, headers: Mapping[bytes, bytes], receive: Receive, send: Send
    ) -> None:
        """`POST /messages/{topic}/claim`: leased messages, as soon as there is one."""
        consumer = params.consumer(scope, headers)
        ask = params.parse_body(params.ClaimBody, await read_body(receive, REQUEST_MAX_BYTES, headers))
        await self.config(topic)
        subscription = await self.engine.subscribe(topic, group=ask.group, lease_s=ask.lease_s, consumer=consumer)
        full = ask.wait_s > 0 and self.places.full
        with self.places:
            wait_s = 0.0 if full else self.shortened(ask.wait_s)
            deliveries = await subscription.take(ask.max, wait_s, lambda: hung_up(receive))
        if full and not deliveries:
            raise self.places.refusal()
        await hand_over(subscription, deliveries, connection(scope), send)

    async def settle(self, topic: str, headers: Mapping[bytes, bytes], receive: Receive) -> Response:
        """`POST /messages/{topic}/settle`: acks, nacks, extensions, deaths, releases, in this order."""
        ask = params.parse_body(params.SettleBody, await read_body(receive, REQUEST_MAX_BYTES, headers))
        results = await self.engine.settle(topic, ask.lines())
        return json_response({"results": [{"lease_id": lease_id, "status": status} for lease_id, status in results]})


class LegacyAnswer:
    """The answer to one plain GET: a message's body, or `null`, kept alive by spaces meanwhile."""

    def __init__(
        self, engine: Engine, subscription: Subscription, peer: Connection | None, receive: Receive, send: Send
    ) -> None:
        self._engine = engine
        self._subscription = subscription
        self._peer = peer
        self._receive = receive
        self._send = send
        self._started = False
        self.was_empty = False

    async def give(self, wait_s: float, empty: Response | QueueError, beats: Beats | None) -> None:
        """Wait, answer, and ack what was answered; ``empty`` is the answer when nothing came.

        Raises QueueError, ``empty`` where it is one, unless the answer has begun: that ends as null.
        """
        try:
            deliveries = await self._subscription.take(1, wait_s, lambda: self._attend(beats))
        except Draining:
            deliveries = []
        except QueueError:
            if not self._started:
                raise
            deliveries = []
        if deliveries:
            await self._deliver(deliveries)
            return
        self.was_empty = True
        if self._started:
            await self._send({"type": "http.response.body", "body": b"null"})
        elif isinstance(empty, QueueError):
            raise fresh(empty)
        elif self._engine.draining:
            await send_response(self._send, empty._replace(headers=[*empty.headers, (b"connection", b"close")]))
        else:
            await send_response(self._send, empty)

    async def _attend(self, beats: Beats | None) -> None:
        if beats is None:
            await hung_up(self._receive)
            return
        while True:
            with anyio.CancelScope(deadline=beats.next(anyio.current_time())):
                await hung_up(self._receive)
                return
            await self._beat()

    async def _beat(self) -> None:
        if not self._started:
            headers = [JSON_TYPE, (b"x-accel-buffering", b"no"), (b"cache-control", b"no-transform")]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            self._started = True
        # JSON allows white space in front of a value, so the client sees a sign of life and nothing else.
        await self._send({"type": "http.response.body", "body": b" ", "more_body": True})

    async def _deliver(self, deliveries: Sequence[Delivery]) -> None:
        message = deliveries[0].message
        body = message.body
        assert body is not None
        with released_on_failure(self._subscription, deliveries) as delivered:
            require_open(self._peer)
            if not self._started:
                headers: Headers = [
                    (b"content-type", (message.content_type or "application/json").encode("latin-1")),
                    (b"content-length", b"%d" % len(body)),
                ]
                await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            kept = self._peer is not None and self._peer.kept_alive
            await self._send({"type": "http.response.body", "body": body, "more_body": not kept})
            # In chunks the client doesn't have its answer before the last one: closing before that, it has given up.
            delivered.done = await seen_read(self._peer, may_close=kept or not self._started)
        if not delivered.done:
            raise ConsumerGone
        self._subscription.acknowledge(deliveries)
        if not kept:
            await self._send({"type": "http.response.body", "body": b""})


class released_on_failure:  # noqa: N801  used as a with statement's verb
    """Undoes leases on the way out unless ``done`` was set: whatever is raised inside, and wherever."""

    def __init__(self, subscription: Subscription, deliveries: Sequence[Delivery]) -> None:
        self._subscription = subscription
        self._deliveries = deliveries
        self.done = False

    def __enter__(self) -> "released_on_failure":
        return self

    def __exit__(self, *_: object) -> None:
        if not self.done and self._deliveries:
            self._subscription.release(self._deliveries)


def require_open(peer: Connection | None) -> None:
    """Raises ConsumerGone where the client is known to be gone: what is written now, nobody reads.

    Must be asked before the first write: who hung up before it has read everything, too.
    """
    if peer is not None and peer.gone:
        raise ConsumerGone


async def seen_read(peer: Connection | None, *, may_close: bool = True) -> bool:
    """Whether the client has what was just written, as far as can be seen after a moment.

    ``may_close``: a client that has read it may close; else it would have waited for more. Where the connection isn't
    kept alive, this must come before the answer's last part, after which it is closed from this side.
    """
    if peer is None:
        return True
    await peer.flushed()
    # Clients that give up do so at any moment, this one included; and a reset takes a round trip.
    await anyio.sleep(LOOK_S)
    return not peer.gone or (may_close and peer.read_whole)


async def hand_over(
    subscription: Subscription, deliveries: Sequence[Delivery], peer: Connection | None, send: Send
) -> None:
    """Answer a claim; where the client is known to be gone, undo it instead."""
    with released_on_failure(subscription, deliveries) as delivered:
        require_open(peer)
        await send_response(send, Response(200, [JSON_TYPE], deliveries_json(deliveries)))
        # What is sent to one who hung up meanwhile goes nowhere, and nothing is said.
        delivered.done = peer is None or not peer.gone or peer.read_whole
