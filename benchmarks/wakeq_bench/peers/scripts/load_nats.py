"""nats-py: a stream in files a topic, kept until acked, and durable consumers."""

# mypy: disable-error-code="import-not-found,import-untyped,misc"

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import nats
from _client import Consumer, Queue, Taken
from _jobs import main
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import ServiceUnavailableError

GROUP = "consumers"
# A fetch that finds fewer messages than it asked for waits so long for the rest.
FETCH_S = 0.1
REQUEST_MAX_S = 30.0


class Pull(Consumer):
    """Fetches of the durable consumer."""

    def __init__(self, subscription: Any) -> None:
        self._subscription = subscription

    async def take(self, most: int) -> Taken:
        """One fetch."""
        try:
            messages = await self._subscription.fetch(most, timeout=FETCH_S)
        except (TimeoutError, ServiceUnavailableError):
            # Unavailable is a consumer that the server has confirmed, but not yet set up.
            return []
        return [(message, message.data) for message in messages]

    async def ack(self, tokens: Sequence[Any]) -> None:
        """Acks are taken in order: the answer to the last one says that all have been."""
        for message in tokens[:-1]:
            await message.ack()
        await tokens[-1].ack_sync(timeout=REQUEST_MAX_S)


class JetStream(Queue):
    """Streams of one server, over one connection; a topic is a stream and its only subject."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def create(self, topic: str, groups: Sequence[str] = ()) -> None:
        """Kept until the consumers have acked, or until each group has."""
        config = StreamConfig(
            name=topic,
            subjects=[topic],
            storage=StorageType.FILE,
            retention=RetentionPolicy.INTEREST if groups else RetentionPolicy.WORK_QUEUE,
        )
        await self._stream.add_stream(config)

    async def publish(self, topic: str, body: str) -> None:
        """One publish, confirmed."""
        await self._stream.publish(topic, body.encode(), timeout=REQUEST_MAX_S)

    async def publish_many(self, topic: str, bodies: Sequence[str]) -> None:
        """Asynchronous publishes, whose confirmations are gathered."""
        await asyncio.gather(*[await self._stream.publish_async(topic, body.encode()) for body in bodies])

    async def consumer(self, topic: str) -> Consumer:
        """A subscription of its own to the durable consumer, which is made by the first."""
        config = ConsumerConfig(durable_name=GROUP, ack_policy=AckPolicy.EXPLICIT)
        await self._stream.add_consumer(topic, config)
        return Pull(await self._stream.pull_subscribe_bind(consumer=GROUP, stream=topic))

    async def deliveries(self, topic: str, prefetch: int, group: str | None = None) -> AsyncIterator[tuple[Any, bytes]]:
        """Pushed, which is what nats-py has for it: a fetch would wait until it is full."""
        config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, max_ack_pending=prefetch)
        options = {"stream": topic, "config": config, "manual_ack": True, "durable": group}
        subscription = await self._stream.subscribe(topic, **options)
        async for message in subscription.messages:
            yield message, message.data

    async def ack_one(self, token: Any) -> None:
        """One ack, confirmed."""
        await token.ack_sync(timeout=REQUEST_MAX_S)


@contextlib.asynccontextmanager
async def connect(options: argparse.Namespace) -> AsyncIterator[Queue]:
    """One connection."""
    connection = await nats.connect(options.url)
    try:
        yield JetStream(connection.jetstream(timeout=REQUEST_MAX_S))
    finally:
        await connection.close()


if __name__ == "__main__":
    main(connect)
