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
import time
from collections.abc import Sequence
from typing import Any

from _client import Queue
from _output import say_json

TOPIC = "load"

_DIGITS = 12
_STALLED_S = 10.0
# Unacked messages beyond which publishers wait: what a queue holds must not grow with the window.
_AHEAD_BATCHES = 8
_AHEAD_MIN = 1_000


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
        await queue.publish_many(TOPIC, bodies)
        numbers.add_published(len(bodies))


async def publish_singly(queue: Queue, numbers: Numbers) -> None:
    """Publish one message after the other."""
    while bodies := await numbers.next_bodies(1):
        await queue.publish(TOPIC, bodies[0])
        numbers.add_published(1)


async def consume_batches(queue: Queue, numbers: Numbers, batch: int) -> None:
    """Take up to a batch, ack it, and so on."""
    consumer = await queue.consumer(TOPIC)
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
        async for token, body in queue.deliveries(TOPIC, prefetch):
            numbers.take_in([body])
            await unacked.acquire()
            acks.create_task(ack(token))


async def load(queue: Queue, options: argparse.Namespace) -> None:
    """Warm up, measure, and wait until the last message is acked."""
    await queue.create(TOPIC)
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
