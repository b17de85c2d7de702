"""aiostalk, greenstalk's client for asyncio: put, reserve and delete on a tube a topic.

A connection does one call at a time, and one that waits in a reserve can do no other: so each publish that is in flight
and each message that is reserved has its own, as workers of beanstalkd do. There is no call for a batch.
"""

# mypy: disable-error-code="import-not-found,import-untyped,misc"

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import aiostalk
from _client import TAKE_S, Consumer, Queue, Taken
from _jobs import main

_WORKERS_MAX = 100


class Worker(Consumer):
    """One connection that watches a tube."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def take(self, most: int) -> Taken:
        """Reserves until there is nothing more."""
        taken: list[Any] = []
        with contextlib.suppress(aiostalk.TimedOutError):
            while len(taken) < most:
                taken.append(await self._client.reserve(timeout=0 if taken else int(TAKE_S)))
        return [(job, job.body) for job in taken]

    async def ack(self, tokens: Sequence[Any]) -> None:
        """Deletes, one after the other."""
        for job in tokens:
            await self._client.delete(job)


class Tubes(Queue):
    """Tubes of one server, over as many connections as are in use."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._free: dict[str, list[Any]] = {}

    async def create(self, topic: str, groups: Sequence[str] = ()) -> None:
        """A tube is there when it is used."""

    async def publish(self, topic: str, body: str) -> None:
        """One put."""
        await self.publish_many(topic, [body])

    async def publish_many(self, topic: str, bodies: Sequence[str]) -> None:
        """Puts, one after the other."""
        free = self._free.setdefault(topic, [])
        client = free.pop() if free else await self._connected(use=topic)
        for body in bodies:
            await client.put(body)
        free.append(client)

    async def consumer(self, topic: str) -> Consumer:
        """With a connection of its own."""
        return Worker(await self._connected(watch=topic))

    async def deliveries(self, topic: str, prefetch: int, group: str | None = None) -> AsyncIterator[tuple[Any, str]]:
        """From workers, each of which has one message at a time."""
        delivered: asyncio.Queue[Any] = asyncio.Queue()
        async with asyncio.TaskGroup() as workers:
            for _ in range(min(prefetch, _WORKERS_MAX)):
                workers.create_task(self._work(topic, delivered))
            while True:
                done, body = await delivered.get()
                yield done, body

    async def _work(self, topic: str, delivered: asyncio.Queue[Any]) -> None:
        client = await self._connected(watch=topic)
        while True:
            job = await client.reserve()
            deleted, done = asyncio.Event(), asyncio.Event()
            delivered.put_nowait(((done, deleted), job.body))
            await done.wait()
            await client.delete(job)
            deleted.set()

    async def ack_one(self, token: Any) -> None:
        """By the worker that has it."""
        done, deleted = token
        done.set()
        await deleted.wait()

    async def _connected(self, **tube: str) -> Any:
        client = aiostalk.Client(self._address, **tube)
        await client.connect()
        return client


@contextlib.asynccontextmanager
async def connect(options: argparse.Namespace) -> AsyncIterator[Queue]:
    """Connections are made when they are needed."""
    address = urlsplit(options.url)
    yield Tubes((str(address.hostname), int(address.port or 0)))


if __name__ == "__main__":
    main(connect)
