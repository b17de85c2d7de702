"""The load of `_load` through redis-py: XADD, XREADGROUP and XACK on one stream with one group."""

# mypy: disable-error-code="import-not-found,import-untyped,misc"

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from _load import TAKE_S, Consumer, Queue, Taken, main
from redis import asyncio as redis

STREAM, GROUP = "load", "consumers"
CONNECTIONS_MAX = 10_000


class Group(Consumer):
    """A member of the group."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._name = name

    async def take(self, most: int) -> Taken:
        """One XREADGROUP, which blocks."""
        answer = await self._client.xreadgroup(GROUP, self._name, {STREAM: ">"}, count=most, block=int(1000 * TAKE_S))
        return [(token, fields[b"body"]) for _, entries in _streams(answer) for token, fields in entries]

    async def ack(self, tokens: Sequence[Any]) -> None:
        """One XACK."""
        await self._client.xack(STREAM, GROUP, *tokens)


class Redis(Queue):
    """A stream of one server; every call that is in flight has a connection of its own."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._members = 0

    async def publish(self, body: str) -> None:
        """One XADD."""
        await self._client.xadd(STREAM, {"body": body})

    async def publish_many(self, bodies: Sequence[str]) -> None:
        """A pipeline of XADDs, without a transaction."""
        async with self._client.pipeline(transaction=False) as pipeline:
            for body in bodies:
                pipeline.xadd(STREAM, {"body": body})
            await pipeline.execute()

    async def consumer(self) -> Consumer:
        """One more member."""
        self._members += 1
        return Group(self._client, f"member-{self._members}")

    async def deliveries(self, prefetch: int) -> AsyncIterator[tuple[Any, bytes]]:
        """Of one member: Redis bounds what one answer holds, not what is unacked."""
        member = await self.consumer()
        while True:
            for one in await member.take(prefetch):
                yield one

    async def ack_one(self, token: Any) -> None:
        """One XACK."""
        await self._client.xack(STREAM, GROUP, token)


def _streams(answer: Any) -> list[Any]:
    """What was read of each stream; the protocol in use decides between a map and a list."""
    if not answer:
        return []
    if isinstance(answer, dict):
        return [(name, [entry for part in parts for entry in part]) for name, parts in answer.items()]
    return list(answer)


@contextlib.asynccontextmanager
async def connect(url: str) -> AsyncIterator[Queue]:
    """With an empty stream and a group on it."""
    async with redis.from_url(url, max_connections=CONNECTIONS_MAX) as client:
        await client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        yield Redis(client)


if __name__ == "__main__":
    main(connect)
