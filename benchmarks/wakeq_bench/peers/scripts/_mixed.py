"""A day of a deployment of agents: clients, a control plane and services that talk through the queue.

A task goes from a client to the control plane, from there to one service after the other, each of which answers the
control plane with events and a result, and in the end back to the client: llama_deploy's way. Prints a record when the
day begins, one when its night is over, and one of what was found. Ends on SIGTERM.

Run by the python of a peer's environment: the standard library only.
"""

# mypy: disable-error-code="import-not-found"

import argparse
import asyncio
import contextlib
import math
import time
from collections.abc import Callable

from _bodies import body_of, number_of
from _client import Queue
from _consuming import consume_singly
from _day import SERVICES, Task, day, morning_s
from _due import microseconds, until
from _output import say_json

CONTROL, CLIENT = "control", "client"

_PREFETCH = 20
_PATIENCE_S = 10.0
_LEAD_S = 0.005
_SMALL = 100
_CALLS_MAX = 100


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the job is told."""
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--tasks", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="length of the day")


class Post:
    """Messages on their way, by number; what is to happen when one has come."""

    def __init__(self, queue: Queue, tasks: asyncio.TaskGroup) -> None:
        self._queue = queue
        self._tasks = tasks
        self._calls = asyncio.Semaphore(_CALLS_MAX)
        self._on_its_way: dict[int, tuple[float, Callable[[], None]]] = {}
        self._sent = 0
        self._hops_s: list[float] = []
        self.doubled = 0

    def send(self, topic: str, size: int, then: Callable[[], None], since: float | None = None) -> None:
        """Publish, and go on; its time counts from `since`, or from now."""
        number, self._sent = self._sent, self._sent + 1
        self._on_its_way[number] = (since or time.perf_counter(), then)
        self._tasks.create_task(self._publish(topic, body_of(number, size)))

    async def _publish(self, topic: str, body: str) -> None:
        async with self._calls:
            await self._queue.publish(topic, body)

    def take_in(self, body: bytes | str) -> None:
        """One has come."""
        found = self._on_its_way.pop(number_of(body), None)
        if found is None:
            self.doubled += 1
            return
        since, then = found
        self._hops_s.append(time.perf_counter() - since)
        then()

    def begin(self) -> None:
        """What has come so far does not count."""
        self._hops_s.clear()

    @property
    def hops_s(self) -> list[float]:
        """What messages took; those that have not come as it stands now."""
        now = time.perf_counter()
        return [*self._hops_s, *(now - since for since, _ in self._on_its_way.values())]


class Deployment:
    """The control plane and the services."""

    def __init__(self, post: Post, tasks: asyncio.TaskGroup, expected: int) -> None:
        self._post = post
        self._tasks = tasks
        self._expected = expected
        self._all_done = asyncio.Event()
        self._open: dict[float, Task] = {}
        self._waited_s: list[float] = []

    def begin(self, task: Task, due: float) -> None:
        """A client's task."""
        while due in self._open:
            # What the clock starts comes all at once, and a due moment is a task's name here.
            due = math.nextafter(due, math.inf)
        self._open[due] = task
        self._post.send(CONTROL, task.steps[0].size, lambda: self._go_on(task, due, 0), since=due)

    def _go_on(self, task: Task, due: float, number: int) -> None:
        if number == len(task.steps):
            self._post.send(CLIENT, task.steps[-1].size, lambda: self._end(task, due))
            return
        step = task.steps[number]

        def work() -> None:
            self._tasks.create_task(self._work(task, due, number))

        self._post.send(f"service-{step.service}", step.size, work)

    async def _work(self, task: Task, due: float, number: int) -> None:
        step = task.steps[number]
        for _ in range(step.events):
            await asyncio.sleep(step.think_s / (step.events + 1))
            self._post.send(CONTROL, _SMALL, lambda: None)
        await asyncio.sleep(step.think_s / (step.events + 1))
        self._post.send(CONTROL, step.size, lambda: self._go_on(task, due, number + 1))

    def _end(self, task: Task, due: float) -> None:
        del self._open[due]
        self._waited_s.append(time.perf_counter() - due - task.think_s)
        if len(self._waited_s) == self._expected:
            self._all_done.set()

    @property
    def unfinished(self) -> int:
        """Tasks without an answer."""
        return len(self._open)

    @property
    def waited_s(self) -> list[float]:
        """What tasks have waited, beyond what services took; those without an answer as it stands now."""
        now = time.perf_counter()
        return [*self._waited_s, *(max(0.0, now - due - task.think_s) for due, task in self._open.items())]

    async def all_done(self) -> None:
        """Wait for the last answer, though not for ever."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_done.wait(), _PATIENCE_S)


async def mixed(queue: Queue, options: argparse.Namespace) -> None:
    """Live through the day."""
    plan = day(options.seed, options.tasks, options.seconds)
    topics = [CONTROL, CLIENT, *(f"service-{number}" for number in range(SERVICES))]
    async with asyncio.TaskGroup() as tasks:
        post = Post(queue, tasks)
        deployment = Deployment(post, tasks, len(plan))
        for topic in topics:
            await queue.create(topic)
            tasks.create_task(consume_singly(queue, topic, _PREFETCH, post.take_in))
            await _seen(post, topic)
        post.begin()
        say_json({"opened": True})
        midnight = time.perf_counter() + _LEAD_S
        tasks.create_task(_say_when(midnight + morning_s(options.seconds)))
        for task in plan:
            await until(midnight + task.due_s)
            deployment.begin(task, midnight + task.due_s)
        await until(midnight + options.seconds)
        await deployment.all_done()
        say_json(
            {
                "hops_us": [microseconds(one) for one in post.hops_s],
                "waited_us": [microseconds(one) for one in deployment.waited_s],
                "unfinished": deployment.unfinished,
                "doubled": post.doubled,
            }
        )


async def _seen(post: Post, topic: str) -> None:
    # Everybody waits before the day begins.
    came = asyncio.Event()
    post.send(topic, _SMALL, came.set)
    await came.wait()


async def _say_when(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.perf_counter()))
    say_json({"morning": True})
