"""Takes and acks what a topic holds, and counts what is missing or comes twice. Ends on SIGTERM.

Run by the python of a peer's environment: the standard library only.
"""

# mypy: disable-error-code="import-not-found"

import argparse
import asyncio
import contextlib
import time

from _bodies import number_of
from _client import Queue
from _consuming import consume_singly
from _fill import TOPIC
from _output import say_json

_AT_A_TIME = 100
_CONSUMERS = 4
_PREFETCH = 100
# Whoever has delivered nothing for so long has nothing more.
_STALLED_S = 15.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the job is told."""
    parser.add_argument("--messages", type=int, required=True)
    parser.add_argument("--singly", action="store_true", help="the client has no batches")


class Stored:
    """Which of the messages have come, how often, and when."""

    def __init__(self, messages: int) -> None:
        self._times = bytearray(messages)
        self._missing = messages
        self._started = time.perf_counter()
        self._changed = asyncio.Event()
        self._first_s = 0.0

    def take_in(self, body: bytes | str) -> None:
        """One has come."""
        if not self._first_s:
            self._first_s = time.perf_counter() - self._started
        number = number_of(body)
        self._missing -= not self._times[number]
        self._times[number] = min(255, self._times[number] + 1)
        self._changed.set()

    async def all_came(self) -> None:
        """Wait until none is missing, or nothing comes any more."""
        with contextlib.suppress(TimeoutError):
            while self._missing:
                self._changed.clear()
                await asyncio.wait_for(self._changed.wait(), _STALLED_S)

    def record(self) -> dict[str, object]:
        """What was found."""
        doubled = sum(times - 1 for times in self._times if times > 1)
        seconds = time.perf_counter() - self._started
        return {"first_s": self._first_s, "seconds": seconds, "lost": self._missing, "doubled": doubled}


async def drain(queue: Queue, options: argparse.Namespace) -> None:
    """Take what there is."""
    stored = Stored(options.messages)

    async def consume_batches() -> None:
        consumer = await queue.consumer(TOPIC)
        while True:
            taken = await consumer.take(_AT_A_TIME)
            for _, body in taken:
                stored.take_in(body)
            if taken:
                await consumer.ack([token for token, _ in taken])

    async with asyncio.TaskGroup() as tasks:
        if options.singly:
            tasks.create_task(consume_singly(queue, TOPIC, _PREFETCH, stored.take_in))
        else:
            for _ in range(_CONSUMERS):
                tasks.create_task(consume_batches())
        await stored.all_came()
        # Consumers go on until the process is terminated: not every client lets itself be cancelled.
        say_json(stored.record())
