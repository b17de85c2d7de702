"""What workers must know of their attempts, gathered by worker.

A worker's process has one link, and over it follows each attempt that it has begun: it hears of inputs, and of an end
that is not its own. An attempt costs nothing here between two pieces of news, however many there are.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import anyio

from wakeq_control.model import Input, Task
from wakeq_control.tasks import Tasks

DELETED = "deleted"
RETRIED = "retried"
SUPERSEDED = "superseded"


class Begun(NamedTuple):
    """What a worker is told of an attempt that it begins, or goes on with."""

    attempt: int
    context: Any
    """What the session has kept of the service's last task."""
    inputs: list[Input]
    """Those that were sent so far."""


def ended(task: Task | None, attempt: int) -> str | None:
    """Why an attempt is over: what its task has become, or that it has failed and another follows, or that another has
    taken the task from it; None: it isn't."""
    if task is None:
        return DELETED
    if task.finished_at is not None:
        return str(task.status)
    if task.attempt == attempt:
        return None
    return RETRIED if any(failure.attempt == attempt for failure in task.failures) else SUPERSEDED


class _Followed:
    """An attempt, and how many of its task's inputs its worker has been told."""

    __slots__ = ("attempt", "shown", "task_id")

    def __init__(self, task_id: str, attempt: int, shown: int) -> None:
        self.task_id = task_id
        self.attempt = attempt
        self.shown = shown


class Link:
    """One worker's."""

    def __init__(self, worker: str, number: int, links: "Links") -> None:
        """Made by `Links`."""
        self.worker = worker
        self.number = number
        self._links = links
        self._followed: dict[int, _Followed] = {}
        """By the numbers that the worker has for its attempts."""
        self._changed: set[int] = set()
        self._something = anyio.Event()

    def attempt(self, ref: int, task_id: str) -> int | None:
        """The number of the attempt that has begun under this one of the worker's, if that was at this task."""
        found = self._followed.get(ref)
        return found.attempt if found is not None and found.task_id == task_id else None

    def follow(self, ref: int, task: Task, attempt: int) -> None:
        """Tell what becomes of an attempt from now on."""
        self.forget(ref)
        self._followed[ref] = _Followed(task.id, attempt, len(task.inputs))
        self._links.add(task.id, self, ref)

    def forget(self, ref: int) -> None:
        """The attempt is over, as its worker knows."""
        followed = self._followed.pop(ref, None)
        if followed is not None:
            self._links.remove(followed.task_id, self, ref)

    def close(self) -> None:
        """The worker hears of nothing any more."""
        for ref in list(self._followed):
            self.forget(ref)
        self._links.closed(self)

    def changed(self, ref: int) -> None:
        """Something has become of its task."""
        if self._news_of(ref):
            self._changed.add(ref)
            self._something.set()

    async def news(self) -> list[dict[str, Any]]:
        """What the worker must know and wasn't told, as soon as there is something and it is stored."""
        while not self._changed:
            self._something = anyio.Event()
            await self._something.wait()
        changed, self._changed = self._changed, set()
        found = {ref: self._news_of(ref) for ref in sorted(changed)}
        try:
            await self._links.settled()
        except BaseException:
            # Nothing of it was told.
            self._changed |= changed
            raise
        for ref, lines in found.items():
            self._told(ref, lines)
        return [line for lines in found.values() for line in lines]

    def _news_of(self, ref: int) -> list[dict[str, Any]]:
        followed = self._followed.get(ref)
        if followed is None:
            return []
        task = self._links.tasks.find(followed.task_id)
        lines: list[dict[str, Any]] = [] if task is None else numbered(ref, task.inputs, followed.shown)
        why = ended(task, followed.attempt)
        return lines if why is None else [*lines, {"ref": ref, "ended": why}]

    def _told(self, ref: int, lines: list[dict[str, Any]]) -> None:
        followed = self._followed.get(ref)
        # It may have ended by its own word meanwhile.
        if followed is not None:
            followed.shown += sum("event" in line for line in lines)
            if any("ended" in line for line in lines):
                self.forget(ref)


def numbered(ref: int, inputs: Sequence[Input], shown: int = 0) -> list[dict[str, Any]]:
    """Inputs behind the first ``shown`` as a worker is told of them."""
    return [
        {"ref": ref, "number": number, "event": one.event, "after": one.after}
        for number, one in enumerate(inputs[shown:], shown + 1)
    ]


class Links:
    """Those of all workers."""

    def __init__(self, tasks: Tasks, settled: Callable[[], Awaitable[None]]) -> None:
        """``settled`` returns when everything that has been decided is stored."""
        self.tasks = tasks
        self.settled = settled
        self._links: dict[tuple[str, int], Link] = {}
        self._followers: dict[str, set[tuple[Link, int]]] = {}
        """By task."""
        self.left: Callable[[], None] = lambda: None
        """Told of each link that was closed."""

    def open(self, worker: str, number: int) -> Link:
        """A new link, in the place of one that the worker may have had under that number."""
        link = self._links[(worker, number)] = Link(worker, number, self)
        return link

    def find(self, worker: str, number: int) -> Link | None:
        """The link, unless it has been closed."""
        return self._links.get((worker, number))

    def closed(self, link: Link) -> None:
        """Nobody is to find it any more."""
        name = (link.worker, link.number)
        # Another may have taken its place.
        if self._links.get(name) is link:
            del self._links[name]
        self.left()

    def follows(self, task_id: str) -> bool:
        """Whether a worker is there that has begun the task."""
        return task_id in self._followers

    def add(self, task_id: str, link: Link, ref: int) -> None:
        """An attempt at a task is followed."""
        self._followers.setdefault(task_id, set()).add((link, ref))

    def remove(self, task_id: str, link: Link, ref: int) -> None:
        """It is followed no more."""
        others = self._followers[task_id]
        others.discard((link, ref))
        if not others:
            del self._followers[task_id]

    def wake(self, task_id: str) -> None:
        """Something has become of a task, and is stored."""
        for link, ref in self._followers.get(task_id, ()):
            link.changed(ref)
