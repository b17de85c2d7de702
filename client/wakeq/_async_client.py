"""The asynchronous client, for asyncio and trio alike."""

import os
import random
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self
from weakref import WeakSet, WeakValueDictionary

import anyio
from anyio.abc import TaskGroup

from wakeq._administration import Administration
from wakeq._attributes import envelope_fields, publish_headers
from wakeq._bodies import encoded
from wakeq._claims import Claims
from wakeq._connection import DEFAULT_URL, Answer, Connection, Transport, query
from wakeq._consumer import Consumer
from wakeq._delivery import Delivery, Holder
from wakeq._errors import LeaseLost, raise_for_answer
from wakeq._feed import Feed
from wakeq._keeper import Keeper
from wakeq._model import Dead, Nack, Published, SettleResult
from wakeq._publisher import Batch, Message, Outgoing, Publisher, new_key
from wakeq._settler import Settler, Settling

_CONSUMER_MAX = 255


class AsyncClient(Administration):
    """A connection to one queue server; use it as an async context manager."""

    def __init__(
        self,
        base_url: str | None = None,
        *,
        token: str | None = None,
        timeout: float = 10.0,
        retry_s: float = 60.0,
        consumer: str | None = None,
        transport: Transport = None,
        propagator: Callable[[], Mapping[str, str]] | None = None,
    ) -> None:
        """``base_url`` None: the environment's ``WAKEQ_URL``, else the local server.

        ``token`` is what the server asks for (``wakeq serve --token-file``), None: the environment's ``WAKEQ_TOKEN``.
        ``timeout`` (seconds) bounds connecting, and the silence of a server that isn't asked to wait. For ``retry_s``
        seconds a publish or a settle is tried again while the server can't be reached; 0: it is tried once.
        ``consumer`` is what this client is called where consumers are listed: 1 to 255 printable characters, no space
        at the ends; None: the host's name, the process's id and something random. ``transport`` is one of httpx's,
        which all requests then go through, as for a proxy; None: connections of our own. ``propagator`` is called with
        each `publish`, and its headers go along, as `wakeq.otel.headers`. Raises ValueError naming what is none of
        this.
        """
        if consumer is None:
            consumer = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        elif not (1 <= len(consumer) <= _CONSUMER_MAX and consumer.isprintable() and consumer == consumer.strip()):
            raise ValueError(
                f"consumer: must have 1 to {_CONSUMER_MAX} characters, all of them printable, and no space at its ends"
            )
        self._connection = Connection(
            base_url or os.environ.get("WAKEQ_URL") or DEFAULT_URL,
            token=token or os.environ.get("WAKEQ_TOKEN"),
            timeout=timeout,
            transport=transport,
        )
        self._retry_s = retry_s
        self._propagator = propagator
        self._claims = Claims(self._connection, consumer)
        self._direct = _Direct(self)
        # A lane lives as long as somebody goes through it; and the last one, since who publishes alone would make one
        # for each message.
        self._publishers: WeakValueDictionary[str, Publisher] = WeakValueDictionary()
        self._last_publisher: Publisher | None = None
        self._settlers: WeakValueDictionary[str, Settler] = WeakValueDictionary()
        self._feeds: WeakSet[Feed] = WeakSet()
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._connection.aopen()
            stack.push_async_callback(self._connection.aclose)
            self._tasks = await anyio.create_task_group().__aenter__()
            stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks, self._tasks = self._tasks, None
        try:
            await self._end_feeds()
        finally:
            try:
                # Its tasks have ended; an error of the block is the caller's, and in no group.
                if tasks is not None:
                    await tasks.__aexit__(None, None, None)
            finally:
                await self.aclose()

    async def _end_feeds(self) -> None:
        feeds = list(self._feeds)
        if feeds:
            with anyio.CancelScope(shield=True):
                async with anyio.create_task_group() as closing:
                    for feed in feeds:
                        closing.start_soon(feed.aclose)

    async def aclose(self) -> None:
        """Close all connections, of a client that was not used as a context manager."""
        await self._connection.aclose()

    async def publish(
        self,
        topic: str,
        body: Any,
        *,
        delay_s: float | None = None,
        ttl_s: float | None = None,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Published:
        """Publish what JSON has, a dataclass or a pydantic model; or bytes, to a topic whose schema is ``any``.

        It isn't delivered in the first ``delay_s`` seconds, and dropped if it still isn't after ``ttl_s``. Of the
        messages with one ordering ``key``, one is out at a time. ``headers`` are handed over with it, their names in
        lower case. A publish that comes again with its ``idempotency_key`` enqueues nothing and returns the same; None:
        a new one, so that trying again after a lost answer enqueues once.

        Calls that come while one of the topic is on its way share the next request; each has its own result. Returns
        when the message is as durable as the server makes it. Raises TypeError where the body isn't JSON,
        TopicNotFound, BadRequest, InvalidMessage, IdempotencyConflict, MessageTooLarge, HeadTooLarge,
        UnsupportedMediaType, TopicFull, StorageFull, StorageFailed, ServerUnavailable.
        """
        if self._propagator is not None:
            headers = {**self._propagator(), **(headers or {})}
        said = (delay_s, ttl_s, key, headers or {}, new_key() if idempotency_key is None else idempotency_key)
        is_free = idempotency_key is None and key is None and not headers and delay_s is None and ttl_s is None
        message = Message(body, list(publish_headers(*said)), lambda: envelope_fields(*said), is_free=is_free)
        lane = self._publishers.get(topic)
        if lane is None:
            lane = self._publishers[topic] = Publisher(self._connection, topic, jitter=random.random)
        self._last_publisher = lane
        return await self._publish(lane, message)

    async def publish_many(
        self,
        topic: str,
        bodies: Iterable[Any],
        *,
        delay_s: float | None = None,
        ttl_s: float | None = None,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Published:
        """Publish JSON values in one request: all of them or none, under one idempotency key; None: a new one.

        The other attributes are as those of `publish`, for each of them. Raises what `publish` raises.
        """
        said = (delay_s, ttl_s, key, headers or {})
        of_all = publish_headers(None, None, None, {}, new_key() if idempotency_key is None else idempotency_key)
        # What one message's headers can't carry is no attribute of a batch's messages either.
        list(publish_headers(*said, None))
        batch = Batch(bodies, list(of_all), envelope_fields(*said, None))
        # In a lane of its own: a batch shares its request with nobody, and waits for nobody.
        return await self._publish(Publisher(self._connection, topic, jitter=random.random), batch)

    async def _publish(self, lane: Publisher, part: Outgoing) -> Published:
        part.patience_s = self._retry_s
        await lane.submit(part)
        return part.result

    async def claim(
        self,
        topic: str,
        *,
        max: int = 1,  # noqa: A002  the protocol's word
        wait_s: float = 0.0,
        lease_s: float | None = None,
        group: str | None = None,
    ) -> list[Delivery]:
        """Lease up to ``max`` messages as soon as there is one; an empty list after ``wait_s`` seconds (at most 60).

        Nobody extends these leases, but `Delivery.extend`. Raises TopicNotFound, GroupNotFound, BadRequest, Draining,
        TooManyParked, ServerUnavailable.
        """
        wires = await self._claims.claim(topic, max=max, wait_s=wait_s, lease_s=lease_s, group=group)
        return [Delivery(topic, wire, self._direct) for wire in wires]

    def consume(
        self,
        topic: str,
        *,
        group: str | None = None,
        prefetch: int = 32,
        lease_s: float = 30.0,
        grace_s: float | None = None,
    ) -> Consumer:
        """Deliveries as they come, over one stream that reconnects by itself.

        At most ``prefetch`` of them are unsettled at a time. Each is leased for ``lease_s`` seconds, and again for as
        long as the program holds it. `async with delivery:` settles it, with others in one request. When the program
        dies, what it held comes back after ``grace_s`` seconds, None: what the server has (5); with 0 at once, so that
        whoever consumes next has it before what came later.

        Raises RuntimeError where the client is not used as a context manager, which is what ends its background.
        """
        if self._tasks is None:
            raise RuntimeError("to consume, use the client as a context manager: `async with wakeq.AsyncClient() as …`")
        keeper = Keeper(topic, self._settler(topic), lease_s=lease_s, retry_s=self._retry_s)
        feed = Feed(
            self._claims,
            keeper,
            topic=topic,
            group=group,
            prefetch=prefetch,
            lease_s=lease_s,
            grace_s=grace_s,
            jitter=random.random,
        )
        return Consumer(feed, self._start)

    def _start(self, feed: Feed) -> None:
        if self._tasks is None:
            raise RuntimeError("the client is closed")
        self._feeds.add(feed)
        self._tasks.start_soon(feed.run)

    def _settler(self, topic: str) -> Settler:
        found = self._settlers.get(topic)
        if found is None:
            found = self._settlers[topic] = Settler(self._connection, topic, jitter=random.random)
        return found

    async def settle(
        self,
        topic: str,
        *,
        ack: Sequence[str] = (),
        nack: Sequence[Nack] = (),
        extend: Sequence[tuple[str, float | None]] = (),
        dead: Sequence[Dead] = (),
        release: Sequence[str] = (),
    ) -> list[SettleResult]:
        """End or extend leases by their ids, in this order; returns when that is durable.

        Calls that come while one of the topic is on its way share the next request. A lease that has ended is no error
        here: its result says ``stale``. Raises TypeError, TopicNotFound, BadRequest, StorageFailed, ServerUnavailable.
        """
        return await self._settle(topic, Settling(ack, nack, extend, dead, release))

    async def _settle(self, topic: str, asked: Settling) -> list[SettleResult]:
        asked.patience_s = self._retry_s
        await self._settler(topic).submit(asked)
        return asked.results

    async def _ask(
        self, method: str, path: str, *, json: Any = None, params: Mapping[str, object] | None = None
    ) -> Answer:
        content = b"" if json is None else encoded(json)
        answer = await self._connection.ask(method, f"{path}{query(params or {})}", content=content)
        raise_for_answer(answer)
        return answer


class _Direct(Holder):
    """Settles each claimed delivery when it is told to."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def settle(self, topic: str, end: Settling) -> None:
        _check(await self._client._settle(topic, end))

    async def extend(self, topic: str, lease_id: str, lease_s: float | None) -> None:
        _check(await self._client._settle(topic, Settling(extend=[(lease_id, lease_s)])))

    def ack_soon(self, lease_id: str) -> bool:
        return False

    def nack_soon(self, nack: Nack) -> bool:
        return False

    def drop(self, lease_id: str) -> None:
        """Nothing keeps it."""


def _check(results: list[SettleResult]) -> None:
    (result,) = results
    if result.status != "ok":
        raise LeaseLost(f"the lease {result.lease_id} has ended")
