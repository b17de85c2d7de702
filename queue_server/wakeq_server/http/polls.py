"""Telling normal waiting from tight polling: who gets empty answers, and how often."""

from collections import OrderedDict

from wakeq_server.settings import TIGHT_POLLS_PER_S

_WATCHED_MAX = 10_000


class PollWatch:
    """Counts empty answers, and notices whoever asks more than `TIGHT_POLLS_PER_S` times a second.

    A consumer is a client address and a topic: unmodified clients make a connection a request, so a port says
    nothing.
    """

    def __init__(self) -> None:
        self.empty = 0
        self.tight = 0
        self._seconds: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()
        self._noticed: set[tuple[str, str]] = set()

    def empty_answer(self, address: str, topic: str, now: float) -> bool:
        """Count one; True the first time that a consumer turns out to poll tightly."""
        self.empty += 1
        consumer, second = (address, topic), int(now)
        began, count = self._seconds.get(consumer, (second, 0))
        count = count + 1 if began == second else 1
        self._seconds[consumer] = (second, count)
        if len(self._seconds) > _WATCHED_MAX:
            self._noticed.discard(self._seconds.popitem(last=False)[0])
        if count <= TIGHT_POLLS_PER_S:
            return False
        self.tight += 1
        if consumer in self._noticed:
            return False
        self._noticed.add(consumer)
        return True
