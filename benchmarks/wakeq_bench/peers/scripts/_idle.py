"""Consumers that wait while nothing is published, each on a topic of its own.

Prints READY when each has been seen to wait. SIGUSR1 has it publish to one of them, and is answered by a record of the
seconds until its handler had the message; SIGUSR2 by one of how many requests were made so far, where the client tells.
Ends on SIGTERM.

Run by the python of a peer's environment: the standard library only.
"""

# mypy: disable-error-code="import-not-found"

import argparse
import asyncio
import signal
import time

from _bodies import body_of
from _client import Queue
from _consuming import consume_singly
from _output import say, say_json

_SIZE = 100
# As many are started before one of them is woken: a server's backlog must not overflow.
_AT_ONCE = 100


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the job is told."""
    parser.add_argument("--consumers", type=int, required=True)


class Waiters:
    """Topics with a consumer each."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._came: asyncio.Queue[float] = asyncio.Queue()
        self._next = 0

    async def wait(self, number: int) -> None:
        """Be one of the consumers."""
        await consume_singly(self._queue, _topic(number), 1, lambda _: self._came.put_nowait(time.perf_counter()))

    async def wake(self, number: int) -> float:
        """Publish to one of them; seconds until it has the message."""
        started = time.perf_counter()
        publishing = asyncio.create_task(self._queue.publish(_topic(number), body_of(number, _SIZE)))
        came = await self._came.get()
        await publishing
        return came - started

    async def wake_next(self, count: int) -> None:
        """Wake one after the other, and say how long it took."""
        number, self._next = self._next % count, self._next + 1
        say_json({"woken_s": await self.wake(number)})


async def idle(queue: Queue, options: argparse.Namespace) -> None:
    """Start them, and wait."""
    waiters, count = Waiters(queue), options.consumers
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        for first in range(0, count, _AT_ONCE):
            numbers = range(first, min(first + _AT_ONCE, count))
            for number in numbers:
                await queue.create(_topic(number))
                tasks.create_task(waiters.wait(number))
            await waiters.wake(numbers[-1])
        loop.add_signal_handler(signal.SIGUSR1, lambda: tasks.create_task(waiters.wake_next(count)))
        loop.add_signal_handler(signal.SIGUSR2, lambda: say_json({"requests": queue.requests}))
        say("READY")


def _topic(number: int) -> str:
    return f"topic-{number}"
