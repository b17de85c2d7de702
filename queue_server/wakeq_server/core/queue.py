"""Every decision about messages, synchronous and without a clock: ``now`` is a parameter.

Calls change state at once and return what is to be told or written; what happens to *others* by that
(a group has something to deliver, a lease has ended) gathers in `effects`, for the engine to act on and clear.
`tick` does whatever time has brought, and `next_deadline` says when to call it again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from wakeq_server.core.deadlines import Deadlines
from wakeq_server.core.leases import Lease, LeaseQueue, Owner, RecentOutcomes
from wakeq_server.core.lifecycle import Event
from wakeq_server.core.model import (
    Delivery,
    HistoryCleared,
    HistorySet,
    LeaseKey,
    Message,
    NewMessage,
    Record,
    SettleResult,
    SettleStatus,
    TopicConfig,
)
from wakeq_server.core.model import Settle as SettleLine
from wakeq_server.core.topic import Delays, Group, Topic
from wakeq_server.core.transactions import (
    ConfigureTopic,
    CreateTopic,
    DropTopic,
    Publish,
    Settle,
    Settlement,
    WriteHistory,
)
from wakeq_server.errors import TopicFull, TopicNotFound

LEASE_TOTAL_MAX_S = 43_200.0


@dataclass
class Effects:
    """What decisions mean for others. The engine takes it and leaves an empty one."""

    deliverable: dict[Group, None] = field(default_factory=dict)
    ended: list[Lease] = field(default_factory=list)
    topics_gone: list[Topic] = field(default_factory=list)
    roomier: dict[Topic, None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.deliverable or self.ended or self.topics_gone or self.roomier)


class QueueCore:
    """All topics of one server."""

    def __init__(self, *, epoch: int, jitter: Callable[[], float], keep_history: bool) -> None:
        """``jitter`` gives numbers in [0, 1); ``keep_history`` is off where no store would read it."""
        self.epoch = epoch
        self.topics: dict[str, Topic] = {}
        self.effects = Effects()
        self.changed: dict[tuple[Group, int], None] = {}
        self.redelivered = 0
        self.expired = 0
        self.leased = 0
        """How many leases there are, in all topics."""
        self._jitter = jitter
        self._keep_history = keep_history
        self._deadlines = Deadlines()
        self._recent = RecentOutcomes()
        self._lease_number = 0
        self.next_topic_id = 1

    # Topics

    def topic(self, name: str) -> Topic:
        """The topic of that name. Raises TopicNotFound."""
        topic = self.topics.get(name)
        if topic is None or topic.dropping:
            raise TopicNotFound(name)
        return topic

    def create(self, name: str, config: TopicConfig, wall: float) -> CreateTopic:
        """Make a topic; there must be none of that name."""
        assert name not in self.topics
        topic = Topic(self.next_topic_id, name, config, wall)
        self.next_topic_id += 1
        self.topics[name] = topic
        return CreateTopic(self, topic)

    def configure(self, topic: Topic, config: TopicConfig) -> ConfigureTopic:
        """Replace a topic's configuration. Leases that run keep their length."""
        return ConfigureTopic(topic, config)

    def drop(self, topic: Topic) -> DropTopic:
        """Delete a topic; until that is durable, it is there but not to be found."""
        topic.dropping = True
        return DropTopic(self, topic)

    def forget(self, topic: Topic) -> None:
        """Take a topic out, and stop every clock in it."""
        topic.gone = True
        if self.topics.get(topic.name) is topic:
            del self.topics[topic.name]
        for group in topic.groups.values():
            for lease in group.leases.values():
                lease.leave_queue()
                self._tell_owner(lease)
            self.leased -= len(group.leases)
            group.leases.clear()
        self.effects.topics_gone.append(topic)

    # Publish

    def publish(self, topic: Topic, new: Sequence[NewMessage], wall: float) -> Publish:
        """Take messages in. Raises TopicFull, and then has taken none."""
        size = sum(len(message.body) for message in new)
        self._check_room(topic, len(new), size)
        first = topic.next_seq
        topic.next_seq += len(new)
        topic.held_messages += len(new)
        topic.held_bytes += size
        messages = [
            Message(seq, message.body, wall, message.content_type, message.headers)
            for seq, message in enumerate(new, first)
        ]
        return Publish(self, topic, messages)

    def _check_room(self, topic: Topic, count: int, size: int) -> None:
        config = topic.config
        if config.max_messages is not None and topic.held_messages + count > config.max_messages:
            raise TopicFull(f"topic {topic.name} holds its {config.max_messages} messages", retry_after_s=1)
        if config.max_bytes is not None and topic.held_bytes + size > config.max_bytes:
            raise TopicFull(f"topic {topic.name} holds its {config.max_bytes} bytes", retry_after_s=1)

    # Leases

    def claim(self, group: Group, lease_s: float | None, now: float, owner: Owner | None = None) -> Lease | None:
        """Lease the next READY message; None where there is none."""
        message = group.take()
        if message is None:
            return None
        self._lease_number += 1
        attempt = group.attempts.pop(message.seq, 0) + 1
        if attempt > 1:
            self.redelivered += 1
        key = LeaseKey(group.topic.id, group.id, message.seq, self.epoch, self._lease_number)
        lease = Lease(key, attempt, now, owner)
        group.leases[message.seq] = lease
        self.leased += 1
        self.run_lease(group, lease, group.topic.config.lease_s if lease_s is None else lease_s, now)
        self._note_change(group, message.seq)
        return lease

    def run_lease(self, group: Group, lease: Lease, length_s: float, now: float) -> None:
        """Start a lease's clock anew."""
        queue = group.lease_queue(length_s)
        queue.add(lease, now)
        self._deadlines.touch(queue)

    def resume_leases(self, group: Group, leases: Sequence[tuple[float, Lease]], now: float) -> None:
        """Take up leases of before a restart, each with what is left of it, and watch the group's delays."""
        for left_s, lease in leases:
            group.leases[lease.key.seq] = lease
            self.leased += 1
            self.run_lease(group, lease, left_s, now)
        self._deadlines.touch(group.delays)

    def delivery(self, group: Group, lease: Lease, now: float, wall: float) -> Delivery:
        """What a consumer is given for a lease."""
        message = group.topic.messages[lease.key.seq]
        return Delivery(message, lease.key, lease.attempt, wall + lease.deadline - now)

    def live_lease(self, group: Group, key: LeaseKey) -> Lease | None:
        """The lease of that key, if it has neither ended nor is being settled."""
        lease = group.leases.get(key.seq)
        return lease if lease is not None and lease.key == key and lease.queue is not None else None

    def undo(self, group: Group, key: LeaseKey) -> None:
        """The message never reached its consumer: back to its place, no attempt counted."""
        lease = self.live_lease(group, key)
        if lease is not None:
            lease.step(Event.UNDO)
            self._return(group, lease, lease.attempt - 1)

    def shorten(self, group: Group, key: LeaseKey, length_s: float, now: float) -> None:
        """The consumer is gone: let the lease end within ``length_s``, unless it ends sooner anyway."""
        lease = self.live_lease(group, key)
        if lease is not None and lease.deadline > now + length_s:
            self.run_lease(group, lease, length_s, now)
            self._note_change(group, key.seq)

    def _return(self, group: Group, lease: Lease, attempts: int) -> None:
        lease.leave_queue()
        del group.leases[lease.key.seq]
        self.leased -= 1
        if attempts:
            group.attempts[lease.key.seq] = attempts
        group.put_back(lease.key.seq)
        self._note_change(group, lease.key.seq)
        self.effects.deliverable[group] = None
        self._tell_owner(lease)

    def _tell_owner(self, lease: Lease) -> None:
        if lease.owner is not None:
            self.effects.ended.append(lease)

    # Settle

    def settle(
        self, topic: Topic, lines: Sequence[SettleLine], now: float, wall: float
    ) -> tuple[list[SettleResult], Settle]:
        """Decide each line, in order. What was decided shows when the transaction commits."""
        transaction = Settle(self, wall)
        results = [SettleResult(line.lease_id, self._settle_line(topic, line, transaction, now)) for line in lines]
        return results, transaction

    def acknowledge(self, group: Group, keys: Sequence[LeaseKey], wall: float) -> Settle:
        """Ack leases that the caller holds itself; those that have ended meanwhile are passed over."""
        transaction = Settle(self, wall)
        for key in keys:
            lease = self.live_lease(group, key)
            if lease is not None:
                self._begin(transaction, Settlement(group, lease, "ack", 0.0))
        return transaction

    def _settle_line(self, topic: Topic, line: SettleLine, transaction: Settle, now: float) -> SettleStatus:
        key = LeaseKey.decode(line.lease_id)
        if key is None:
            return "unknown"
        group = topic.group_by_id(key.group) if key.incarnation == topic.id else None
        lease = group.leases.get(key.seq) if group is not None else None
        if group is None or lease is None or lease.key != key:
            return "ok" if self._recent.ended_by(key, line.outcome, now) else "stale"
        if lease.queue is None:
            # Being settled: the same outcome waits for the same commit, another comes too late.
            same = any(s.lease is lease and s.outcome == line.outcome for s in transaction.settlements)
            return "ok" if same or lease.settling == line.outcome else "stale"
        if lease.deadline <= now:
            return "stale"
        if line.outcome == "extend":
            self._extend(group, lease, line.lease_s, transaction, now)
        else:
            hidden_s = self._hidden_s(topic.config, lease, line) if line.outcome == "nack" else 0.0
            self._begin(transaction, Settlement(group, lease, line.outcome, hidden_s))
        return "ok"

    def _begin(self, transaction: Settle, settlement: Settlement) -> None:
        settlement.lease.step(Event.SETTLE)
        settlement.lease.settling = settlement.outcome
        settlement.lease.leave_queue()
        transaction.settlements.append(settlement)

    def _extend(self, group: Group, lease: Lease, lease_s: float | None, transaction: Settle, now: float) -> None:
        wanted_s = group.topic.config.lease_s if lease_s is None else lease_s
        length_s = min(wanted_s, lease.claimed_at + LEASE_TOTAL_MAX_S - now)
        self.run_lease(group, lease, length_s, now)
        transaction.extended.append(self._lease_record(group, lease, now, transaction.wall))

    def _hidden_s(self, config: TopicConfig, lease: Lease, line: SettleLine) -> float:
        if line.delay_s is not None:
            return line.delay_s
        # Full jitter on the upper half: retries of messages that failed together come apart.
        longest = min(config.retry_max_s, config.retry_min_s * 2.0 ** min(lease.attempt - 1, 60))
        return longest * (0.5 + 0.5 * self._jitter())

    def finish(self, settlement: Settlement, now: float) -> None:
        """A settlement is durable."""
        group, lease, outcome, hidden_s = settlement
        seq = lease.key.seq
        if group.leases.get(seq) is not lease:
            return
        del group.leases[seq]
        self.leased -= 1
        self._recent.note(lease.key, outcome, now)
        # What this transaction has written is newer than any note of the claim.
        self.changed.pop((group, seq), None)
        if outcome == "ack":
            lease.step(Event.COMMIT_ACK)
            group.topic.remove(seq)
            self.effects.roomier[group.topic] = None
        else:
            lease.step(Event.COMMIT_NACK_DELAYED if hidden_s else Event.COMMIT_NACK)
            group.attempts[seq] = lease.attempt
            self._hide(group, seq, hidden_s, now)
        self._tell_owner(lease)

    def _hide(self, group: Group, seq: int, hidden_s: float, now: float) -> None:
        if hidden_s:
            group.delays.add(seq, now + hidden_s)
            self._deadlines.touch(group.delays)
        else:
            group.put_back(seq)
            self.effects.deliverable[group] = None

    # Time

    def tick(self, now: float) -> None:
        """Do what is due: leases end, hidden messages come back."""
        for timed in self._deadlines.due(now):
            if isinstance(timed, LeaseQueue):
                self._expire(timed, now)
            elif isinstance(timed, Delays):
                self._unhide(timed, now)

    def next_deadline(self) -> float | None:
        """When to tick again; None: not before something else happens."""
        return self._deadlines.next()

    def _expire(self, queue: LeaseQueue, now: float) -> None:
        group = queue.group
        while (head := queue.first()) is not None and head.deadline <= now:
            head.step(Event.EXPIRE)
            self.expired += 1
            self._return(group, head, head.attempt)
        if not queue.leases:
            group.lease_queues.pop(queue.length_s, None)

    def _unhide(self, delays: Delays, now: float) -> None:
        group = delays.group
        if group.topic.gone:
            return
        for seq in delays.pop_due(now):
            group.put_back(seq)
            self.effects.deliverable[group] = None

    # History: what a store keeps of leases and attempts

    def _note_change(self, group: Group, seq: int) -> None:
        if self._keep_history:
            self.changed[group, seq] = None

    def write_history(self, now: float, wall: float) -> WriteHistory | None:
        """Everything about leases that the store doesn't know yet; None where it knows all."""
        if not self.changed:
            return None
        places = [place for place in self.changed if not place[0].topic.gone]
        self.changed.clear()
        return WriteHistory(self, places, list(self._history(places, now, wall)))

    def _history(self, places: Sequence[tuple[Group, int]], now: float, wall: float) -> Iterator[Record]:
        for group, seq in places:
            lease = group.leases.get(seq)
            if lease is not None:
                yield self._lease_record(group, lease, now, wall)
            elif seq in group.attempts:
                yield HistorySet(group.topic.id, group.id, seq, group.attempts[seq])
            else:
                yield HistoryCleared(group.topic.id, group.id, seq)

    def _lease_record(self, group: Group, lease: Lease, now: float, wall: float) -> HistorySet:
        key, left_s = lease.key, max(0.0, lease.deadline - now)
        return HistorySet(
            key.incarnation, group.id, key.seq, lease.attempt, key.epoch, key.number, wall + left_s, left_s
        )
