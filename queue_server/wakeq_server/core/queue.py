"""Every decision about messages, synchronous and without a clock: ``now`` is a parameter.

Calls change state at once and return what is to be told or written; what happens to *others* by that
(a group has something to deliver, a lease has ended) gathers in `effects`, for the engine to act on and clear.
`tick` does whatever time has brought, and `next_deadline` says when to call it again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice, repeat
from operator import attrgetter

from wakeq_server.core.deadlines import Deadlines, Timed
from wakeq_server.core.dedup import Dedup, Seen, digest, fingerprint
from wakeq_server.core.leases import Lease, LeaseQueue, Owner, RecentOutcomes
from wakeq_server.core.lifecycle import Event, State, after
from wakeq_server.core.model import (
    DEFAULT_GROUP,
    NOTHING_SAID,
    GroupPut,
    HistoryCleared,
    HistorySet,
    KeysForgotten,
    LeaseKey,
    Message,
    MessageRemoved,
    NewMessage,
    Outcome,
    Push,
    PushConfig,
    Record,
    SettleResult,
    SettleStatus,
    TopicConfig,
    many,
)
from wakeq_server.core.model import Settle as SettleLine
from wakeq_server.core.topic import Dead, DeadLetters, Delays, Expiries, Group, Scheduled, Topic
from wakeq_server.core.transactions import (
    DropGroup,
    DropPush,
    DropTopic,
    Extension,
    MoveDead,
    Publish,
    Purge,
    PutGroup,
    PutPush,
    PutTopic,
    Redrive,
    Settle,
    Settlement,
    WriteHistory,
)
from wakeq_server.errors import IdempotencyConflict, TooManyTopics, TopicFull, TopicNotFound

LEASE_TOTAL_MAX_S = 43_200.0
MESSAGE_COST = 400
"""Bytes that a message costs in memory beside its body."""


class Effects:
    """What decisions mean for others. The engine takes it and leaves an empty one."""

    __slots__ = ("deliverable", "ended", "groups_gone", "pushes", "roomier", "to_move", "topics_gone", "topics_made")

    def __init__(self) -> None:
        # Literals: one of these is made for each decision.
        self.deliverable: dict[Group, None] = {}
        self.ended: list[Lease] = []
        self.topics_made: list[Topic] = []
        self.topics_gone: list[Topic] = []
        self.groups_gone: list[Group] = []
        self.roomier: dict[Topic, None] = {}
        self.to_move: list[tuple[Group, int]] = []
        """Dead letters whose topic names another for them."""
        self.pushes: list[tuple[Push, bool]] = []
        """Pushes that have come (True), perhaps in place of another of their name, or gone (False), in this order."""

    def __bool__(self) -> bool:
        return bool(self.deliverable) or not self.only_deliverable

    @property
    def only_deliverable(self) -> bool:
        """Whether there is nothing else, as after nearly all decisions."""
        if self.ended or self.roomier or self.to_move:
            return False
        return not (self.topics_made or self.topics_gone or self.groups_gone or self.pushes)


@dataclass
class Counts:
    """What has happened so far, in all topics."""

    redelivered: int = 0
    expired_leases: int = 0
    dead: int = 0
    dropped_by_ttl: int = 0
    duplicates: int = 0
    keys_forgotten: int = 0
    """Idempotency keys that were forgotten before their time, since their topics had too many."""


class QueueCore:
    """All topics of one server."""

    def __init__(
        self,
        *,
        epoch: int,
        jitter: Callable[[], float],
        durable: bool,
        memory_budget: int = 1 << 62,
        max_topics: int = 1 << 62,
    ) -> None:
        """``jitter`` gives numbers in [0, 1); not ``durable``, nothing is noted for a store, and bodies never leave."""
        self.epoch = epoch
        self.topics: dict[str, Topic] = {}
        self.effects = Effects()
        self.counts = Counts()
        self.changed: dict[tuple[Group, int], float] = {}
        """Places whose history the store doesn't know yet, and since when; the oldest first."""
        self.moved: dict[Group, None] = {}
        """Groups whose cursor has gone on without a claim."""
        self.loose: list[Record] = []
        """Records that nobody waits for."""
        self.leased = 0
        """How many leases there are, in all topics."""
        self.next_topic_id = 1
        self.memory_used = 0
        self.memory_budget = memory_budget
        self._jitter = jitter
        self._durable = durable
        self._max_topics = max_topics
        self._by_id: dict[str, Lease] = {}
        """All leases, settling ones too."""
        self._deadlines = Deadlines()
        self._recent = RecentOutcomes()
        self._lease_number = 0
        self._latest = 0.0
        """When the core was last told the time: about when what changes now has changed."""

    # Topics and groups

    def topic(self, name: str) -> Topic:
        """The topic of that name. Raises TopicNotFound."""
        topic = self.topics.get(name)
        if topic is None or topic.dropping:
            raise TopicNotFound(name)
        return topic

    def create(self, name: str, config: TopicConfig, wall: float) -> PutTopic:
        """Make a topic; there must be none of that name. Raises TooManyTopics."""
        assert name not in self.topics
        # Counted from the decision on, so that those being made at one moment can't pass the limit together.
        if len(self.topics) >= self._max_topics:
            raise TooManyTopics(self._max_topics)
        topic = Topic(self.next_topic_id, name, config, wall)
        topic.add_group(DEFAULT_GROUP)
        self.next_topic_id += 1
        self.topics[name] = topic
        return PutTopic(self, topic, config, paused=False, new=True)

    def configure(self, topic: Topic, config: TopicConfig) -> PutTopic:
        """Replace a topic's configuration. Leases that run keep their length."""
        return PutTopic(self, topic, config, paused=topic.paused, new=False)

    def pause(self, topic: Topic, paused: bool) -> PutTopic:
        """Stop or start delivery."""
        return PutTopic(self, topic, topic.config, paused=paused, new=False)

    def touch_all(self, topic: Topic) -> None:
        """Whatever a configuration decides is to be looked at again."""
        self.effects.roomier[topic] = None
        for group in topic.groups.values():
            self.effects.deliverable[group] = None
            self._deadlines.touch(group.dead)

    def drop(self, topic: Topic) -> DropTopic:
        """Delete a topic; until that is durable, it is there but not to be found."""
        topic.dropping = True
        return DropTopic(self, topic)

    def forget(self, topic: Topic) -> None:
        """Take a topic out, and stop every clock in it."""
        if topic.gone:
            return
        topic.gone = True
        if self.topics.get(topic.name) is topic:
            del self.topics[topic.name]
        for group in topic.groups.values():
            self._close(group)
        if topic.scheduled is not None:
            self._deadlines.forget(topic.scheduled)
        if topic.expiries is not None:
            self._deadlines.forget(topic.expiries)
        self.memory_used -= sum(map(_cost, topic.messages.values()))
        # A topic and its groups know each other: they are left to the collector of garbage, and it comes seldom.
        topic.messages.clear()
        topic.dedup = None
        self.effects.topics_gone.append(topic)
        for push in list(topic.pushes.values()):
            self.forget_push(topic, push)

    def put_group(self, topic: Topic, name: str) -> PutGroup:
        """Make a group; there must be none of that name."""
        topic.coming_groups[name] = None
        return PutGroup(self, topic, name)

    def drop_group(self, group: Group) -> DropGroup:
        """Delete a group."""
        group.dropping = True
        return DropGroup(self, group)

    def forget_group(self, group: Group) -> None:
        """Take a group out, and with it what only it had an interest in."""
        topic = group.topic
        del topic.groups[group.name]
        del topic.group_by_id[group.id]
        topic.slowest = None
        topic.dead_letters -= len(group.dead)
        wanted = topic.wanted_by(group)
        self._close(group)
        for seq in [seq for seq in wanted if topic.everybody_done(seq)]:
            self.loose.append(MessageRemoved(topic.id, seq))
            self._remove(topic, seq)
        self.free_dead(topic)
        self.effects.groups_gone.append(group)
        for push in [push for push in topic.pushes.values() if push.config.group == group.name]:
            self.forget_push(topic, push)

    # Pushes

    def put_push(self, group: Group, name: str, config: PushConfig) -> PutPush:
        """Push the group's messages, in place of the push of that name where there is one."""
        return PutPush(self, group, name, config)

    def show_push(self, topic: Topic, push: Push) -> None:
        """A push is there from now on."""
        topic.pushes[push.name] = push
        self.effects.pushes.append((push, True))

    def drop_push(self, topic: Topic, push: Push) -> DropPush:
        """Delete a push; until that is durable, it goes on but is not to be found."""
        topic.dropping_pushes[push.id] = None
        return DropPush(self, topic, push)

    def forget_push(self, topic: Topic, push: Push) -> None:
        """Take a push out, unless another has its name by now."""
        if topic.pushes.get(push.name) is push:
            del topic.pushes[push.name]
            self.effects.pushes.append((push, False))

    def _close(self, group: Group) -> None:
        """End every lease of a group that goes, and stop its clocks."""
        group.gone = True
        for place in group.open.values():
            if isinstance(place, Lease):
                place.leave_queue()
                del self._by_id[place.id]
                self._tell_owner(place)
                self.leased -= 1
        clocks: list[Timed] = [group.delays, group.dead, *group.lease_queues.values()]
        for timed in clocks:
            self._deadlines.forget(timed)
        group.clear()

    # Publish

    def publish(
        self, topic: Topic, new: Sequence[NewMessage], now: float, wall: float, key: str | None = None
    ) -> Publish | Seen:
        """Take messages in; or, where the idempotency key was seen before, say what became of them then.

        Raises IdempotencyConflict and TopicFull, and then has taken none.
        """
        mark, seen = None, None
        if key is not None:
            mark = digest(key)
            known = self._known(topic, mark, new, now, wall)
            if known is not None:
                self.counts.duplicates += 1
                return known
        size = len(new[0].body) if len(new) == 1 else sum(len(message.body) for message in new)
        self._check_room(topic, len(new), size)
        first = topic.next_seq
        topic.next_seq += len(new)
        topic.held_messages += len(new)
        topic.held_bytes += size
        messages = self._messages(topic, new, first, wall)
        if mark is not None:
            seen = Seen(fingerprint(new), first, len(new), now + topic.config.dedup_window_s, None)
        publish = Publish(self, topic, messages, mark, seen, now=now, wall=wall)
        if mark is not None and seen is not None:
            topic.dedup = Dedup() if topic.dedup is None else topic.dedup
            topic.dedup.put(mark, seen.by(publish))
        return publish

    def _known(self, topic: Topic, mark: bytes, new: Sequence[NewMessage], now: float, wall: float) -> Seen | None:
        if topic.dedup is None:
            return None
        before = topic.dedup.shortened
        if topic.dedup.trim(now) and self._durable:
            self.loose.append(KeysForgotten(topic.id, wall))
        self.counts.keys_forgotten += topic.dedup.shortened - before
        known = topic.dedup.get(mark, now)
        if known is not None and known.fingerprint != fingerprint(new):
            raise IdempotencyConflict("this idempotency key was used for another message")
        return known

    def _check_room(self, topic: Topic, count: int, size: int) -> None:
        config = topic.config
        if config.max_messages is not None and topic.held_messages + count > config.max_messages:
            raise TopicFull(f"topic {topic.name} holds its {config.max_messages} messages", retry_after_s=1)
        if config.max_bytes is not None and topic.held_bytes + size > config.max_bytes:
            raise TopicFull(f"topic {topic.name} holds its {config.max_bytes} bytes", retry_after_s=1)

    def _messages(self, topic: Topic, new: Sequence[NewMessage], first: int, wall: float) -> list[Message]:
        alone = len(new) == 1 or topic.config.ttl_s is not None
        if alone or any(message[1:] != NOTHING_SAID for message in new):
            return [self._message(topic, message, seq, wall) for seq, message in enumerate(new, first)]
        bodies = [message.body for message in new]
        seqs = range(first, first + len(new))
        return list(many(Message, seqs, bodies, map(len, bodies), repeat(wall), *[repeat(None)] * 6))

    def _message(self, topic: Topic, new: NewMessage, seq: int, wall: float) -> Message:
        ttl_s = topic.config.ttl_s if new.ttl_s is None else new.ttl_s
        return Message(
            seq,
            new.body,
            len(new.body),
            wall,
            new.content_type,
            new.headers,
            new.id,
            new.key,
            wall + new.delay_s if new.delay_s else None,
            wall + ttl_s if ttl_s is not None else None,
        )

    def show(self, topic: Topic, messages: Sequence[Message], now: float, ahead_s: float) -> None:
        """Published messages are durable: READY in every group, or DELAYED.

        ``ahead_s`` is what the wall clock was ahead of ``now``'s when they were published.
        """
        if len(messages) == 1 or not self._admit_all(topic, messages):
            for message in messages:
                self._admit(topic, message)
                if message.due_at is None and message.expires_at is None:
                    topic.visible_count += 1
                else:
                    self.time(topic, message, now, ahead_s)
        topic.visible_to = messages[-1].seq + 1
        for message in messages if not topic.groups else ():
            self.remove_if_done(topic, message.seq)
        topic.published.add(len(messages), now)
        for group in topic.groups.values():
            self.effects.deliverable[group] = None

    def _admit_all(self, topic: Topic, messages: Sequence[Message]) -> bool:
        """Keep messages here; False where one must be looked at by itself."""
        if not all(message[_DUE_AT:] == _AT_ONCE_AND_FOR_EVER for message in messages):
            return False
        cost = sum(map(_cost, messages))
        if self._durable and self.memory_used + cost > self.memory_budget:
            return False
        topic.messages.update({message.seq: message for message in messages})
        topic.visible_count += len(messages)
        self.memory_used += cost
        return True

    def _admit(self, topic: Topic, message: Message) -> None:
        """Keep a message here, or, beyond the budget, leave its body to the store."""
        if self._durable and self.memory_used + _cost(message) > self.memory_budget:
            if message.plain:
                topic.add_cold(message.seq, message.seq, message.size)
                return
            message = message._replace(body=None)
        topic.messages[message.seq] = message
        self.memory_used += _cost(message)

    def time(self, topic: Topic, message: Message, now: float, ahead_s: float) -> None:
        """Count a message as visible, or see to it that it will be; and to its end."""
        due = _instant(message.due_at, message, now, ahead_s)
        if due is not None and due > now:
            topic.scheduled = Scheduled(topic) if topic.scheduled is None else topic.scheduled
            topic.scheduled.add(message.seq, due)
            self._deadlines.touch(topic.scheduled)
        else:
            topic.visible_count += 1
        expires = _instant(message.expires_at, message, now, ahead_s)
        if expires is not None:
            topic.expiries = Expiries(topic) if topic.expiries is None else topic.expiries
            topic.expiries.add(message.seq, expires)
            self._deadlines.touch(topic.expiries)

    # Restoring (`core.restore`)

    def readmit(self, topic: Topic, message: Message) -> None:
        """A message that is not plain is there again, its body in the store."""
        topic.messages[message.seq] = message
        self.memory_used += _cost(message)

    def restore_dead(self, group: Group, seq: int, dead: Dead) -> None:
        """A message is dead as it was."""
        topic = group.topic
        group.open[seq] = State.DEAD
        group.add_dead(seq, dead)
        topic.dead_letters += 1
        if topic.config.dead_letter_topic is not None:
            self.effects.to_move.append((group, seq))

    def free_dead(self, topic: Topic) -> None:
        """Dead letters that no other group wants take no room; to be asked when all groups are as they should be."""
        for group in topic.groups.values():
            for seq in group.dead:
                self._free_room(topic, seq)

    def watch(self, group: Group) -> None:
        """See to the deadlines of a group that has been restored."""
        self._deadlines.touch(group.delays)
        self._deadlines.touch(group.dead)

    # Leases

    def take(self, group: Group, now: float, most: int) -> list[int]:
        """Take up to that many READY messages, the next ones; none where delivery is paused. Each must be leased."""
        self._latest = now
        return [] if group.topic.paused else group.take_many(most)

    def lease(
        self, group: Group, seqs: Sequence[int], lease_s: float | None, now: float, owner: Owner | None = None
    ) -> list[Lease]:
        """Lease messages that were taken."""
        if not seqs:
            return []
        topic, had, opened, number = group.topic, group.attempts, group.open, self._lease_number
        topic_id, group_id, epoch, durable = topic.id, group.id, self.epoch, self._durable
        queue = group.lease_queue(topic.config.lease_s if lease_s is None else lease_s)
        leases: list[Lease] = []
        for seq in seqs:
            number += 1
            attempt = 1
            if had and seq in had:
                attempt += had.pop(seq)
                self.counts.redelivered += 1
            key = LeaseKey(topic_id, group_id, seq, epoch, number)
            lease = Lease(key, attempt, now, owner, queue)
            opened[seq] = self._by_id[lease.id] = lease
            queue.leases[lease] = None
            if durable:
                self.changed.setdefault((group, seq), now)
            leases.append(lease)
        self._lease_number = number
        group.leased += len(leases)
        self.leased += len(leases)
        self._deadlines.touch(queue)
        group.delivered.add(len(leases), now)
        return leases

    def hold(self, group: Group, lease: Lease, length_s: float, now: float) -> None:
        """A message is leased from now on."""
        group.open[lease.key.seq] = lease
        self._by_id[lease.id] = lease
        group.leased += 1
        self.leased += 1
        self.run_lease(group, lease, length_s, now)
        lease.durable_end = lease.deadline

    def run_lease(self, group: Group, lease: Lease, length_s: float, now: float) -> None:
        """Start a lease's clock anew."""
        queue = group.lease_queue(length_s)
        queue.add(lease, now)
        self._deadlines.touch(queue)

    def live_lease(self, group: Group, key: LeaseKey) -> Lease | None:
        """The lease of that key, if it has neither ended nor is being settled."""
        lease = group.lease_of(key.seq)
        return lease if lease is not None and lease.key == key and lease.queue is not None else None

    def undo(self, group: Group, key: LeaseKey) -> None:
        """The message never reached its consumer: back to its place, no attempt counted."""
        lease = self.live_lease(group, key)
        if lease is not None:
            lease.step(Event.UNDO)
            self._end(group, lease)
            self._come_back(group, key.seq, lease.attempt - 1)

    def shorten(self, group: Group, key: LeaseKey, length_s: float, now: float) -> None:
        """The consumer is gone: let the lease end within ``length_s``, unless it ends sooner anyway."""
        lease = group.lease_of(key.seq)
        if lease is None or lease.key != key or lease.deadline <= now + length_s:
            return
        lease.moves += 1
        lease.deadline = lease.durable_end = now + length_s
        lease.extending = ()
        # One that is being settled has no longer either, should that fail.
        if lease.queue is not None:
            self.run_lease(group, lease, length_s, now)
        self.note_change(group, key.seq)

    def _end(self, group: Group, lease: Lease) -> None:
        lease.leave_queue()
        del group.open[lease.key.seq], self._by_id[lease.id]
        group.leased -= 1
        self.leased -= 1
        self._tell_owner(lease)

    def _come_back(self, group: Group, seq: int, attempts: int) -> None:
        if group.topic.is_overdue(seq):
            self._let_drop(group, seq)
            return
        if attempts:
            group.attempts[seq] = attempts
        group.put_back(seq)
        self.note_change(group, seq)
        self.effects.deliverable[group] = None

    def _tell_owner(self, lease: Lease) -> None:
        if lease.owner is not None:
            self.effects.ended.append(lease)

    # Settle

    def settle(
        self, topic: Topic, lines: Sequence[SettleLine], now: float, wall: float
    ) -> tuple[list[SettleResult], Settle]:
        """Decide each line, in order. What was decided shows when the transaction commits."""
        transaction, by_id = Settle(self, wall), self._by_id
        settling = after(State.LEASED, Event.SETTLE)
        statuses: list[SettleStatus] = []
        for line in lines:
            lease = by_id.get(line.lease_id) if line.outcome == "ack" else None
            queue = None if lease is None else lease.queue
            if lease is None or queue is None or queue.group.topic is not topic or lease.deadline <= now:
                statuses.append(self._settle_line(topic, line, transaction, now))
                continue
            # Nearly all are such; the same as the other way.
            statuses.append("ok")
            transaction.settlements.append(Settlement(queue.group, lease, "ack", 0.0, None))
            lease.state = settling
            lease.settling = "ack"
            lease.settled_in = transaction
            lease.leave_queue()
        return list(many(SettleResult, [line.lease_id for line in lines], statuses)), transaction

    def acknowledge(self, group: Group, keys: Sequence[LeaseKey], wall: float) -> Settle:
        """Ack leases that the caller holds itself; those that have ended meanwhile are passed over."""
        return self._settle_own(group, keys, "ack", None, wall)

    def condemn(self, group: Group, keys: Sequence[LeaseKey], reason: str, wall: float) -> Settle:
        """Make dead letters of messages that can't be delivered."""
        return self._settle_own(group, keys, "dead", reason, wall)

    def _settle_own(
        self, group: Group, keys: Sequence[LeaseKey], outcome: Outcome, reason: str | None, wall: float
    ) -> Settle:
        transaction = Settle(self, wall)
        for key in keys:
            lease = self.live_lease(group, key)
            if lease is not None:
                self._begin(transaction, Settlement(group, lease, outcome, 0.0, reason), outcome)
        return transaction

    def _settle_line(self, topic: Topic, line: SettleLine, transaction: Settle, now: float) -> SettleStatus:
        key = LeaseKey.decode(line.lease_id)
        if key is None:
            return "unknown"
        group = topic.group_by_id.get(key.group) if key.incarnation == topic.id else None
        lease = group.lease_of(key.seq) if group is not None else None
        if group is None or lease is None or lease.key != key:
            return "ok" if self._recent.ended_by(line.lease_id, line.outcome, now) else "stale"
        if lease.queue is None:
            # Being settled: the same outcome waits for the same commit, another comes too late.
            if lease.settling != line.outcome:
                return "stale"
            if lease.settled_in is not None and lease.settled_in is not transaction:
                transaction.repeats.append((line, lease.settled_in))
            return "ok"
        if lease.deadline <= now:
            return "stale"
        if line.outcome == "extend":
            self._extend(group, lease, line.lease_s, transaction, now)
        else:
            self._begin(transaction, self._settlement(group, lease, line), line.outcome)
        return "ok"

    def _settlement(self, group: Group, lease: Lease, line: SettleLine) -> Settlement:
        config = group.topic.config
        if line.outcome != "nack":
            return Settlement(group, lease, line.outcome, 0.0, line.reason)
        if config.max_deliveries and lease.attempt >= config.max_deliveries:
            return Settlement(group, lease, "dead", 0.0, line.reason or "nacked on its last attempt")
        return Settlement(group, lease, "nack", self._hidden_s(config, lease, line), None)

    def _hidden_s(self, config: TopicConfig, lease: Lease, line: SettleLine) -> float:
        # Half of it is jitter: retries of messages that failed together come apart.
        longest = min(config.retry_max_s, config.retry_min_s * 2.0 ** min(lease.attempt - 1, 60))
        backoff_s = longest * (0.5 + 0.5 * self._jitter())
        if line.delay_s is None:
            return backoff_s
        # Without a limit of deliveries a poisoned head would come again and again, and starve the rest.
        endless = not config.max_deliveries and lease.attempt >= 3
        return max(line.delay_s, backoff_s) if endless else line.delay_s

    def _begin(self, transaction: Settle, settlement: Settlement, asked: Outcome) -> None:
        settlement.lease.step(Event.SETTLE)
        settlement.lease.settling = asked
        settlement.lease.settled_in = transaction
        settlement.lease.leave_queue()
        transaction.settlements.append(settlement)

    def _extend(self, group: Group, lease: Lease, lease_s: float | None, transaction: Settle, now: float) -> None:
        wanted_s = group.topic.config.lease_s if lease_s is None else lease_s
        length_s = min(wanted_s, lease.claimed_at + LEASE_TOTAL_MAX_S - now)
        until = now + length_s
        if until > lease.deadline:
            # At once, so that it doesn't end while this is being written. A shorter one waits for its commit.
            self.run_lease(group, lease, length_s, now)
        lease.extending = (*lease.extending, until)
        record = self._lease_record(group, lease, until, now, transaction.wall)
        transaction.extended.append(Extension(group, lease, until, record, lease.moves))

    def keep_extension(self, extension: Extension, now: float) -> None:
        """An extension is durable."""
        if extension.in_force:
            extension.lease.durable_end = extension.until
            self._extended(extension, now)

    def undo_extension(self, extension: Extension, now: float) -> None:
        """An extension could not be stored."""
        if extension.in_force:
            self._extended(extension, now)

    def _extended(self, extension: Extension, now: float) -> None:
        """The lease ends when the store says, unless others that are still being written keep it alive."""
        group, lease = extension.group, extension.lease
        written = lease.extending.index(extension.until)
        lease.extending = lease.extending[:written] + lease.extending[written + 1 :]
        end = max(lease.durable_end, *lease.extending) if lease.extending else lease.durable_end
        if lease.deadline == end:
            return
        lease.deadline = end
        if lease.queue is not None:
            self.run_lease(group, lease, max(0.0, end - now), now)
        self.note_change(group, lease.key.seq)

    def finish_all(self, settlements: Sequence[Settlement], now: float, wall: float) -> None:
        """Settlements are durable."""
        for (group, outcome), alike in groupby(settlements, key=_group_and_outcome):
            together = list(alike)
            if len(together) > 1 and outcome == "ack" and _ends_simply(group):
                self._finish_acks(group, together, now, wall)
                continue
            for settlement in together:
                self.finish(settlement, now, wall)

    def _finish_acks(self, group: Group, acks: Sequence[Settlement], now: float, wall: float) -> None:
        """The same as `finish` of each, for a group that `_ends_simply`: column by column where each is plain."""
        topic, leases = group.topic, [settlement.lease for settlement in acks]
        seqs = [lease.key.seq for lease in leases]
        messages = list(map(topic.messages.get, seqs))
        if (
            None in messages
            or max(seqs) >= group.cursor
            or list(map(group.open.get, seqs)) != leases
            or set(map(_key_and_times, messages)) != _NEITHER
        ):
            for settlement in acks:
                self.finish(settlement, now, wall)
            return
        whole = list(map(topic.messages.pop, seqs))
        state = after(State.SETTLING, Event.COMMIT_ACK)
        for lease in leases:
            lease.state = state
            # The transaction has the lease, and neither is to be left to the collection of garbage.
            lease.settled_in = None
            if lease.owner is not None:
                self.effects.ended.append(lease)
        lease_ids = [lease.id for lease in leases]
        for seq, lease_id in zip(seqs, lease_ids, strict=True):
            del group.open[seq], self._by_id[lease_id]
            self.changed.pop((group, seq), None)
        self._recent.note(lease_ids, "ack", now)
        group.settled.add(len(leases), now)
        group.leased -= len(leases)
        self.leased -= len(leases)
        self.memory_used -= sum(map(_cost, whole))
        topic.held_messages -= len(whole)
        topic.held_bytes -= sum(message.size for message in whole)
        self.effects.roomier[topic] = None

    def finish(self, settlement: Settlement, now: float, wall: float) -> None:
        """A settlement is durable."""
        group, lease, outcome, hidden_s, reason = settlement
        lease.settled_in = None
        seq = lease.key.seq
        if group.lease_of(seq) is not lease:
            return
        self._end(group, lease)
        group.settled.add(1, now)
        self._recent.note([lease.id], lease.settling or outcome, now)
        # What this transaction has written is newer than any note of the claim.
        self.changed.pop((group, seq), None)
        if outcome == "ack":
            lease.step(Event.COMMIT_ACK)
            self._done(group, seq)
        elif outcome == "dead":
            lease.step(Event.COMMIT_DEAD)
            self._die(group, seq, Dead(reason, lease.attempt, now, wall))
        elif outcome == "release":
            lease.step(Event.COMMIT_RELEASE)
            self._come_back(group, seq, lease.attempt - 1)
        else:
            lease.step(Event.COMMIT_NACK_DELAYED if hidden_s else Event.COMMIT_NACK)
            self._hide(group, seq, lease.attempt, hidden_s, now)

    def _hide(self, group: Group, seq: int, attempt: int, hidden_s: float, now: float) -> None:
        if not hidden_s or group.topic.is_overdue(seq):
            self._come_back(group, seq, attempt)
            return
        group.attempts[seq] = attempt
        group.open[seq] = State.DELAYED
        group.delay(seq, now + hidden_s)
        self._deadlines.touch(group.delays)

    # The end of a message

    def done_record(self, group: Group, seq: int) -> Record:
        """What a store must write so that a message is done with in a group."""
        topic = group.topic
        # A group that was dropped while this was on its way has no say in it any more.
        if len(topic.groups) == 1 and not group.gone:
            return MessageRemoved(topic.id, seq)
        message = topic.messages.get(seq)
        # The cursor says it of plain ones, but a store isn't told of a cursor that may have to go back.
        if (message is None or message.plain) and not group.purges:
            return HistoryCleared(topic.id, group.id, seq)
        return HistorySet(topic.id, group.id, seq, "gone")

    def _done(self, group: Group, seq: int) -> None:
        """A group has no more interest in a message: its key goes on, its room may be free, and it may be removed."""
        if group.let_go(seq):
            self.effects.deliverable[group] = None
        self.remove_if_done(group.topic, seq)

    def remove_if_done(self, topic: Topic, seq: int) -> None:
        """Remove a message that no group wants any more."""
        if not topic.holds(seq):
            return
        if topic.everybody_done(seq):
            if len(topic.groups) != 1:
                self.loose.append(MessageRemoved(topic.id, seq))
            self._remove(topic, seq)
        elif topic.dead_letters:
            self._free_room(topic, seq)

    def _remove(self, topic: Topic, seq: int) -> None:
        message = topic.messages.get(seq)
        if message is not None:
            self.memory_used -= _cost(message)
        for group in topic.groups.values():
            group.exempt -= topic.is_scheduled(seq)
            group.skipped.pop(seq, None)
        if topic.remove(seq):
            self.effects.roomier[topic] = None

    def _free_room(self, topic: Topic, seq: int) -> None:
        """A message that is dead wherever it isn't done with takes no room."""
        if seq in topic.unheld or not all(group.done(seq) or seq in group.dead for group in topic.groups.values()):
            return
        topic.free_room(seq)
        self.effects.roomier[topic] = None

    def _die(self, group: Group, seq: int, dead: Dead) -> None:
        topic = group.topic
        group.open[seq] = State.DEAD
        group.add_dead(seq, dead)
        topic.dead_letters += 1
        self.counts.dead += 1
        self._deadlines.touch(group.dead)
        if group.let_go(seq):
            self.effects.deliverable[group] = None
        self._free_room(topic, seq)
        if topic.config.dead_letter_topic is not None:
            self.effects.to_move.append((group, seq))

    def bury(self, group: Group, seq: int) -> None:
        """A dead letter is done with."""
        group.dead.pop(seq)
        group.topic.dead_letters -= 1
        del group.open[seq]
        self.changed.pop((group, seq), None)
        self.remove_if_done(group.topic, seq)

    def revive(self, group: Group, seq: int) -> None:
        """A dead letter is READY again, as if never delivered; it stays dead if its time is over meanwhile."""
        topic = group.topic
        if topic.is_overdue(seq):
            self.leave_dead(group, [seq])
            self.note_change(group, seq)
            return
        group.dead.pop(seq)
        topic.dead_letters -= 1
        topic.take_room(seq)
        del group.open[seq]
        self.changed.pop((group, seq), None)
        group.wait_again(seq)
        self.effects.deliverable[group] = None

    def leave_dead(self, group: Group, seqs: Iterable[int]) -> None:
        """Dead letters that were promised stay where they are, until their time is over."""
        for seq in seqs:
            group.dead.promised.pop(seq, None)
        self._deadlines.touch(group.dead)

    def redrive(self, group: Group, limit: int | None) -> Redrive:
        """Make dead letters READY again, the oldest first; those past their time to live would be dropped, and stay."""
        seqs = (seq for seq in group.dead if seq not in group.dead.promised and not group.topic.is_overdue(seq))
        return Redrive(self, group, list(islice(seqs, limit)))

    def move_dead(self, group: Group, seq: int, message: Message, now: float, wall: float) -> MoveDead | None:
        """Move a dead letter to the topic that its own names; None where that is missing or full: it stays."""
        topic = group.topic
        target = self.topics.get(topic.config.dead_letter_topic or "")
        if target is None or target.dropping or target is topic or message.body is None:
            return None
        if target.changing is not None and target.changing.new:
            # Should it fail to be made, what was moved would be lost with it.
            return None
        if seq not in group.dead or seq in group.dead.promised:
            return None
        dead = group.dead[seq]
        headers = dict(message.headers or {}) | {
            "dead-topic": topic.name,
            "dead-group": group.name,
            "dead-attempts": str(dead.attempt),
            "dead-reason": dead.reason or "",
        }
        new = NewMessage(message.body, message.content_type, headers)
        try:
            publish = self.publish(target, [new], now, wall)
        except TopicFull:
            return None
        assert isinstance(publish, Publish)
        return MoveDead(self, group, seq, publish)

    # Dropping what waits

    def purge(self, group: Group) -> Purge:
        """Drop everything READY or DELAYED; what is leased stays."""
        return Purge(self, group)

    def drop_waiting(self, group: Group) -> Iterator[tuple[int, int]]:
        """Take everything READY or DELAYED out of a group: the seqs, and how often each was delivered."""
        topic = group.topic
        for seq in [seq for seq, place in group.open.items() if place is State.READY or place is State.DELAYED]:
            attempts = group.attempts.get(seq, 0)
            self._take_out(group, seq)
            yield seq, attempts
        scheduled = topic.scheduled.when if topic.scheduled is not None else {}
        for seq in [seq for seq in scheduled if seq >= group.start and seq not in group.skipped]:
            group.skip(seq)
            yield seq, 0
        fresh = topic.next_from(group.cursor)
        while fresh < topic.visible_to:
            if fresh not in scheduled and fresh not in group.skipped:
                yield fresh, 0
            fresh = topic.next_from(fresh + 1)
        group.skipped = {seq: None for seq in group.skipped if seq in scheduled}
        group.cursor, group.passed = topic.visible_to, topic.visible_count

    def give_back(self, group: Group, dropped: Mapping[int, int]) -> None:
        """Undo `drop_waiting`."""
        for seq, attempts in sorted(dropped.items()):
            if group.topic.is_overdue(seq):
                self._let_drop(group, seq)
            elif group.topic.is_scheduled(seq):
                group.unskip(seq)
            else:
                if attempts:
                    group.attempts[seq] = attempts
                self.note_change(group, seq)
                group.wait_again(seq)
        self.effects.deliverable[group] = None

    def _take_out(self, group: Group, seq: int) -> bool:
        """Take a message that waits out of a group; whether it was waiting there."""
        place = group.open.get(seq)
        if place is State.READY:
            del group.open[seq]
            group.waiting -= 1
        elif place is State.DELAYED:
            del group.open[seq]
            group.delays.discard(seq)
        elif place is not None or seq < group.start or seq in group.purging or group.done(seq):
            return False
        else:
            group.skip(seq)
            group.passed += not group.topic.is_scheduled(seq)
        group.attempts.pop(seq, None)
        self.changed.pop((group, seq), None)
        if group.let_go(seq):
            self.effects.deliverable[group] = None
        return True

    def _let_drop(self, group: Group, seq: int) -> None:
        """A message past its time came back: it is dropped instead."""
        self.counts.dropped_by_ttl += 1
        self.loose.append(self.done_record(group, seq))
        self._done(group, seq)

    def _expire(self, topic: Topic, seq: int) -> None:
        """A message's time is over: it is dropped wherever it waits, and where it is leased when that ends."""
        if not topic.holds(seq):
            return
        topic.overdue = topic.overdue if topic.overdue is not None else set()
        topic.overdue.add(seq)
        for group in list(topic.groups.values()):
            if self._take_out(group, seq):
                self._let_drop(group, seq)
                if not topic.holds(seq):
                    return

    # Time

    def tick(self, now: float, wall: float) -> None:
        """Do what is due: leases end, hidden messages come back, times to live are over, dead letters go."""
        self._latest = now
        for timed in self._deadlines.due(now):
            if isinstance(timed, LeaseQueue):
                self._end_leases(timed, now, wall)
            elif isinstance(timed, Delays):
                self._unhide(timed, now)
            elif isinstance(timed, Scheduled):
                self._unschedule(timed, now)
            elif isinstance(timed, Expiries):
                for seq in timed.pop_due(now):
                    self._expire(_topic_of(timed), seq)
            elif isinstance(timed, DeadLetters):
                self._end_dead(timed, now)

    def next_deadline(self) -> float | None:
        """When to tick again; None: not before something else happens."""
        return self._deadlines.next()

    def _end_leases(self, queue: LeaseQueue, now: float, wall: float) -> None:
        group = queue.group
        limit = group.topic.config.max_deliveries
        while (head := queue.first()) is not None and head.deadline <= now:
            self.counts.expired_leases += 1
            last = bool(limit) and head.attempt >= limit
            head.step(Event.EXPIRE_LAST if last else Event.EXPIRE)
            self._end(group, head)
            if last:
                self._die(group, head.key.seq, Dead("lease expired", head.attempt, now, wall))
                self.note_change(group, head.key.seq)
            else:
                self._come_back(group, head.key.seq, head.attempt)
        if not queue.leases:
            group.lease_queues.pop(queue.length_s, None)

    def _unhide(self, delays: Delays, now: float) -> None:
        group = delays.owner
        assert isinstance(group, Group)
        for seq in delays.pop_due(now):
            group.put_back(seq)
            self.effects.deliverable[group] = None

    def _unschedule(self, scheduled: Scheduled, now: float) -> None:
        topic = _topic_of(scheduled)
        for seq in scheduled.pop_due(now):
            topic.visible_count += 1
            for group in topic.groups.values():
                if seq < group.start or seq in group.skipped:
                    group.exempt -= 1
                    group.passed += 1
                    if seq < group.cursor:
                        group.skipped.pop(seq, None)
                elif seq < group.cursor:
                    group.passed += 1
                    group.wait_again(seq)
                self.effects.deliverable[group] = None

    def _end_dead(self, letters: DeadLetters, now: float) -> None:
        group = letters.group
        while (head := letters.head()) is not None and head <= now:
            seq = letters.oldest()
            assert seq is not None
            self.loose.append(self.done_record(group, seq))
            # Its lease may not have been stored, and so not the cursor, which says with others that it is done with.
            self.note_cursor(group)
            self.bury(group, seq)

    # History: what a store keeps of leases and attempts

    def note_cursor(self, group: Group) -> None:
        """What the store may know of a group's cursor has changed."""
        if self._durable:
            self.moved[group] = None

    def note_change(self, group: Group, seq: int) -> None:
        """What the store knows of a message in a group isn't so any more."""
        if self._durable:
            self.changed.setdefault((group, seq), self._latest)

    def write_history(self, now: float, wall: float, since: float | None = None) -> WriteHistory | None:
        """What the store doesn't know yet and nobody waits for; None where it knows all.

        Where all that has changed has so after ``since``, that is left for later. What is being settled doesn't count,
        since its end is in the same batch. It is all or nothing: where the store has a group's cursor, only what it is
        told of those in front of it says that they are not done with.
        """
        loose, self.loose = (self.loose, []) if self._durable else ([], [])
        self.loose = []
        if since is not None and self._changed_since(since) and not self.moved:
            return WriteHistory(self, [], [], loose, loose) if loose else None
        if not self.changed and not self.moved and not loose:
            return None
        moved, self.moved = self.moved, {}
        # What has ended meanwhile says so by a record of its own, which this one might undo.
        places = [(group, seq) for group, seq in self.changed if not group.gone and seq in group.open]
        self.changed.clear()
        moved = {group: None for group in [*moved, *(group for group, _ in places)] if not group.gone}
        return WriteHistory(self, moved, places, loose, [*self._history(moved, places, now, wall), *loose])

    def _changed_since(self, since: float) -> bool:
        """Whether all that has changed has so after that, or is being settled."""
        for (group, seq), at in self.changed.items():
            if at > since:
                break
            place = group.open.get(seq)
            if not isinstance(place, Lease) or place.state is not State.SETTLING:
                return False
        return True

    def _history(
        self, moved: Iterable[Group], places: Sequence[tuple[Group, int]], now: float, wall: float
    ) -> Iterator[Record]:
        for group in moved:
            yield GroupPut(group.topic.id, group.id, group.name, group.start, group.storable_cursor)
        for group, seq in places:
            yield self._standing(group, seq, now, wall)

    def _standing(self, group: Group, seq: int, now: float, wall: float) -> Record:
        place, topic_id, attempt = group.open.get(seq), group.topic.id, group.attempts.get(seq, 0)
        if isinstance(place, Lease):
            return self._lease_record(group, place, place.deadline, now, wall)
        if place is State.DEAD:
            dead = group.dead[seq]
            return HistorySet(topic_id, group.id, seq, "dead", dead.attempt, dead.died_at, reason=dead.reason)
        if place is State.DELAYED:
            left_s = max(0.0, group.delays.when[seq] - now)
            return HistorySet(topic_id, group.id, seq, "delayed", attempt, wall + left_s, left_s)
        return HistorySet(topic_id, group.id, seq, "ready", attempt)

    def _lease_record(self, group: Group, lease: Lease, end: float, now: float, wall: float) -> HistorySet:
        key, left_s = lease.key, max(0.0, end - now)
        return HistorySet(
            key.incarnation,
            group.id,
            key.seq,
            "leased",
            lease.attempt,
            wall + left_s,
            left_s,
            epoch=key.epoch,
            number=key.number,
        )


_DUE_AT = Message._fields.index("due_at")
_AT_ONCE_AND_FOR_EVER = (None, None)


_group_and_outcome = attrgetter("group", "outcome")
_key_and_times = attrgetter("key", "due_at", "expires_at")
_NEITHER = {(None, None, None)}


def _ends_simply(group: Group) -> bool:
    """Whether a plain message that is acked there goes, and nothing else has to be looked at."""
    topic = group.topic
    return not (len(topic.groups) != 1 or group.gone or group.purging or topic.unheld or topic.overdue)


def _cost(message: Message) -> int:
    return MESSAGE_COST + (0 if message.body is None else message.size)


def _instant(at: float | None, message: Message, now: float, ahead_s: float) -> float | None:
    """An instant of a message by ``now``'s clock; never further away than at its publish, whatever the wall says."""
    return None if at is None else min(at - ahead_s, now + at - message.published_at)


def _topic_of(due: Scheduled | Expiries) -> Topic:
    owner = due.owner
    assert isinstance(owner, Topic)
    return owner
