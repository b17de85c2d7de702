"""Which of many timed collections is due next.

A deadline per message in one heap would keep every settled lease in memory until it would have run out: at
20,000 claims a second and 30 s leases, 600,000 dead entries. So the heap holds one entry a *collection* (all
leases of one length in a group end in the order they began; all delays of a group are a heap of their own), and
an entry that proves early costs one look, once.
"""

import heapq
import itertools
from collections.abc import Iterator
from typing import Protocol


class Timed(Protocol):
    """A collection that knows when its next element is due."""

    def head(self) -> float | None:
        """When the next element is due; None where there is none."""


class Deadlines:
    """The earliest deadline over all registered collections."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timed]] = []
        self._registered: dict[Timed, float] = {}
        self._ties = itertools.count()

    def touch(self, timed: Timed) -> None:
        """Take note that a collection has a new element; cheap when its head hasn't moved forward."""
        head = timed.head()
        if head is None:
            return
        known = self._registered.get(timed)
        if known is None or head < known:
            self._registered[timed] = head
            heapq.heappush(self._heap, (head, next(self._ties), timed))

    def due(self, now: float) -> Iterator[Timed]:
        """The collections that may have something due; each is looked at again afterwards."""
        while self._heap and self._heap[0][0] <= now:
            when, _, timed = heapq.heappop(self._heap)
            if self._registered.get(timed) != when:
                continue
            del self._registered[timed]
            yield timed
            self.touch(timed)

    def next(self) -> float | None:
        """When to look again; None where nothing is timed."""
        while self._heap and self._registered.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
