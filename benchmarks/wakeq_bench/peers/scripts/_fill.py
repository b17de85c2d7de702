"""Messages published until there are so many, each confirmed; nobody consumes. Ends on SIGTERM.

Run by the python of a peer's environment: the standard library only.
"""

# mypy: disable-error-code="import-not-found"

import argparse
import asyncio
import time

from _bodies import body_of
from _client import Queue
from _output import say_json

TOPIC = "stored"

_AT_A_TIME = 100
_BATCHES_IN_FLIGHT = 4
_CALLS_IN_FLIGHT = 100


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the job is told."""
    parser.add_argument("--messages", type=int, required=True, help="none makes the topic alone, which is there then")
    parser.add_argument("--size", type=int, default=1_000, help="bytes of a message")
    parser.add_argument("--singly", action="store_true", help="the client has no batches")


async def fill(queue: Queue, options: argparse.Namespace) -> None:
    """Publish them all."""
    if not options.messages:
        await queue.create(TOPIC)
    step = 1 if options.singly else _AT_A_TIME
    starts = iter(range(0, options.messages, step))

    async def publish() -> None:
        for first in starts:
            bodies = [body_of(number, options.size) for number in range(first, min(first + step, options.messages))]
            if options.singly:
                await queue.publish(TOPIC, bodies[0])
            else:
                await queue.publish_many(TOPIC, bodies)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(_CALLS_IN_FLIGHT if options.singly else _BATCHES_IN_FLIGHT):
            tasks.create_task(publish())
    say_json({"filled": options.messages, "seconds": time.perf_counter() - started})
    await asyncio.Event().wait()
