"""Messages published, taken and acked as fast as they go, through any client that is a `Queue`.

Every message has a number, so that none can be lost or come twice unseen. Prints a record when a window opens, one with
what was acked in it when it closes, and one in the end, when everything that was published has been acked or nothing
comes any more. Ends on SIGTERM.

Run by the python of a peer's environment: the standard library only.
"""

# mypy: disable-error-code="import-not-found"

import argparse
import asyncio
import contextlib
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from _output import say_json

TAKE_S = 1.0
"""How long a `take` may wait for a first message."""

_DIGITS = 12
_STALLED_S = 10.0
# Unacked messages beyond which publishers wait: what a queue holds must not grow with the window.
_AHEAD_BATCHES = 8
_AHEAD_MIN = 1_000

Taken = Sequence[tuple[Any, bytes | str]]


class Consumer(ABC):
    """One consumer of the queue."""

    @abstractmethod
    async def take(self, most: int) -> Taken:
        """Up to `most` messages, each with what acks it; none if there were none for a while."""

    @abstractmethod
    async def ack(self, tokens: Sequence[Any]) -> None:
        """Ack them all, in as few requests as the client has for it; return when the server has."""


class Queue(ABC):
    """A client, connected."""

    @abstractmethod
    async def publish(self, body: str) -> None:
        """Publish one message; return when the server has confirmed it."""

    @abstractmethod
    async def publish_many(self, bodies: Sequence[str]) -> None:
        """Publish a batch, pipelined or in one request; return when the server has confirmed all."""

    @abstractmethod
    async def consumer(self) -> Consumer:
        """A consumer more."""

    @abstractmethod
    def deliveries(self, prefetch: int) -> AsyncIterator[tuple[Any, bytes | str]]:
        """Messages as they come, one by one; where the queue can, at most `prefetch` of them unacked."""

    @abstractmethod
    async def ack_one(self, token: Any) -> None:
        """Ack one message; return when the server has confirmed it, or the client has no way to know."""


class Numbers:
    """Which messages have been published and which acked."""

    def __init__(self, size: int, ahead: int) -> None:
        self._padding = "x" * (size - _DIGITS)
        self._ahead = ahead
        self._times = bytearray()
        self._room = asyncio.Event()
        self._closed = False
        self.published = 0
        self.acked = 0

    async def next_bodies(self, count: int) -> list[str]:
        """The messages of the next batch, when consumers are not too far behind; none after the end."""
        while len(self._times) - self.acked >= self._ahead and not self._closed:
            self._room.clear()
            await self._room.wait()
        if self._closed:
            return []
        first = len(self._times)
        self._times.extend(bytes(count))
        return [f"{number:0{_DIGITS}d}{self._padding}" for number in range(first, first + count)]

    def add_published(self, count: int) -> None:
        """So many were confirmed."""
        self.published += count

    def take_in(self, bodies: Sequence[bytes | str]) -> None:
        """These were delivered."""
        for body in bodies:
            self._times[int(body[:_DIGITS])] += 1

    def add_acked(self, count: int) -> None:
        """So many were acked."""
        self.acked += count
        self._room.set()

    def close(self) -> None:
        """There are no batches any more."""
        self._closed = True
        self._room.set()

    async def all_acked(self) -> None:
        """Wait until everything that was published is acked, or nothing comes any more."""
        with contextlib.suppress(TimeoutError):
            while self.acked < self.published:
                self._room.clear()
                await asyncio.wait_for(self._room.wait(), _STALLED_S)

    def judge(self) -> dict[str, int]:
        """What has become of them all."""
        return {
            "published": self.published,
            "acked": self.acked,
            "lost": self._times.count(0),
            "doubled": sum(times - 1 for times in self._times if times > 1),
        }


async def publish_batches(queue: Queue, numbers: Numbers, batch: int) -> None:
    """Publish one batch after the other."""
    while bodies := await numbers.next_bodies(batch):
        await queue.publish_many(bodies)
        numbers.add_published(len(bodies))


async def publish_singly(queue: Queue, numbers: Numbers) -> None:
    """Publish one message after the other."""
    while bodies := await numbers.next_bodies(1):
        await queue.publish(bodies[0])
        numbers.add_published(1)


async def consume_batches(queue: Queue, numbers: Numbers, batch: int) -> None:
    """Take up to a batch, ack it, and so on."""
    consumer = await queue.consumer()
    while True:
        taken = await consumer.take(batch)
        if taken:
            numbers.take_in([body for _, body in taken])
            await consumer.ack([token for token, _ in taken])
            numbers.add_acked(len(taken))


async def consume_singly(queue: Queue, numbers: Numbers, prefetch: int) -> None:
    """Ack every message by a call of its own, beside the others."""

    unacked = asyncio.Semaphore(prefetch)

    async def ack(token: Any) -> None:
        await queue.ack_one(token)
        unacked.release()
        numbers.add_acked(1)

    async with asyncio.TaskGroup() as acks:
        async for token, body in queue.deliveries(prefetch):
            numbers.take_in([body])
            await unacked.acquire()
            acks.create_task(ack(token))


async def load(queue: Queue, options: argparse.Namespace) -> None:
    """Warm up, measure, and wait until the last message is acked."""
    batch = 1 if options.singly else options.batch
    numbers = Numbers(options.size, max(_AHEAD_MIN, _AHEAD_BATCHES * batch * options.in_flight))
    if options.singly:
        publishers = [publish_singly(queue, numbers) for _ in range(options.in_flight)]
        consumers = [consume_singly(queue, numbers, options.in_flight)]
    else:
        publishers = [publish_batches(queue, numbers, batch) for _ in range(options.in_flight)]
        consumers = [consume_batches(queue, numbers, batch) for _ in range(options.in_flight)]
    async with asyncio.TaskGroup() as tasks:
        for consumer in consumers:
            tasks.create_task(consumer)
        publishing = [tasks.create_task(publisher) for publisher in publishers]
        await asyncio.sleep(options.warm_up)
        await _window(numbers, options.seconds)
        numbers.close()
        await asyncio.wait(publishing)
        await numbers.all_acked()
        # Consumers go on until the process is terminated: not every client lets itself be cancelled.
        say_json({"finished": True, **numbers.judge()})


async def _window(numbers: Numbers, seconds: float) -> None:
    say_json({"opened": True})
    acked, started, cpu = numbers.acked, time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    found = {"in_window": numbers.acked - acked, "seconds": time.perf_counter() - started}
    say_json({**found, "cpu_s": time.process_time() - cpu})


def main(connect: Callable[[str], contextlib.AbstractAsyncContextManager[Queue]]) -> None:
    """Parse the command line, connect and load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--batch", type=int, default=1, help="messages a request")
    parser.add_argument(
        "--in-flight", type=int, default=1, help="publishes at a time, and as many consumers of batches"
    )
    parser.add_argument("--singly", action="store_true", help="publish and ack each message by a call of its own")
    parser.add_argument("--size", type=int, default=100, help="bytes of a message")
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds before the window")
    parser.add_argument("--seconds", type=float, default=5.0)
    try:
        asyncio.run(_run(connect, parser.parse_args()))
    except BaseExceptionGroup as failed:
        sys.exit(f"the load failed: {_first(failed)!r}")


async def _run(
    connect: Callable[[str], contextlib.AbstractAsyncContextManager[Queue]], options: argparse.Namespace
) -> None:
    async with connect(options.url) as queue:
        await load(queue, options)


def _first(failed: BaseException) -> BaseException:
    # When a server goes, hundreds of calls fail for one reason.
    while isinstance(failed, BaseExceptionGroup):
        failed = failed.exceptions[0]
    return failed
