"""Which of many timed collections is due next.

A deadline per message in one heap would keep every settled lease in memory until it would have run out: at
20,000 claims a second and 30 s leases, 600,000 dead entries. So the heap holds one entry a *collection* (all
leases of one length in a group end in the order they began; all delays of a group are a heap of their own), and
an entry that proves early costs one look, once. An entry that is no longer in force holds nothing but two numbers: a
topic that is dropped isn't kept in memory for the year that its messages had to live.
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
        self._heap: list[tuple[float, int]] = []
        self._registered: dict[Timed, tuple[float, int]] = {}
        self._by_number: dict[int, Timed] = {}
        """The entries in force."""
        self._numbers = itertools.count()

    def touch(self, timed: Timed) -> None:
        """Take note that a collection has a new element; cheap when its head hasn't moved forward."""
        head = timed.head()
        if head is None:
            return
        known = self._registered.get(timed)
        if known is None or head < known[0]:
            self.forget(timed)
            number = next(self._numbers)
            self._registered[timed] = (head, number)
            self._by_number[number] = timed
            heapq.heappush(self._heap, (head, number))

    def forget(self, timed: Timed) -> None:
        """A collection is gone, whatever it holds."""
        known = self._registered.pop(timed, None)
        if known is not None:
            del self._by_number[known[1]]

    def due(self, now: float) -> Iterator[Timed]:
        """The collections that may have something due; each is looked at again afterwards."""
        while self._heap and self._heap[0][0] <= now:
            _, number = heapq.heappop(self._heap)
            timed = self._by_number.get(number)
            if timed is None:
                continue
            self.forget(timed)
            yield timed
            self.touch(timed)

    def next(self) -> float | None:
        """When to look again; None where nothing is timed."""
        while self._heap and self._heap[0][1] not in self._by_number:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
