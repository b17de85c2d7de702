"""Messages published at one rate after the other, and one consumer that takes and acks them.

Prints a record a rate: microseconds from when each message was due until its handler had it. What has not come some
seconds after the last was due counts as it stands then; the rates behind are left out, which would find its backlog.
Ends on SIGTERM.

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

TOPIC = "latency"

_PREFETCH = 100
_PATIENCE_S = 5.0
_LEAD_S = 0.005


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the job is told."""
    parser.add_argument("--rates", type=float, nargs="+", required=True, help="messages a second, ascending")
    parser.add_argument("--size", type=int, default=100, help="bytes of a message")
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds in which nothing counts yet, at each rate")
    parser.add_argument("--seconds", type=float, default=5.0)


class Window:
    """The messages of one rate: when each is due, was sent, and came."""

    def __init__(self, first: int, rate: float, seconds: float) -> None:
        start = time.perf_counter() + _LEAD_S
        self.first = first
        self.due = [start + number / rate for number in range(max(1, round(rate * seconds)))]
        self.late_s = [0.0] * len(self.due)
        self._came_s: list[float | None] = [None] * len(self.due)
        self._missing = len(self.due)
        self._all_came = asyncio.Event()
        self.doubled = 0

    def take_in(self, body: bytes | str) -> None:
        """One has come."""
        at, number = time.perf_counter(), number_of(body) - self.first
        if number < 0:
            return
        if self._came_s[number] is not None:
            self.doubled += 1
            return
        self._came_s[number] = at - self.due[number]
        self._missing -= 1
        if not self._missing:
            self._all_came.set()

    async def all_came(self) -> None:
        """Wait for them all, though not for ever."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_came.wait(), _PATIENCE_S)

    def record(self, rate: float, warm_up_s: float) -> dict[str, object]:
        """What was found, without the first moments."""
        now, first = time.perf_counter(), min(round(rate * warm_up_s), len(self.due) - 1)
        came_s = [now - due if came is None else came for due, came in zip(self.due, self._came_s, strict=True)]
        return {
            "rate": rate,
            "came_us": [microseconds(came) for came in came_s[first:]],
            "late_us": [microseconds(late) for late in self.late_s[first:]],
            "behind": self._missing,
            "doubled": self.doubled,
        }


async def latency(queue: Queue, options: argparse.Namespace) -> None:
    """Measure one rate after the other."""
    await queue.create(TOPIC)
    windows: list[Window] = []
    in_flight = asyncio.Semaphore(IN_FLIGHT_MAX)

    def taken(body: bytes | str) -> None:
        windows[-1].take_in(body)

    async def publish(body: str) -> None:
        await queue.publish(TOPIC, body)
        in_flight.release()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(consume_singly(queue, TOPIC, _PREFETCH, taken))
        for rate in options.rates:
            first = windows[-1].first + len(windows[-1].due) if windows else 0
            window = Window(first, rate, options.warm_up + options.seconds)
            windows.append(window)
            for number, due in enumerate(window.due):
                await until(due)
                await in_flight.acquire()
                window.late_s[number] = time.perf_counter() - due
                tasks.create_task(publish(body_of(first + number, options.size)))
            await window.all_came()
            record = window.record(rate, options.warm_up)
            say_json(record)
            if record["behind"]:
                break
        say_json({"finished": True})
