"""One look at all topics: totals, and which are the busiest.

Nothing is kept for it between two looks. With very many topics it takes a while, so it can be done in parts.
"""

import heapq
from collections.abc import Iterable

from wakeq_server.core.model import Overview
from wakeq_server.core.topic import Topic


class Survey:
    """What has been seen so far."""

    def __init__(self, limit: int, now: float) -> None:
        """``limit``: how many of the busiest are wanted."""
        self._limit = limit
        self._now = now
        self._busiest: list[tuple[float, int, int, Topic]] = []
        self._least = 0.0
        """A topic less busy than that isn't among them."""
        self._short_of_keys: dict[str, int] = {}
        self._topics = self._messages = self._bytes = 0
        self._ready = self._delayed = self._leased = self._dead = 0

    def look(self, topics: Iterable[Topic]) -> None:
        """Look at some more; it costs least when those that are likely to be busy come first."""
        for topic in topics:
            if not topic.dropping and not topic.gone:
                self._count(topic)

    def _count(self, topic: Topic) -> None:
        self._topics += 1
        self._messages += topic.held_messages
        self._bytes += topic.held_bytes
        self._dead += topic.dead_letters
        for group in topic.groups.values():
            self._ready += group.ready
            self._delayed += group.delayed
            self._leased += group.leased
        if topic.dedup is not None and topic.dedup.shortened:
            self._short_of_keys[topic.name] = topic.dedup.shortened
        busy = topic.busy(self._now)
        if busy >= self._least:
            self._place(topic, busy)

    def _place(self, topic: Topic, busy: float) -> None:
        # Of those without traffic, the ones with a backlog; the id decides, since topics have no order.
        place = (busy, topic.held_messages, -topic.id, topic)
        if len(self._busiest) < self._limit:
            heapq.heappush(self._busiest, place)
        elif self._busiest and place > self._busiest[0]:
            heapq.heapreplace(self._busiest, place)
        if len(self._busiest) == self._limit > 0:
            self._least = self._busiest[0][0]

    @property
    def busiest(self) -> list[Topic]:
        """The busiest first."""
        return [place[-1] for place in sorted(self._busiest, reverse=True)]

    def overview(self) -> Overview:
        """What has been seen, the busiest topics apart."""
        short = sorted(self._short_of_keys, key=self._short_of_keys.__getitem__, reverse=True)[: self._limit]
        return Overview(
            self._topics,
            self._messages,
            self._bytes,
            self._ready,
            self._delayed,
            self._leased,
            self._dead,
            short_of_keys={name: self._short_of_keys[name] for name in short},
        )
