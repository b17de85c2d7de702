"""Every message to every group: one publisher at a rate, and a consumer a group.

Prints a record of microseconds from when each message was due: until a group had it, and until the last one had. Ends
on SIGTERM.

Run by the python of a peer's environment: the standard library only.
"""

# mypy: disable-error-code="import-not-found"

import argparse
import asyncio
import contextlib
import time

from _bodies import body_of, number_of
from _client import Queue
from _consuming import consume_singly
from _due import IN_FLIGHT_MAX, microseconds, until
from _output import say_json

TOPIC = "fanout"

_PREFETCH = 20
_PATIENCE_S = 5.0
_LEAD_S = 0.005
_PROBE_EVERY_S = 0.2
_PROBE = 0


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the job is told."""
    parser.add_argument("--groups", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="messages a second")
    parser.add_argument("--size", type=int, default=100, help="bytes of a message")
    parser.add_argument("--seconds", type=float, default=5.0)


class Copies:
    """Who has had which message; the first is a probe, published until everybody has had it."""

    def __init__(self, groups: int) -> None:
        self._groups = groups
        self._had: dict[tuple[int, int], float] = {}
        self._ready: set[int] = set()
        self._all_ready = asyncio.Event()
        self._all_came = asyncio.Event()
        self._expected = -1
        self.doubled = 0

    def take_in(self, group: int, body: bytes | str) -> None:
        """A group has a message."""
        at, number = time.perf_counter(), number_of(body)
        if number == _PROBE:
            self._ready.add(group)
            if len(self._ready) == self._groups:
                self._all_ready.set()
        elif (number, group) in self._had:
            self.doubled += 1
        else:
            self._had[number, group] = at
            self._look()

    async def all_ready(self, wait_s: float) -> bool:
        """Whether everybody has had a probe after so many seconds."""
        return await _within(self._all_ready, wait_s)

    async def all_came(self, messages: int, wait_s: float) -> None:
        """Wait until everybody has had so many messages, though not for ever."""
        self._expected = messages * self._groups
        self._look()
        await _within(self._all_came, wait_s)

    def _look(self) -> None:
        if len(self._had) == self._expected:
            self._all_came.set()

    def record(self, due: list[float]) -> dict[str, object]:
        """What was found; `due` is of the messages 1, 2, 3, ..."""
        now, each, last, behind = time.perf_counter(), [], [], 0
        for number, at in enumerate(due, 1):
            came = [self._had.get((number, group)) for group in range(self._groups)]
            behind += came.count(None)
            each += (waited := [(now if one is None else one) - at for one in came])
            last.append(max(waited))
        return {
            "each_us": [microseconds(one) for one in each],
            "last_us": [microseconds(one) for one in last],
            "behind": behind,
            "doubled": self.doubled,
        }


async def fanout(queue: Queue, options: argparse.Namespace) -> None:
    """Publish until everybody is there, and then at the rate."""
    names = [f"group-{number}" for number in range(options.groups)]
    await queue.create(TOPIC, names)
    copies, in_flight = Copies(options.groups), asyncio.Semaphore(IN_FLIGHT_MAX)

    async def consume(group: int) -> None:
        await consume_singly(queue, TOPIC, _PREFETCH, lambda body: copies.take_in(group, body), group=names[group])

    async def publish(number: int) -> None:
        await queue.publish(TOPIC, body_of(number, options.size))
        in_flight.release()

    async with asyncio.TaskGroup() as tasks:
        for group in range(options.groups):
            tasks.create_task(consume(group))
        while not await copies.all_ready(_PROBE_EVERY_S):
            await queue.publish(TOPIC, body_of(_PROBE, options.size))
        say_json({"opened": True})
        start = time.perf_counter() + _LEAD_S
        due = [start + number / options.rate for number in range(max(1, round(options.rate * options.seconds)))]
        for number, at in enumerate(due, 1):
            await until(at)
            await in_flight.acquire()
            tasks.create_task(publish(number))
        await copies.all_came(len(due), _PATIENCE_S)
        say_json(copies.record(due))


async def _within(event: asyncio.Event, seconds: float) -> bool:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()
