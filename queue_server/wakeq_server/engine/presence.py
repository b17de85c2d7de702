"""Who is there: consumers that have a request open, or had one a moment ago. And who is told when they come and go.

Between two polls a consumer has no open request, and a stream that breaks is opened again. So a consumer is present
from its first open request on until it has had none for a grace: 5 s after a poll, after a stream what that had asked
for, and of several the one that ends last. A request that is answered at once makes nobody present, but is a sign of
life: who is present then has its grace anew.

What it costs: a count up and a count down a parked request, whoever else is parked; one object a consumer; nothing for
those that are gone. The ends of graces are in one heap, at most one entry a consumer, which is looked at when its time
comes rather than moved with every poll. The earliest is the engine's to wait for.

Who watches has a backlog, and one that is full is dropped as a whole: a slow watcher pins no memory, and learns how
things stand by connecting again.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import anyio

from wakeq_server.core.model import Consumer, ConsumerInfo, PresenceEvent, PresenceKind
from wakeq_server.core.topic import Group
from wakeq_server.engine.base import Attend
from wakeq_server.engine.clocks import Clocks
from wakeq_server.errors import BacklogOverflow, ConsumerGone, Draining, fresh

if TYPE_CHECKING:
    from wakeq_server.engine.dealing import EmbeddedSubscription

POLL_GRACE_S = 5.0
"""How long a consumer whose poll has ended may take to ask again."""
BACKLOG_MAX = 10_000
"""Events kept for one watcher."""


class Presence:
    """One consumer in one group."""

    # Names, not the group: whoever holds a presence must not hold a deleted topic's messages with it.
    __slots__ = ("address", "ends", "gone", "group", "id", "parked", "since", "streams", "timed", "topic")

    def __init__(self, topic: str, group: str, consumer: Consumer, since: float) -> None:
        self.topic = topic
        self.group = group
        self.id = consumer.id
        self.address = consumer.address
        """Where it asked from last."""
        self.since = since
        self.parked = 0
        self.streams: dict[EmbeddedSubscription, None] | None = None
        """None before the first one: most never have any."""
        self.ends = 0.0
        """When the grace is over, should it be over."""
        self.timed = False
        """Whether it has an entry among the ends of graces."""
        self.gone = False

    @property
    def open(self) -> bool:
        """Whether it has a request open."""
        return self.parked > 0 or bool(self.streams)

    def describe(self) -> ConsumerInfo:
        """As it stands."""
        streams = self.streams or ()
        in_flight = sum(len(stream.in_flight) for stream in streams)
        return ConsumerInfo(self.id, self.address, self.group, self.since, self.parked, len(streams), in_flight)


class Presences:
    """All consumers that are present, and all watchers."""

    def __init__(self, clocks: Clocks, due: Callable[[float], None]) -> None:
        """``due`` is told of a moment by which `tick` must be called."""
        self._clocks = clocks
        self._due = due
        self._present: dict[tuple[str, str], dict[str, Presence]] = {}
        self._ends: list[tuple[float, int, Presence]] = []
        self._ties = itertools.count()
        self._watches: dict[Watch, None] = {}
        self._number = 0
        self._draining = False

    # Requests

    def asked(self, group: Group, consumer: Consumer) -> None:
        """A poll was answered at once."""
        present = self._present.get((group.topic.name, group.name))
        presence = None if present is None else present.get(consumer.id)
        if presence is not None:
            self._grant(presence, POLL_GRACE_S)

    def park(self, group: Group, consumer: Consumer) -> Presence:
        """A poll is parked."""
        presence = self._appear(group, consumer)
        presence.parked += 1
        return presence

    def unpark(self, presence: Presence) -> None:
        """That poll is over."""
        presence.parked -= 1
        self._grant(presence, POLL_GRACE_S)

    def open_stream(self, stream: "EmbeddedSubscription", consumer: Consumer) -> Presence:
        """A stream is open."""
        presence = self._appear(stream.group, consumer)
        presence.streams = presence.streams or {}
        presence.streams[stream] = None
        return presence

    def close_stream(self, presence: Presence, stream: "EmbeddedSubscription", grace_s: float) -> None:
        """That stream is closed."""
        if presence.streams is not None:
            presence.streams.pop(stream, None)
        self._grant(presence, grace_s)

    def _appear(self, group: Group, consumer: Consumer) -> Presence:
        present = self._present.setdefault((group.topic.name, group.name), {})
        presence = present.get(consumer.id)
        if presence is None:
            presence = Presence(group.topic.name, group.name, consumer, self._clocks.wall())
            present[consumer.id] = presence
            self._tell_of("consumer.parked", presence)
        presence.address = consumer.address
        return presence

    def _grant(self, presence: Presence, grace_s: float) -> None:
        presence.ends = max(presence.ends, self._clocks.now() + grace_s)
        if not (presence.timed or presence.gone or presence.open):
            presence.timed = True
            heapq.heappush(self._ends, (presence.ends, next(self._ties), presence))
            self._due(presence.ends)

    # Time

    def next_end(self) -> float | None:
        """When the next grace is over; None where nobody is in one."""
        while self._ends:
            end, tie, presence = self._ends[0]
            if presence.open:
                heapq.heappop(self._ends)
                presence.timed = False
            elif presence.ends > end:
                heapq.heapreplace(self._ends, (presence.ends, tie, presence))
            else:
                return end
        return None

    def tick(self, now: float) -> None:
        """Whoever has been without a request for a whole grace is gone."""
        while (end := self.next_end()) is not None and end <= now:
            presence = heapq.heappop(self._ends)[2]
            present = self._present[presence.topic, presence.group]
            del present[presence.id]
            if not present:
                del self._present[presence.topic, presence.group]
            self._go(presence)

    # Topics and groups

    def topic_made(self, topic: str) -> None:
        """There is a new topic."""
        self.tell("topic.created", topic)

    def topic_gone(self, topic: str, groups: Iterable[str], *, was_made: bool) -> None:
        """A topic was deleted, or could not be made, and with it goes everybody's presence there."""
        for group in groups:
            self.group_gone(topic, group)
        if was_made:
            self.tell("topic.deleted", topic)

    def group_gone(self, topic: str, group: str) -> None:
        """A group was deleted, and with it everybody's presence there; their requests are about to be answered."""
        gone = self._present.pop((topic, group), {})
        timed = any(presence.timed for presence in gone.values())
        for presence in gone.values():
            self._go(presence)
        if timed:
            self._ends = [entry for entry in self._ends if not entry[2].gone]
            heapq.heapify(self._ends)

    def _go(self, presence: Presence) -> None:
        presence.gone = True
        self._tell_of("consumer.gone", presence)

    def describe(self, topic: str, group: str) -> list[ConsumerInfo]:
        """Who is present in a group."""
        return [presence.describe() for presence in self._present.get((topic, group), {}).values()]

    # Watchers

    def tell(
        self,
        kind: PresenceKind,
        topic: str,
        group: str | None = None,
        consumer: str | None = None,
        address: str | None = None,
    ) -> None:
        """Tell all who watch this topic; costs nothing while nobody watches."""
        if not self._watches:
            return
        self._number += 1
        event = PresenceEvent(self._number, kind, topic, group, consumer, address, self._clocks.wall())
        for watch in self._watches:
            watch.add(event)

    def _tell_of(self, kind: PresenceKind, presence: Presence) -> None:
        self.tell(kind, presence.topic, presence.group, presence.id, presence.address)

    def watch(self, topics: frozenset[str] | None) -> "Watch":
        """Watch these topics, or all of them, from now on until it is closed. Raises Draining."""
        if self._draining:
            raise Draining
        present = [
            presence
            for (topic, _), there in self._present.items()
            if topics is None or topic in topics
            for presence in there.values()
        ]
        watch = Watch(topics, present, self._number + 1, self._unwatch)
        self._number += len(present)
        self._watches[watch] = None
        return watch

    def _unwatch(self, watch: "Watch") -> None:
        self._watches.pop(watch, None)

    def drain(self) -> None:
        """End every watch."""
        self._draining = True
        for watch in self._watches:
            watch.end(Draining())


class Watch:
    """See `base.Watch`."""

    def __init__(
        self,
        topics: frozenset[str] | None,
        present: list[Presence],
        first_number: int,
        unwatch: "Callable[[Watch], None]",
    ) -> None:
        self._topics = topics
        self._present = present
        self._first_number = first_number
        self._unwatch = unwatch
        self._backlog: deque[PresenceEvent] = deque()
        self._ended: Draining | BacklogOverflow | None = None
        self._waiting: anyio.CancelScope | None = None

    def add(self, event: PresenceEvent) -> None:
        """Keep an event, and wake whoever waits for it."""
        if self._ended is not None or (self._topics is not None and event.topic not in self._topics):
            return
        if len(self._backlog) >= BACKLOG_MAX:
            self.end(BacklogOverflow())
            return
        self._backlog.append(event)
        self._wake()

    def end(self, why: Draining | BacklogOverflow) -> None:
        """Nothing more comes."""
        self._ended = why
        self._backlog.clear()
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()

    def snapshot(self) -> Iterator[PresenceEvent]:
        """See `base.Watch`."""
        present, self._present = self._present, []
        for number, presence in enumerate(present, self._first_number):
            yield PresenceEvent(
                number,
                "consumer.parked",
                presence.topic,
                presence.group,
                presence.id,
                presence.address,
                presence.since,
            )

    async def take(self, limit: int, attend: Attend) -> list[PresenceEvent]:
        """See `base.Watch`."""
        if not self._backlog and self._ended is None:
            await self._wait(attend)
        if self._ended is not None:
            raise fresh(self._ended)
        return [self._backlog.popleft() for _ in range(min(limit, len(self._backlog)))]

    async def _wait(self, attend: Attend) -> None:
        hung_up = False
        with anyio.CancelScope() as self._waiting:
            await attend()
            hung_up = True
        self._waiting = None
        if hung_up:
            raise ConsumerGone

    def close(self) -> None:
        """See `base.Watch`."""
        self._unwatch(self)
