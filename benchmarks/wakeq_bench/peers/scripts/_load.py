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

from _bodies import body_of, number_of
from _client import Queue
from _consuming import consume_singly
from _output import say_json

TOPIC = "load"

_STALLED_S = 10.0
# What publishers may be ahead of consumers by, where nothing else is said.
_AHEAD_BATCHES = 8
_AHEAD_MIN = 1_000
_AHEAD_MAX_BYTES = 64_000_000


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the job is told."""
    parser.add_argument("--batch", type=int, default=1, help="messages a request")
    parser.add_argument(
        "--in-flight", type=int, default=1, help="publishes at a time, and as many consumers of batches"
    )
    parser.add_argument("--singly", action="store_true", help="publish and ack each message by a call of its own")
    parser.add_argument(
        "--ahead", type=int, default=0, help="unacked messages beyond which publishers wait: a queue must not fill up"
    )
    parser.add_argument("--size", type=int, default=100, help="bytes of a message")
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds before the window")
    parser.add_argument("--seconds", type=float, default=5.0)


class Numbers:
    """Which messages have been published and which acked."""

    def __init__(self, size: int, ahead: int) -> None:
        self._size = size
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
        return [body_of(number, self._size) for number in range(first, first + count)]

    def add_published(self, count: int) -> None:
        """So many were confirmed."""
        self.published += count

    def take_in(self, bodies: Sequence[bytes | str]) -> None:
        """These were delivered."""
        for body in bodies:
            self._times[number_of(body)] += 1

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


async def load(queue: Queue, options: argparse.Namespace) -> None:
    """Warm up, measure, and wait until the last message is acked."""
    await queue.create(TOPIC)
    batch = 1 if options.singly else options.batch
    numbers = Numbers(options.size, options.ahead or _usual_ahead(batch * options.in_flight, options.size))
    if options.singly:

        def taken(body: bytes | str) -> None:
            numbers.take_in([body])

        publishers = [publish_singly(queue, numbers) for _ in range(options.in_flight)]
        consumers = [consume_singly(queue, TOPIC, options.in_flight, taken, lambda: numbers.add_acked(1))]
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


def _usual_ahead(at_once: int, size: int) -> int:
    """All that is published at once has room in any case."""
    return max(at_once, min(max(_AHEAD_MIN, _AHEAD_BATCHES * at_once), _AHEAD_MAX_BYTES // size))


async def _window(numbers: Numbers, seconds: float) -> None:
    say_json({"opened": True})
    acked, started, cpu = numbers.acked, time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    found = {"in_window": numbers.acked - acked, "seconds": time.perf_counter() - started}
    say_json({**found, "cpu_s": time.process_time() - cpu})
