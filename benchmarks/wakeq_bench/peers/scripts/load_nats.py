"""The load of `_load` through nats-py: a stream in files, kept until acked, and one durable consumer."""

# mypy: disable-error-code="import-not-found,import-untyped,misc"

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import nats
from _load import Consumer, Queue, Taken, main
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import ServiceUnavailableError

STREAM, SUBJECT, GROUP = "load", "load", "consumers"
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
    """A stream of one server, over one connection."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def publish(self, body: str) -> None:
        """One publish, confirmed."""
        await self._stream.publish(SUBJECT, body.encode(), timeout=REQUEST_MAX_S)

    async def publish_many(self, bodies: Sequence[str]) -> None:
        """Asynchronous publishes, whose confirmations are gathered."""
        await asyncio.gather(*[await self._stream.publish_async(SUBJECT, body.encode()) for body in bodies])

    async def consumer(self) -> Consumer:
        """A subscription of its own to the durable consumer, which is made by the first."""
        config = ConsumerConfig(durable_name=GROUP, ack_policy=AckPolicy.EXPLICIT)
        await self._stream.add_consumer(STREAM, config)
        return Pull(await self._stream.pull_subscribe_bind(consumer=GROUP, stream=STREAM))

    async def deliveries(self, prefetch: int) -> AsyncIterator[tuple[Any, bytes]]:
        """Pushed, which is what nats-py has for it: a fetch would wait until it is full."""
        config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, max_ack_pending=prefetch)
        subscription = await self._stream.subscribe(SUBJECT, stream=STREAM, config=config, manual_ack=True)
        async for message in subscription.messages:
            yield message, message.data

    async def ack_one(self, token: Any) -> None:
        """One ack, confirmed."""
        await token.ack_sync(timeout=REQUEST_MAX_S)


@contextlib.asynccontextmanager
async def connect(url: str) -> AsyncIterator[Queue]:
    """With an empty stream."""
    connection = await nats.connect(url)
    try:
        stream = connection.jetstream(timeout=REQUEST_MAX_S)
        await stream.add_stream(
            StreamConfig(
                name=STREAM, subjects=[SUBJECT], storage=StorageType.FILE, retention=RetentionPolicy.WORK_QUEUE
            )
        )
        yield JetStream(stream)
    finally:
        await connection.close()


if __name__ == "__main__":
    main(connect)
