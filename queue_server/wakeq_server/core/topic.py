"""One topic and its groups: which message is next, and where every other one stands.

Messages that were never delivered are not listed anywhere: they are those from a group's ``cursor`` on, so a publish
costs the same with one group or a hundred. Only what is out of line has an entry in ``open``: leased, hidden, dead,
returned, or behind its key. In front of the cursor, what has no entry is done with.

Bodies may be in the store alone. A plain message then has no object either: a run of seqs stands for it and its
neighbours (``cold``).
"""

import heapq
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from wakeq_server.core.dedup import Dedup
from wakeq_server.core.leases import Lease, LeaseQueue
from wakeq_server.core.lifecycle import State
from wakeq_server.core.model import GroupInfo, Message, Push, TopicConfig, TopicInfo
from wakeq_server.core.rates import Rate
from wakeq_server.core.runs import Runs

if TYPE_CHECKING:
    from wakeq_server.core.transactions import Purge, PutTopic


class Dead(NamedTuple):
    """Why and when a message died."""

    reason: str | None
    attempt: int
    died: float
    died_at: float


SPENT_MAX = 64
"""Entries of a heap that are no longer in force, before it is looked at whether they outnumber the others."""
GAP_MIN = 16
"""Seqs without messages, from which on it is worth remembering where they end."""
GAPS_MAX = 1_000


class Due:
    """Seqs by a moment. An entry is in force while ``when`` says the same."""

    __slots__ = ("_heap", "owner", "when")

    def __init__(self, owner: "Group | Topic") -> None:
        self.owner = owner
        self.when: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self.when)

    def head(self) -> float | None:
        """When the next one is due; early where that one has been discarded."""
        return self._heap[0][0] if self._heap else None

    def add(self, seq: int, due: float) -> None:
        """Note a moment."""
        self.when[seq] = due
        heapq.heappush(self._heap, (due, seq))

    def discard(self, seq: int) -> None:
        """Forget it; its place in the heap is passed over when its time comes, or goes with many like it."""
        self.when.pop(seq, None)
        if len(self._heap) > SPENT_MAX + 2 * len(self.when):
            self._heap = [(due, seq) for seq, due in self.when.items()]
            heapq.heapify(self._heap)

    def clear(self) -> None:
        """Forget all."""
        self.when.clear()
        self._heap.clear()

    def pop_due(self, now: float) -> Iterator[int]:
        """Take out what is due."""
        while self._heap and self._heap[0][0] <= now:
            due, seq = heapq.heappop(self._heap)
            if self.when.get(seq) == due:
                del self.when[seq]
                yield seq


class Delays(Due):
    """A group's hidden messages."""


class Scheduled(Due):
    """A topic's messages that were published with a delay."""


class Expiries(Due):
    """A topic's messages that have a time to live."""


class DeadLetters:
    """A group's dead messages, in the order in which they died."""

    __slots__ = ("_by_seq", "group", "promised")

    def __init__(self, group: "Group") -> None:
        self.group = group
        self._by_seq: OrderedDict[int, Dead] = OrderedDict()
        self.promised: dict[int, None] = {}
        """Those that are being redriven or moved: the two must not meet."""

    def __len__(self) -> int:
        return len(self._by_seq)

    def __contains__(self, seq: int) -> bool:
        return seq in self._by_seq

    def __getitem__(self, seq: int) -> Dead:
        return self._by_seq[seq]

    def __iter__(self) -> Iterator[int]:
        return iter(self._by_seq)

    def head(self) -> float | None:
        """When the oldest is past its time."""
        oldest = self.oldest()
        return None if oldest is None else self._by_seq[oldest].died + self.group.topic.config.dead_ttl_s

    def oldest(self) -> int | None:
        """The one that died first, of those that aren't promised."""
        return next((seq for seq in self._by_seq if seq not in self.promised), None)

    def add(self, seq: int, dead: Dead) -> None:
        """Bury one."""
        self._by_seq[seq] = dead

    def pop(self, seq: int) -> Dead:
        """Take one out."""
        self.promised.pop(seq, None)
        return self._by_seq.pop(seq)

    def clear(self) -> None:
        """Take all out."""
        self.promised.clear()
        self._by_seq.clear()


class _NoDelays(Delays):
    """None, for ever."""

    __slots__ = ()

    def __init__(self) -> None:
        self.when = {}
        self._heap = []


class _NoDead(DeadLetters):
    """None, for ever."""

    __slots__ = ()

    def __init__(self) -> None:
        self._by_seq = OrderedDict()
        self.promised = {}


_NO_DELAYS: Delays = _NoDelays()
_NO_DEAD: DeadLetters = _NoDead()


_key_of = attrgetter("key")


class Group:
    """The consumers that share one copy of a topic's messages."""

    __slots__ = (
        "attempts",
        "blocked",
        "cursor",
        "dead",
        "delays",
        "delivered",
        "dropping",
        "exempt",
        "floor",
        "gone",
        "holders",
        "id",
        "lease_queues",
        "leased",
        "name",
        "open",
        "passed",
        "purges",
        "purging",
        "returned",
        "settled",
        "skipped",
        "start",
        "topic",
        "waiting",
    )

    def __init__(self, topic: "Topic", group_id: int, name: str, start: int) -> None:
        self.topic = topic
        self.id = group_id
        self.name = name
        self.start = start
        self.cursor = start
        self.passed = topic.visible_count
        """Of the messages that were ever visible: those that are not fresh here any more."""
        self.open: dict[int, Lease | State] = {}
        self.attempts: dict[int, int] = {}
        self.returned: list[int] = []
        self.waiting = 0
        """READY in front of the cursor: returned, or behind their key."""
        self.leased = 0
        self.lease_queues: dict[float, LeaseQueue] = {}
        # Most groups never have any, and there are many topics: see `delay` and `add_dead`.
        self.delays = _NO_DELAYS
        self.dead = _NO_DEAD
        self.holders: dict[str, int] = {}
        """By ordering key: its first unsettled message, which holds it."""
        self.blocked: dict[str, list[int]] = {}
        """By ordering key: those behind its holder, a heap; one that comes back has its old place among them."""
        # Dictionaries where sets are meant: an empty one takes a third of the memory, and there are many topics.
        self.skipped: dict[int, None] = {}
        """Fresh ones that were dropped: the cursor passes them by."""
        self.purging: dict[int, None] = {}
        """Out of reach, but not done with until their purge is durable."""
        self.purges: dict[Purge, int] = {}
        """Those that aren't durable, and where the cursor was before."""
        self.exempt = topic.scheduled_before(start)
        """Of the topic's scheduled messages: those that are none of this group's."""
        self.floor = start
        """No message below it waits, is hidden or leased here."""
        self.delivered = Rate()
        self.settled = Rate()
        self.dropping = False
        self.gone = False

    @property
    def delayed(self) -> int:
        """How many messages are DELAYED."""
        scheduled = self.topic.scheduled
        return len(self.delays.when) + (0 if scheduled is None else len(scheduled.when) - self.exempt)

    @property
    def ready(self) -> int:
        """How many messages are READY; those behind their key included."""
        return self.topic.visible_count - self.passed + self.waiting

    @property
    def storable_cursor(self) -> int:
        """The cursor without what purges have passed that may yet fail."""
        return min([self.cursor, *self.purges.values()])

    def take(self) -> int | None:
        """Take the READY message with the lowest seq that its key lets go; returned ones come before fresh ones."""
        while self.returned:
            seq = heapq.heappop(self.returned)
            if self.open.get(seq) is State.READY and not self._is_behind(seq):
                del self.open[seq]
                self.waiting -= 1
                return seq
        topic = self.topic
        while (seq := self.cursor) < topic.visible_to:
            self.cursor = seq + 1
            if not topic.holds(seq):
                # Holes can be long: after a purge, or where another group made the topic grow.
                self.cursor = topic.next_from(seq + 1)
                continue
            if topic.is_scheduled(seq):
                continue
            if seq in self.skipped:
                del self.skipped[seq]
                continue
            self.passed += 1
            key = topic.key_of(seq)
            if key is None or self._hold(key, seq):
                return seq
        return None

    def take_many(self, most: int) -> list[int]:
        """Take up to that many; the same messages as by taking one after the other."""
        seqs: list[int] = []
        if most == 1:
            only = self.take()
            return seqs if only is None else [only]
        look = most
        while len(seqs) < most:
            run = self._take_run(min(look, most - len(seqs)))
            seqs += run
            # Where runs are short, looking at all that may be taken, for each of them, would be quadratic.
            look = 2 * len(run) + 1
            if len(seqs) < most:
                seq = self.take()
                if seq is None:
                    break
                seqs.append(seq)
        return seqs

    def _take_run(self, most: int) -> range:
        """Take what is next and has nothing special about it: fresh messages with consecutive seqs that are here."""
        topic, first = self.topic, self.cursor
        if self.returned or self.skipped or (topic.scheduled is not None and topic.scheduled.when):
            return range(first, first)
        fresh = range(first, min(topic.visible_to, first + most))
        here = list(map(topic.messages.get, fresh))
        if None in here:
            del here[here.index(None) :]
        keys = list(map(_key_of, here))
        run = fresh[: next((place for place, key in enumerate(keys) if key is not None), len(keys))]
        self.cursor = first + len(run)
        self.passed += len(run)
        return run

    def _hold(self, key: str, seq: int) -> bool:
        """Whether a fresh message has its key to itself; else it waits in line behind it."""
        if self.holders.setdefault(key, seq) == seq:
            return True
        self.open[seq] = State.READY
        self.waiting += 1
        heapq.heappush(self.blocked.setdefault(key, []), seq)
        return False

    def _is_behind(self, seq: int) -> bool:
        """Whether another message has its key: its place is one from before, and it gets another in its turn."""
        key = self.topic.key_of(seq)
        return key is not None and self.holders.get(key) != seq

    def delay(self, seq: int, due: float) -> None:
        """Hide a message until then."""
        if self.delays is _NO_DELAYS:
            self.delays = Delays(self)
        self.delays.add(seq, due)

    def add_dead(self, seq: int, dead: Dead) -> None:
        """A message is dead here."""
        if self.dead is _NO_DEAD:
            self.dead = DeadLetters(self)
        self.dead.add(seq, dead)

    def let_go(self, seq: int) -> bool:
        """A message is settled: its key goes to the next in line. Whether that made one deliverable."""
        key = self.topic.key_of(seq)
        if key is None or self.holders.get(key) != seq:
            return False
        line = self.blocked.get(key, [])
        while line:
            following = heapq.heappop(line)
            if self.open.get(following) is State.READY:
                self.holders[key] = following
                heapq.heappush(self.returned, following)
                return True
        self.blocked.pop(key, None)
        del self.holders[key]
        return False

    def skip(self, seq: int) -> None:
        """A message that was never delivered is dropped here."""
        self.skipped[seq] = None
        self.exempt += self.topic.is_scheduled(seq)

    def unskip(self, seq: int) -> None:
        """It is not, after all; or nobody asks any more."""
        if seq in self.skipped:
            del self.skipped[seq]
            self.exempt -= self.topic.is_scheduled(seq)

    def put_back(self, seq: int) -> None:
        """Make a message READY again, at its old place."""
        self.floor = min(self.floor, seq)
        self.open[seq] = State.READY
        self.waiting += 1
        heapq.heappush(self.returned, self._first_of_its_key(seq))

    def _first_of_its_key(self, seq: int) -> int:
        """An earlier message that was redriven while this one had their key goes first now; else this one does."""
        key = self.topic.key_of(seq)
        line = self.blocked.get(key) if key is not None else None
        while line and self.open.get(line[0]) is not State.READY:
            heapq.heappop(line)
        if key is None or not line or line[0] >= seq:
            return seq
        first = self.holders[key] = heapq.heapreplace(line, seq)
        return first

    def wait_again(self, seq: int) -> None:
        """Make a message READY that had let go of its key: in its old place, or behind it."""
        self.floor = min(self.floor, seq)
        key = self.topic.key_of(seq)
        holder = self.holders.get(key, seq) if key is not None else seq
        if key is not None and seq < holder and self.open.get(holder) is State.READY:
            # Nobody has the later one in hand, so the earlier goes before it.
            self.holders[key] = seq
            heapq.heappush(self.blocked.setdefault(key, []), holder)
        if key is None or self._hold(key, seq):
            self.put_back(seq)

    def clear(self) -> None:
        """Forget every message: what is still decided about this group finds nothing."""
        for held in (self.open, self.attempts, self.returned, self.holders, self.blocked, self.skipped):
            held.clear()
        self.purging.clear()
        self.purges.clear()
        self.delays.clear()
        self.dead.clear()
        self.lease_queues.clear()
        self.leased = 0
        self.cursor, self.passed, self.waiting = self.topic.visible_to, self.topic.visible_count, 0

    def done(self, seq: int) -> bool:
        """Whether this group has no more interest in a message."""
        if seq in self.purging:
            return False
        if seq < self.start or seq in self.skipped:
            return True
        if self.topic.is_scheduled(seq):
            return False
        return seq < self.cursor and seq not in self.open

    def standing(self, seq: int) -> State:
        """Where a message stands; for looking at, not for deciding."""
        place = self.open.get(seq)
        if place is not None:
            return place.state if isinstance(place, Lease) else place
        if self.done(seq) or seq in self.purging or not self.topic.holds(seq):
            return State.GONE
        return State.DELAYED if self.topic.is_scheduled(seq) else State.READY

    def lease_of(self, seq: int) -> Lease | None:
        """The lease on a message, being settled or not."""
        place = self.open.get(seq)
        return place if isinstance(place, Lease) else None

    def lease_queue(self, length_s: float) -> LeaseQueue:
        """Where leases of that length wait for their end."""
        queue = self.lease_queues.get(length_s)
        if queue is None:
            queue = self.lease_queues[length_s] = LeaseQueue(self, length_s)
        return queue

    def describe(self, now: float, wall: float) -> GroupInfo:
        """How the group stands."""
        published = self._oldest_published()
        age = None if published is None else max(0.0, wall - published)
        return GroupInfo(
            self.name,
            self.ready,
            self.delayed,
            self.leased,
            len(self.dead),
            age,
            delivered_per_s=round(self.delivered.at(now), 3),
            settled_per_s=round(self.settled.at(now), 3),
        )

    def _oldest_published(self) -> float | None:
        oldest = self._oldest()
        return None if oldest is None else self.topic.published_at(oldest)

    def _oldest(self) -> int | None:
        """The lowest seq that this group has still to do with, but for dead letters.

        What is found out on the way is kept, so looking often costs no more than one step a message in all.
        """
        self._raise_floor()
        if self.floor < self.cursor:
            return self.floor
        fresh = self.topic.next_from(self.cursor)
        # Nothing is there that the cursor would stop at.
        self.cursor = self.floor = fresh
        while fresh in self.skipped:
            fresh = self.topic.next_from(fresh + 1)
        return fresh if fresh < self.topic.visible_to else None

    def _raise_floor(self) -> None:
        if len(self.open) < self.cursor - self.floor:
            waiting = (seq for seq, place in self.open.items() if place is not State.DEAD)
            self.floor = min(waiting, default=self.cursor)
            return
        while self.floor < self.cursor and self.open.get(self.floor, State.DEAD) is State.DEAD:
            self.floor += 1


class Topic:
    """A named sequence of messages. ``id`` is its incarnation: a topic made anew under an old name has another."""

    __slots__ = (
        "changing",
        "cold",
        "cold_bytes",
        "cold_held",
        "coming_groups",
        "config",
        "created_at",
        "dead_letters",
        "dedup",
        "dropping",
        "dropping_pushes",
        "expiries",
        "gaps",
        "gone",
        "group_by_id",
        "groups",
        "held_bytes",
        "held_messages",
        "id",
        "listed",
        "messages",
        "name",
        "next_group_id",
        "next_push_id",
        "next_seq",
        "overdue",
        "paused",
        "published",
        "pushes",
        "scheduled",
        "slowest",
        "unheld",
        "visible_count",
        "visible_to",
    )

    def __init__(self, topic_id: int, name: str, config: TopicConfig, created_at: float) -> None:
        self.id = topic_id
        self.name = name
        self.config = config
        self.created_at = created_at
        self.paused = False
        self.next_seq = 1
        self.visible_to = 1
        self.visible_count = 0
        self.messages: dict[int, Message] = {}
        self.cold: Runs | None = None
        """Plain messages whose bodies, and all else, are in the store alone."""
        self.cold_bytes = 0
        """Bytes of those that take room."""
        self.cold_held = 0
        """How many these are."""
        self.listed: list[int] = []
        """The messages here, as they were when a long gap was last looked through."""
        self.gaps: dict[int, int] = {}
        """By its first seq, up to where a gap is known to go: there are no messages in it, and never will be."""
        self.scheduled: Scheduled | None = None
        self.expiries: Expiries | None = None
        self.dedup: Dedup | None = None
        # Counted from the decision to publish on, so that what is being written can't overfill the topic.
        self.held_messages = 0
        self.held_bytes = 0
        self.dropping = False
        self.gone = False
        self.changing: PutTopic | None = None
        """What makes it, or changes its configuration, and isn't durable yet."""
        self.groups: dict[str, Group] = {}
        self.group_by_id: dict[int, Group] = {}
        self.next_group_id = 0
        self.coming_groups: dict[str, None] = {}
        """Names of groups that are not durable yet."""
        self.pushes: dict[str, Push] = {}
        self.next_push_id = 1
        self.dropping_pushes: dict[int, None] = {}
        """Ids of pushes whose end is not durable yet."""
        self.slowest: Group | None = None
        """The group that had not done with a message when that was asked last."""
        self.overdue: set[int] | None = None
        """Messages past their time to live that are in somebody's hands, or dead."""
        self.dead_letters = 0
        self.published = Rate()
        self.unheld: dict[int, int] = {}
        """Messages that take no room, since they are dead; and the bytes they took."""

    def add_group(self, name: str, group_id: int | None = None, start: int | None = None) -> Group:
        """A group that gets every message from now on (or, when the state is restored, from ``start`` on)."""
        group_id = self.next_group_id if group_id is None else group_id
        group = Group(self, group_id, name, self.next_seq if start is None else start)
        self.next_group_id = max(self.next_group_id, group_id + 1)
        self.groups[name] = group
        self.group_by_id[group_id] = group
        return group

    def holds(self, seq: int) -> bool:
        """Whether there is such a message, here or in the store."""
        return seq in self.messages or (self.cold is not None and seq in self.cold)

    def next_from(self, seq: int) -> int:
        """The lowest seq from there on that may hold a message; ``visible_to`` where none does."""
        first = seq
        seq = self.gaps.get(seq, seq)
        if seq >= self.visible_to or self.holds(seq):
            return min(seq, self.visible_to)
        found = self._search(seq)
        if found - first >= GAP_MIN:
            # Asked again and again as long as a group's next message is behind it.
            if len(self.gaps) >= GAPS_MAX:
                self.gaps.clear()
            self.gaps[first] = found
        return found

    def _search(self, seq: int) -> int:
        end = self.visible_to
        if self.cold is not None and (cold := self.cold.first_from(seq)) is not None:
            end = min(end, cold)
        for near in range(seq, min(seq + GAP_MIN, end)):
            if near in self.messages:
                return near
        for _ in ("in the list there is", "in one made anew"):
            place = bisect_left(self.listed, seq)
            for far in self.listed[place : place + GAP_MIN]:
                if far in self.messages:
                    return min(far, end)
            # Messages come in the order of their seqs, and so a dictionary of them is sorted.
            self.listed = list(self.messages)
        return end

    def add_cold(self, first: int, last: int, size: int) -> None:
        """Plain messages are in the store alone."""
        self.cold = self.cold or Runs()
        self.cold.append(first, last)
        self.cold_bytes += size
        self.cold_held += last - first + 1

    def is_scheduled(self, seq: int) -> bool:
        """Whether a message was published with a delay that is not over."""
        return self.scheduled is not None and seq in self.scheduled.when

    def is_overdue(self, seq: int) -> bool:
        """Whether a message was past its time to live when it could not be dropped."""
        return self.overdue is not None and seq in self.overdue

    def scheduled_before(self, seq: int) -> int:
        """How many such messages there are with lower seqs."""
        return sum(other < seq for other in self.scheduled.when) if self.scheduled is not None else 0

    def key_of(self, seq: int) -> str | None:
        """A message's ordering key; one that is in the store alone has none."""
        message = self.messages.get(seq)
        return None if message is None else message.key

    def published_at(self, seq: int) -> float | None:
        """When a message was published; None where only the store knows."""
        message = self.messages.get(seq)
        return None if message is None else message.published_at

    def seqs(self) -> Iterator[int]:
        """All messages, in no order."""
        yield from list(self.messages)
        for first, last in list(self.cold or ()):
            yield from range(first, last + 1)

    def size_of(self, seq: int) -> int:
        """The size of a message's body; where only the store knows, that of the average one there."""
        message = self.messages.get(seq)
        if message is not None:
            return message.size
        return self.cold_bytes // self.cold_held if self.cold_held else 0

    def free_room(self, seq: int) -> None:
        """A message takes no room any more."""
        size = self.unheld[seq] = self.size_of(seq)
        self._hold(seq, -1, -size)

    def take_room(self, seq: int) -> None:
        """It does again: as much as it gave back, whatever the average has become."""
        size = self.unheld.pop(seq, None)
        if size is not None:
            self._hold(seq, 1, size)

    def _hold(self, seq: int, count: int, size: int) -> None:
        self.held_messages += count
        self.held_bytes += size
        if seq not in self.messages:
            self.cold_held += count
            self.cold_bytes += size

    def wanted_by(self, group: Group) -> list[int]:
        """Messages that only this group may still have an interest in, among them all such.

        What is fresh to it is also fresh to every group that is as slow, so only what those have passed matters.
        """
        others = self.groups.values()
        end = min((max(other.start, other.cursor) for other in others), default=self.visible_to)
        found = {*group.open, *group.purging, *(self.scheduled.when if self.scheduled is not None else ())}
        found.update(*(other.skipped for other in others))
        seq = self.next_from(group.cursor)
        while seq < end:
            found.add(seq)
            seq = self.next_from(seq + 1)
        return sorted(seq for seq in found if self.holds(seq) and not group.done(seq))

    def everybody_done(self, seq: int) -> bool:
        """Whether no group has an interest in a message any more."""
        # The group that was in the way last time mostly is again, so this is O(1) for all but the slowest.
        if self.slowest is not None and not self.slowest.done(seq):
            return False
        for group in self.groups.values():
            if not group.done(seq):
                self.slowest = group
                return False
        return True

    def remove(self, seq: int) -> bool:
        """Forget a message that every group is done with; whether that makes room."""
        roomier = self.unheld.pop(seq, None) is None
        if roomier:
            self._hold(seq, -1, -self.size_of(seq))
        if self.messages.pop(seq, None) is None and self.cold is not None:
            self.cold.discard(seq)
        for due in (self.scheduled, self.expiries):
            if due is not None:
                due.discard(seq)
        if self.overdue is not None:
            self.overdue.discard(seq)
        return roomier

    def busy(self, now: float) -> float:
        """How many messages come and go, a second."""
        per_s = self.published.at(now)
        for group in self.groups.values():
            per_s += group.delivered.at(now)
        return per_s

    def describe(self, now: float, wall: float) -> TopicInfo:
        """How the topic stands."""
        return TopicInfo(
            self.name,
            self.config,
            self.created_at,
            self.paused,
            self.held_messages,
            self.held_bytes,
            tuple(group.describe(now, wall) for group in self.groups.values()),
            round(self.published.at(now), 3),
        )
