"""The load of `_load` through wakeq's own client, under the python of wakeq itself."""

# mypy: disable-error-code="import-not-found,misc"

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from _load import TAKE_S, Consumer, Queue, Taken, main

import wakeq

TOPIC = "load"


class Claims(Consumer):
    """Claims with a wait, and a settle for the batch."""

    def __init__(self, client: wakeq.AsyncClient) -> None:
        self._client = client

    async def take(self, most: int) -> Taken:
        """One claim."""
        return [(one.lease_id, one.body) for one in await self._client.claim(TOPIC, max=most, wait_s=TAKE_S)]

    async def ack(self, tokens: Sequence[Any]) -> None:
        """One settle."""
        await self._client.settle(TOPIC, ack=tokens)


class Wakeq(Queue):
    """A topic of one server."""

    def __init__(self, client: wakeq.AsyncClient) -> None:
        self._client = client

    async def publish(self, body: str) -> None:
        """One request."""
        await self._client.publish(TOPIC, body)

    async def publish_many(self, bodies: Sequence[str]) -> None:
        """One request."""
        await self._client.publish_many(TOPIC, bodies)

    async def consumer(self) -> Consumer:
        """It claims."""
        return Claims(self._client)

    async def deliveries(self, prefetch: int) -> AsyncIterator[tuple[Any, str]]:
        """Of a stream."""
        async with self._client.consume(TOPIC, prefetch=prefetch) as deliveries:
            async for delivery in deliveries:
                yield delivery, delivery.body

    async def ack_one(self, token: Any) -> None:
        """By the delivery itself."""
        await token.ack()


@contextlib.asynccontextmanager
async def connect(url: str) -> AsyncIterator[Queue]:
    """With a topic of schema `json`."""
    async with wakeq.AsyncClient(url) as client:
        await client.create_topic(TOPIC, schema="json")
        yield Wakeq(client)


if __name__ == "__main__":
    main(connect)
