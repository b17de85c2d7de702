"""redis-py: XADD, XREADGROUP and XACK on a stream a topic."""

# mypy: disable-error-code="import-not-found,import-untyped,misc"

import argparse
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from _client import TAKE_S, Consumer, Queue, Taken
from _jobs import main
from redis import asyncio as redis

GROUP = "consumers"
CONNECTIONS_MAX = 20_000


class Group(Consumer):
    """A member of the group."""

    def __init__(self, client: Any, stream: str, group: str, name: str) -> None:
        self._client = client
        self._stream = stream
        self._group = group
        self._name = name

    async def take(self, most: int) -> Taken:
        """One XREADGROUP, which blocks."""
        return await self.read(most, TAKE_S)

    async def read(self, most: int, wait_s: float) -> Taken:
        """One XREADGROUP that blocks for so long; 0 is for ever."""
        options = {"count": most, "block": int(1000 * wait_s)}
        answer = await self._client.xreadgroup(self._group, self._name, {self._stream: ">"}, **options)
        return [
            ((self._stream, self._group, entry), fields[b"body"])
            for _, entries in _streams(answer)
            for entry, fields in entries
        ]

    async def ack(self, tokens: Sequence[Any]) -> None:
        """One XACK."""
        await self._client.xack(self._stream, self._group, *(entry for _, _, entry in tokens))


class Redis(Queue):
    """Streams of one server; every call that is in flight has a connection of its own."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._members = 0

    async def create(self, topic: str, groups: Sequence[str] = ()) -> None:
        """An empty stream with its groups."""
        for group in groups or (GROUP,):
            await self._client.xgroup_create(topic, group, id="0", mkstream=True)

    async def publish(self, topic: str, body: str) -> None:
        """One XADD."""
        await self._client.xadd(topic, {"body": body})

    async def publish_many(self, topic: str, bodies: Sequence[str]) -> None:
        """A pipeline of XADDs, without a transaction."""
        async with self._client.pipeline(transaction=False) as pipeline:
            for body in bodies:
                pipeline.xadd(topic, {"body": body})
            await pipeline.execute()

    async def consumer(self, topic: str) -> Consumer:
        """One more member."""
        return self._member(topic, None)

    def _member(self, topic: str, group: str | None) -> Group:
        self._members += 1
        return Group(self._client, topic, group or GROUP, f"member-{self._members}")

    async def deliveries(self, topic: str, prefetch: int, group: str | None = None) -> AsyncIterator[tuple[Any, Any]]:
        """Of one member: Redis bounds what one answer holds, not what is unacked."""
        member = self._member(topic, group)
        while True:
            for one in await member.read(prefetch, 0.0):
                yield one

    async def ack_one(self, token: Any) -> None:
        """One XACK."""
        await self._client.xack(*token)


def _streams(answer: Any) -> list[Any]:
    """What was read of each stream; the protocol in use decides between a map and a list."""
    if not answer:
        return []
    if isinstance(answer, dict):
        return [(name, [entry for part in parts for entry in part]) for name, parts in answer.items()]
    return list(answer)


@contextlib.asynccontextmanager
async def connect(options: argparse.Namespace) -> AsyncIterator[Queue]:
    """Without a limit of time on what blocks."""
    async with redis.from_url(options.url, max_connections=CONNECTIONS_MAX, socket_timeout=None) as client:
        yield Redis(client)


if __name__ == "__main__":
    main(connect)
