"""The events of one task, each once and in order.

An event is known by its index. Messages that are delivered again may be overtaken by others, so one that is late holds
back those behind it, until it comes or the task ends. So a stream is the beginning of what was said, without a gap; and
all of it where the task has succeeded. Adding one and reading on cost the same however many there are.
"""

from bisect import insort
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from wakeq_control.codec import dump_line


@dataclass(frozen=True, slots=True)
class Event:
    """One event."""

    index: int
    data: dict[str, Any]
    line: bytes
    """``data`` as every watcher is sent it."""

    @classmethod
    def make(cls, index: int, data: dict[str, Any]) -> "Event":
        """With its line, which is ASCII as llama_deploy's is."""
        return cls(index, data, dump_line(data))

    def at(self, index: int) -> "Event":
        """The same in another stream."""
        return Event(index, self.data, self.line)


class Stream:
    """What a task has said so far."""

    __slots__ = ("_closed", "_held", "_indices", "arrived", "bytes", "ready")

    def __init__(self) -> None:
        self.arrived: list[Event] = []
        """As they came."""
        self.ready: list[Event] = []
        """By index; what watchers may see."""
        self.bytes = 0
        """Of the lines of all that have come."""
        self._indices: set[int] = set()
        self._held: dict[int, Event] = {}
        self._closed = False

    def has(self, index: int) -> bool:
        """Whether the event with that index has come."""
        return index in self._indices

    def add(self, event: Event) -> bool:
        """Take an event; False where it is here already."""
        if event.index in self._indices:
            return False
        self._indices.add(event.index)
        self.arrived.append(event)
        self.bytes += len(event.line)
        if self._closed:
            # Too late for those who watched; whoever looks from now on sees it in its place.
            insort(self.ready, event, key=attrgetter("index"))
            return True
        self._held[event.index] = event
        while (following := self._held.pop(len(self.ready), None)) is not None:
            self.ready.append(following)
        return True

    def close(self) -> None:
        """The task has come to its own end: nothing is waited for."""
        self.ready += (self._held[index] for index in sorted(self._held))
        self._held = {}
        self._closed = True

    def cut(self) -> None:
        """The task has ended before its time: what is on its way never comes, and what is behind a gap is dropped."""
        if self._held:
            self.arrived = [event for event in self.arrived if event.index not in self._held]
        self._held = {}
        self._closed = True
