"""wakeq's own client, under the python of wakeq itself."""

# mypy: disable-error-code="import-not-found,misc"

import argparse
import contextlib
import itertools
import math
from collections.abc import AsyncIterator, Sequence
from typing import Any

from _client import TAKE_S, Consumer, Queue, Taken
from _jobs import main

import wakeq

# As long as the client itself waits at a time.
_WAIT_S = 60.0
# Far from the limit that a client has of streams.
_CONSUMERS_A_CLIENT = 500


class Claims(Consumer):
    """Claims with a wait, and a settle for the batch."""

    def __init__(self, client: wakeq.AsyncClient, topic: str) -> None:
        self._client = client
        self._topic = topic

    async def take(self, most: int) -> Taken:
        """One claim."""
        return [(one.lease_id, one.body) for one in await self._client.claim(self._topic, max=most, wait_s=TAKE_S)]

    async def ack(self, tokens: Sequence[Any]) -> None:
        """One settle."""
        await self._client.settle(self._topic, ack=tokens)


class Wakeq(Queue):
    """Topics of one server; consumers have a stream, or claim again and again."""

    def __init__(self, clients: Sequence[wakeq.AsyncClient], *, claims: bool) -> None:
        self._client = clients[0]
        self._next = itertools.cycle(clients)
        self._claims = claims

    async def create(self, topic: str, groups: Sequence[str] = ()) -> None:
        """With schema `json`."""
        await self._client.create_topic(topic, schema="json")
        for group in groups:
            await self._client.put_group(topic, group)
        if groups:
            await self._client.delete_group(topic, "default")

    async def publish(self, topic: str, body: str) -> None:
        """One request."""
        await self._client.publish(topic, body)

    async def publish_many(self, topic: str, bodies: Sequence[str]) -> None:
        """One request."""
        await self._client.publish_many(topic, bodies)

    async def consumer(self, topic: str) -> Consumer:
        """It claims."""
        return Claims(self._client, topic)

    async def deliveries(self, topic: str, prefetch: int, group: str | None = None) -> AsyncIterator[tuple[Any, str]]:
        """Of a stream, or of claims."""
        client = next(self._next)
        if self._claims:
            while True:
                for delivery in await client.claim(topic, max=min(prefetch, 1_000), wait_s=_WAIT_S, group=group):
                    yield delivery, delivery.body
        async with client.consume(topic, prefetch=prefetch, group=group) as deliveries:
            async for delivery in deliveries:
                yield delivery, delivery.body

    async def ack_one(self, token: Any) -> None:
        """By the delivery itself."""
        await token.ack()


@contextlib.asynccontextmanager
async def connect(options: argparse.Namespace) -> AsyncIterator[Queue]:
    """Ways: claim, or a stream."""
    count = math.ceil(getattr(options, "consumers", 1) / _CONSUMERS_A_CLIENT)
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(wakeq.AsyncClient(options.url)) for _ in range(count)]
        yield Wakeq(clients, claims=options.way == "claim")


if __name__ == "__main__":
    main(connect)
