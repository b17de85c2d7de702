"""Changes that have been decided and wait to be durable.

Each knows what a store must write (`records`), and what happens when that has succeeded (`commit`) or failed
(`abort`). Between the two nothing of it shows: that is what PENDING and SETTLING mean.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple, Protocol

from wakeq_server.core.dedup import Seen
from wakeq_server.core.leases import Lease
from wakeq_server.core.lifecycle import Event, State
from wakeq_server.core.model import (
    GroupDropped,
    GroupPut,
    HistorySet,
    KeySeen,
    Message,
    MessageAdded,
    MessageRemoved,
    Outcome,
    Published,
    Push,
    PushConfig,
    PushDropped,
    PushPut,
    Record,
    TopicConfig,
    TopicDropped,
    TopicPut,
    many,
)
from wakeq_server.core.model import Settle as SettleLine
from wakeq_server.core.topic import Group, Topic
from wakeq_server.errors import GroupNotFound, QueueError, TopicNotFound

if TYPE_CHECKING:
    from wakeq_server.core.queue import QueueCore


class Transaction(Protocol):
    """What a store takes whole or not at all."""

    error: QueueError | None

    @property
    def needs_history(self) -> bool:
        """Whether it means something only beside the history that is written with it."""

    def records(self) -> Iterable[Record]:
        """What a store must write."""

    def commit(self, now: float) -> None:
        """It is durable: let it show."""

    def abort(self, error: QueueError, now: float) -> None:
        """It has failed: leave no trace."""


class Decided:
    """What most transactions have in common."""

    error: QueueError | None = None

    @property
    def needs_history(self) -> bool:
        """It stands by itself."""
        return False

    def records(self) -> Iterable[Record]:
        """Nothing."""
        return ()

    def commit(self, now: float) -> None:
        """Nothing to show."""

    def abort(self, error: QueueError, now: float) -> None:
        """Nothing to take back."""
        self.error = error


class Publish(Decided):
    """Messages on their way into a topic."""

    def __init__(
        self,
        core: "QueueCore",
        topic: Topic,
        messages: Sequence[Message],
        key: bytes | None,
        seen: Seen | None,
        *,
        now: float,
        wall: float,
    ) -> None:
        self.core = core
        self.topic = topic
        self.messages = messages
        self.key = key
        self.seen = seen
        self.now = now
        self.wall = wall

    @property
    def published(self) -> Published:
        """What its publisher is told."""
        return Published(self.messages[0].seq, self.messages[-1].seq, len(self.messages))

    def records(self) -> Iterable[Record]:
        """A row a message, and one for the idempotency key."""
        records: list[Record] = [*many(MessageAdded, repeat(self.topic.id), self.messages)]
        if self.key is not None and self.seen is not None:
            expires_at = self.wall + self.topic.config.dedup_window_s
            records.append(
                KeySeen(
                    self.topic.id, self.key, self.seen.fingerprint, self.seen.first_seq, self.seen.count, expires_at
                )
            )
        return records

    def commit(self, now: float) -> None:
        """The messages are READY, or DELAYED, in every group."""
        if self.topic.gone:
            self.error = TopicNotFound(self.topic.name)
            return
        if self.key is not None and self.seen is not None and self.topic.dedup is not None:
            self.topic.dedup.settle(self.key, self.seen)
        self.core.show(self.topic, self.messages, now, self.wall - self.now)

    def abort(self, error: QueueError, now: float) -> None:
        """Their seqs stay unused, and so does their key."""
        self.error = error
        self.topic.held_messages -= len(self.messages)
        self.topic.held_bytes -= sum(message.size for message in self.messages)
        if self.key is not None and self.topic.dedup is not None:
            self.topic.dedup.forget(self.key)


class Settlement(NamedTuple):
    """How one lease ends."""

    group: Group
    lease: Lease
    outcome: Outcome
    hidden_s: float
    reason: str | None


class Extension(NamedTuple):
    """Another end of a lease: from the call on where it is a later one, else from the commit on."""

    group: Group
    lease: Lease
    until: float
    record: HistorySet
    moves: int

    @property
    def in_force(self) -> bool:
        """Whether the lease is alive, and nobody else has moved its end since."""
        return self.lease.moves == self.moves and self.lease.state in (State.LEASED, State.SETTLING)


class Settle(Decided):
    """Leases that are about to end, or (``extended``) to last longer."""

    def __init__(self, core: "QueueCore", wall: float) -> None:
        self.core = core
        self.wall = wall
        self.settlements: list[Settlement] = []
        self.extended: list[Extension] = []
        self.repeats: list[tuple[SettleLine, Settle]] = []
        """Lines that an earlier one, not durable yet, has already: they share its fate."""

    def __bool__(self) -> bool:
        return bool(self.settlements or self.extended)

    @property
    def _simply_acked(self) -> bool:
        """Whether they are several, and all of them acks in the one group of a topic, so that their messages go."""
        if len(self.settlements) < 2:
            return False
        only = self.settlements[0].group
        if only.gone or len(only.topic.groups) > 1:
            return False
        return all(one.group is only and one.outcome == "ack" for one in self.settlements)

    @property
    def needs_history(self) -> bool:
        """With several groups, how far each has come is what says that a message is done with."""
        return any(one.outcome != "ack" or len(one.group.topic.groups) > 1 for one in self.settlements)

    def records(self) -> Iterable[Record]:
        """Acked messages go; others are kept with their attempts, their delay, or the reason of their death."""
        # The history that is written before this is newer: what has ended or was shortened since must stay so.
        records: list[Record] = [extension.record for extension in self.extended if extension.in_force]
        if self._simply_acked:
            topic = self.settlements[0].group.topic
            seqs = [settlement.lease.key.seq for settlement in self.settlements]
            return [*records, *many(MessageRemoved, repeat(topic.id), seqs)]
        return [*records, *self._ends()]

    def _ends(self) -> Iterator[Record]:
        for group, lease, outcome, hidden_s, reason in self.settlements:
            key = lease.key
            if outcome == "ack":
                yield self.core.done_record(group, key.seq)
            elif outcome == "dead":
                yield HistorySet(
                    key.incarnation, group.id, key.seq, "dead", lease.attempt, self.wall, 0.0, reason=reason
                )
            elif outcome == "release":
                # Kept at no attempts too: in front of the cursor, what has no history is done with.
                yield HistorySet(key.incarnation, group.id, key.seq, "ready", lease.attempt - 1)
            elif hidden_s:
                due_at = self.wall + hidden_s
                yield HistorySet(key.incarnation, group.id, key.seq, "delayed", lease.attempt, due_at, hidden_s)
            else:
                yield HistorySet(key.incarnation, group.id, key.seq, "ready", lease.attempt)

    def commit(self, now: float) -> None:
        """The leases have ended, or will when they were asked to."""
        for extension in self.extended:
            self.core.keep_extension(extension, now)
        self.core.finish_all(self.settlements, now, self.wall)

    def abort(self, error: QueueError, now: float) -> None:
        """The leases go on, and those that were to last longer don't."""
        self.error = error
        for extension in self.extended:
            self.core.undo_extension(extension, now)
        for settlement in self.settlements:
            settlement.lease.settled_in = None
            settlement.lease.step(Event.ABORT)
            if not settlement.group.gone:
                left_s = max(0.0, settlement.lease.deadline - now)
                self.core.run_lease(settlement.group, settlement.lease, left_s, now)


class PutTopic(Decided):
    """A new topic, or a new configuration, or a pause."""

    def __init__(self, core: "QueueCore", topic: Topic, config: TopicConfig, *, paused: bool, new: bool) -> None:
        self.core = core
        self.topic = topic
        self.config = config
        self.paused = paused
        self.new = new
        topic.changing = self

    def records(self) -> Iterable[Record]:
        """The topic's row, and its first group's."""
        topic = self.topic
        yield TopicPut(topic.id, topic.name, self.config, topic.created_at, self.paused)
        if self.new:
            for group in topic.groups.values():
                yield GroupPut(topic.id, group.id, group.name, group.start, group.cursor)

    def commit(self, now: float) -> None:
        """From now on."""
        self.topic.changing = None
        self.topic.config = self.config
        self.topic.paused = self.paused
        self.core.touch_all(self.topic)
        if self.new:
            self.core.effects.topics_made.append(self.topic)

    def abort(self, error: QueueError, now: float) -> None:
        """As before; a new topic goes, and with it whatever came to it meanwhile."""
        self.error = error
        self.topic.changing = None
        if self.new:
            self.core.forget(self.topic)


class DropTopic(Decided):
    """A topic that is about to go."""

    def __init__(self, core: "QueueCore", topic: Topic) -> None:
        self.core = core
        self.topic = topic

    def records(self) -> Iterable[Record]:
        """One row, which takes all others with it."""
        return [TopicDropped(self.topic.id)]

    def commit(self, now: float) -> None:
        """Gone; whoever is parked there must be told."""
        self.core.forget(self.topic)

    def abort(self, error: QueueError, now: float) -> None:
        """It stays."""
        self.error = error
        self.topic.dropping = False


class PutGroup(Decided):
    """A group that gets every message from its commit on."""

    def __init__(self, core: "QueueCore", topic: Topic, name: str) -> None:
        self.core = core
        self.topic = topic
        self.name = name
        self.group_id = topic.next_group_id
        topic.next_group_id += 1
        self.start = topic.next_seq

    def records(self) -> Iterable[Record]:
        """One row."""
        return [GroupPut(self.topic.id, self.group_id, self.name, self.start, self.start)]

    def commit(self, now: float) -> None:
        """It is there. Batches commit in order, so what was published before its start is visible by now."""
        self.topic.coming_groups.pop(self.name, None)
        self.topic.add_group(self.name, self.group_id, self.start)

    def abort(self, error: QueueError, now: float) -> None:
        """There is none."""
        self.error = error
        self.topic.coming_groups.pop(self.name, None)


class DropGroup(Decided):
    """A group that is about to go."""

    def __init__(self, core: "QueueCore", group: Group) -> None:
        self.core = core
        self.group = group

    def records(self) -> Iterable[Record]:
        """One row, which takes its history with it."""
        return [GroupDropped(self.group.topic.id, self.group.id)]

    def commit(self, now: float) -> None:
        """Gone, and with it what only it had an interest in."""
        self.core.forget_group(self.group)

    def abort(self, error: QueueError, now: float) -> None:
        """It stays."""
        self.error = error
        self.group.dropping = False


class PutPush(Decided):
    """A new push, or another in place of the one of its name."""

    def __init__(self, core: "QueueCore", group: Group, name: str, config: PushConfig) -> None:
        self.core = core
        self.group = group
        self.push = Push(group.topic.name, name, group.topic.next_push_id, config)
        group.topic.next_push_id += 1
        self.new = True
        """Known when it has been committed: whether none was replaced."""

    def records(self) -> Iterable[Record]:
        """One row."""
        config = self.push.config
        yield PushPut(
            self.group.topic.id,
            self.push.name,
            self.push.id,
            self.group.id,
            config.url,
            config.max_in_flight,
            config.timeout_s,
        )

    def commit(self, now: float) -> None:
        """It is there, unless its group has gone meanwhile."""
        topic = self.group.topic
        if topic.gone:
            self.error = TopicNotFound(topic.name)
        elif self.group.gone:
            self.error = GroupNotFound(topic.name, self.group.name)
        else:
            self.new = self.push.name not in topic.pushes
            self.core.show_push(topic, self.push)


class DropPush(Decided):
    """A push that is about to go."""

    def __init__(self, core: "QueueCore", topic: Topic, push: Push) -> None:
        self.core = core
        self.topic = topic
        self.push = push

    def records(self) -> Iterable[Record]:
        """One row; not that of another which takes its name in the same batch."""
        return [PushDropped(self.topic.id, self.push.name, self.push.id)]

    def commit(self, now: float) -> None:
        """Gone."""
        self.topic.dropping_pushes.pop(self.push.id, None)
        self.core.forget_push(self.topic, self.push)

    def abort(self, error: QueueError, now: float) -> None:
        """It stays."""
        self.error = error
        self.topic.dropping_pushes.pop(self.push.id, None)


class Purge(Decided):
    """Messages that nobody has in hand, dropped at once; put back if that can't be stored."""

    def __init__(self, core: "QueueCore", group: Group) -> None:
        self.core = core
        self.group = group
        before = group.cursor
        self.dropped = dict(core.drop_waiting(group))
        group.purging.update(dict.fromkeys(self.dropped))
        if self.dropped:
            group.purges[self] = before

    def records(self) -> Iterable[Record]:
        """Each is done with in its group."""
        return [self.core.done_record(self.group, seq) for seq in self.dropped]

    def commit(self, now: float) -> None:
        """What no other group wants is removed."""
        self._end()
        for seq in self.dropped:
            self.core.remove_if_done(self.group.topic, seq)

    def abort(self, error: QueueError, now: float) -> None:
        """They are READY, at their places."""
        self.error = error
        self._end()
        if not self.group.gone:
            self.core.give_back(self.group, self.dropped)

    def _end(self) -> None:
        for seq in self.dropped:
            self.group.purging.pop(seq, None)
        self.group.purges.pop(self, None)
        self.core.note_cursor(self.group)


class Redrive(Decided):
    """Dead letters that are to be READY again, as if never delivered."""

    def __init__(self, core: "QueueCore", group: Group, seqs: Sequence[int]) -> None:
        self.core = core
        self.group = group
        self.seqs = seqs
        group.dead.promised.update(dict.fromkeys(seqs))

    @property
    def needs_history(self) -> bool:
        """How far the group has come is what says that these have been delivered before."""
        return True

    def records(self) -> Iterable[Record]:
        """Ready, without attempts."""
        topic = self.group.topic
        return [HistorySet(topic.id, self.group.id, seq, "ready") for seq in self.seqs]

    def commit(self, now: float) -> None:
        """They are READY, at their old places."""
        for seq in self.seqs:
            if seq in self.group.dead:
                self.core.revive(self.group, seq)

    def abort(self, error: QueueError, now: float) -> None:
        """They stay dead."""
        self.error = error
        self.core.leave_dead(self.group, self.seqs)


class MoveDead(Decided):
    """A dead letter on its way to another topic."""

    def __init__(self, core: "QueueCore", group: Group, seq: int, publish: Publish) -> None:
        self.core = core
        self.group = group
        self.seq = seq
        self.publish = publish
        group.dead.promised[seq] = None

    def records(self) -> Iterable[Record]:
        """There, and no longer here."""
        yield from self.publish.records()
        yield self.core.done_record(self.group, self.seq)

    def commit(self, now: float) -> None:
        """Moved."""
        self.publish.commit(now)
        if self.seq in self.group.dead:
            self.core.bury(self.group, self.seq)

    def abort(self, error: QueueError, now: float) -> None:
        """It stays in place."""
        self.error = error
        self.core.leave_dead(self.group, [self.seq])
        self.publish.abort(error, now)


class WriteHistory(Decided):
    """Leases, their ends, and what time has dropped, that nobody waits for: they ride along with the next commit."""

    def __init__(
        self,
        core: "QueueCore",
        moved: Iterable[Group],
        places: Sequence[tuple[Group, int]],
        loose: Sequence[Record],
        records: Sequence[Record],
    ) -> None:
        self.core = core
        self._moved = moved
        self._places = places
        self._loose = loose
        self._records = records

    def records(self) -> Iterable[Record]:
        """As things stood when the batch was closed."""
        return self._records

    def abort(self, error: QueueError, now: float) -> None:
        """To be written again."""
        self.error = error
        self.core.moved |= dict.fromkeys(self._moved)
        self.core.loose[:0] = self._loose
        for place in self._places:
            self.core.changed.setdefault(place, now)
