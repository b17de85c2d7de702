"""A set of integers as runs of consecutive ones: what a backlog in the store costs in memory."""

from bisect import bisect_right
from collections.abc import Iterator

_SPENT_MAX = 64


class Runs:
    """Disjoint runs, in order. Cheap where members come at the end and go at the front."""

    __slots__ = ("_firsts", "_lasts", "_spent", "count")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self._spent = 0
        """How many runs at the front have no members left: taking one out of a list moves all behind it."""
        self.count = 0

    def __contains__(self, member: int) -> bool:
        place = self._place(member)
        return place >= self._spent and member <= self._lasts[place]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._firsts[self._spent :], self._lasts[self._spent :], strict=True)

    def _place(self, member: int) -> int:
        """Of the last run that begins at or before it; in front of all that are left where there is none."""
        return bisect_right(self._firsts, member, self._spent) - 1

    def append(self, first: int, last: int) -> None:
        """Add a run behind all others."""
        if len(self._lasts) > self._spent and self._lasts[-1] == first - 1:
            self._lasts[-1] = last
        else:
            self._firsts.append(first)
            self._lasts.append(last)
        self.count += last - first + 1

    def discard(self, member: int) -> None:
        """Take one out."""
        place = self._place(member)
        if place < self._spent or member > self._lasts[place]:
            return
        self.count -= 1
        first, last = self._firsts[place], self._lasts[place]
        if first == last:
            self._drop(place)
        elif member == first:
            self._firsts[place] = member + 1
        elif member == last:
            self._lasts[place] = member - 1
        else:
            self._lasts[place] = member - 1
            self._firsts.insert(place + 1, member + 1)
            self._lasts.insert(place + 1, last)

    def _drop(self, place: int) -> None:
        if place > self._spent:
            del self._firsts[place], self._lasts[place]
            return
        self._spent += 1
        if self._spent > max(_SPENT_MAX, len(self._firsts) // 2):
            del self._firsts[: self._spent], self._lasts[: self._spent]
            self._spent = 0

    def first_from(self, member: int) -> int | None:
        """The lowest that is not below ``member``."""
        place = self._place(member)
        if place >= self._spent and member <= self._lasts[place]:
            return member
        return self._firsts[place + 1] if place + 1 < len(self._firsts) else None

    def count_below(self, member: int) -> int:
        """How many are below ``member``."""
        return sum(min(last, member - 1) - first + 1 for first, last in self if first < member)
