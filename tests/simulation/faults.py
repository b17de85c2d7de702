"""Deliberate faults: each breaks one thing that the checker must then find. Nothing but tests uses them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

from tests.simulation.disk import MemoryDisk, WatchedStore
from tests.support.stores import KeepingStore
from wakeq_server.core import queue as deciding
from wakeq_server.core import restore as restoring
from wakeq_server.core import transactions
from wakeq_server.core.dedup import Dedup
from wakeq_server.core.leases import Lease, LeaseQueue
from wakeq_server.core.lifecycle import State
from wakeq_server.core.model import GroupPut, HistoryCleared, HistorySet, KeySeen, Message, MessageAdded, Snapshot
from wakeq_server.core.queue import QueueCore
from wakeq_server.core.topic import Due, Group, Topic
from wakeq_server.engine import bodies
from wakeq_server.engine.commits import GroupCommit
from wakeq_server.engine.dealing import Dealer, EmbeddedSubscription
from wakeq_server.engine.embedded import EmbeddedEngine
from wakeq_server.engine.holding import Holding
from wakeq_server.engine.parking import Parking
from wakeq_server.errors import StorageError

Replace = Callable[[Any], Callable[..., Any]]


class Fault(NamedTuple):
    """One thing that goes wrong."""

    owner: Any
    name: str
    replace: Replace
    """From what was there, what is there instead."""
    seed: int
    """The one whose simulation shows it soonest, when that was looked for."""


FAULTS: dict[str, Fault] = {}


def fault(owner: Any, name: str, faults: dict[str, Fault] = FAULTS, *, seed: int = 1) -> Callable[[Replace], Replace]:
    """Register a replacement of an attribute under its function's name."""

    def register(replace: Replace) -> Replace:
        faults[replace.__name__] = Fault(owner, name, replace, seed)
        return replace

    return register


@contextmanager
def injected(name: str, faults: dict[str, Fault] = FAULTS) -> Iterator[None]:
    """Run with a fault; `none` is none."""
    if name == "none":
        yield
        return
    owner, attribute, replace, _ = faults[name]
    with patch.object(owner, attribute, replace(getattr(owner, attribute))):
        yield


# Waking and parking


@fault(Dealer, "_undo")
def undo_is_dropped(_: Any) -> Callable[..., Any]:
    """Whoever is cancelled, or hangs up, keeps what it was handed."""
    return lambda self, group, keys: self._act()


@fault(Dealer, "deal", seed=3)
def deal_is_forgotten(original: Any) -> Callable[..., Any]:
    """Every third time that something becomes deliverable nobody is woken."""
    calls = iter(range(1 << 62))
    return lambda self, group: None if next(calls) % 3 == 0 else original(self, group)


@fault(Dealer, "deal", seed=3)
def one_message_wakes_two(original: Any) -> Callable[..., Any]:
    def deal(self: Dealer, group: Group) -> None:
        woken = self.woken
        original(self, group)
        parking = self._parkings.get(group)
        if self.woken > woken and parking:
            parking.first(1)[0].wake()

    return deal


@fault(Parking, "first", seed=4)
def last_parked_goes_first(_: Any) -> Callable[..., Any]:
    return lambda self, count: [self._line.popitem()[0] for _ in range(min(count, len(self._line)))]


@fault(Dealer, "made_room")
def prefetch_room_is_not_noticed(_: Any) -> Callable[..., Any]:
    return lambda self, subscription: None


@fault(EmbeddedSubscription, "room", seed=3)
def prefetch_is_ignored(_: Any) -> Callable[..., Any]:
    return lambda self, limit: limit


@fault(Dealer, "drain")
def drain_wakes_nobody(_: Any) -> Callable[..., Any]:
    def drain(self: Dealer) -> None:
        self.draining = True

    return drain


# Time


@fault(EmbeddedEngine, "_watch_history_and_clock")
def deadline_is_forgotten(_: Any) -> Callable[..., Any]:
    """The timer is not set anew for a deadline that comes sooner."""

    def watch(self: EmbeddedEngine) -> None:
        if self.core.changed or self.core.loose:
            self._commits.ride()

    return watch


@fault(QueueCore, "tick")
def clock_runs_ahead(original: Any) -> Callable[..., Any]:
    return lambda self, now, wall: original(self, now + 2.0, wall + 2.0)


@fault(QueueCore, "tick")
def clock_stands_back(original: Any) -> Callable[..., Any]:
    return lambda self, now, wall: original(self, now - 2.0, wall - 2.0)


@fault(QueueCore, "_end_leases")
def expired_lease_is_not_returned(_: Any) -> Callable[..., Any]:
    def end_leases(self: QueueCore, queue: LeaseQueue, now: float, wall: float) -> None:
        while (head := queue.first()) is not None and head.deadline <= now:
            head.leave_queue()

    return end_leases


@fault(QueueCore, "shorten", seed=3)
def grace_is_ignored(_: Any) -> Callable[..., Any]:
    return lambda self, group, key, length_s, now: None


@fault(Due, "pop_due")
def delayed_message_is_forgotten(original: Any) -> Callable[..., Any]:
    def pop_due(self: Due, now: float) -> Iterator[int]:
        yield from list(original(self, now))[:-1]

    return pop_due


@fault(Group, "done")
def time_to_live_ends_leased_messages(original: Any) -> Callable[..., Any]:
    """A message that is overdue counts as done with, in whose hands ever it is."""

    def done(self: Group, seq: int) -> bool:
        place = self.open.get(seq)
        if self.topic.overdue is not None and seq in self.topic.overdue and isinstance(place, Lease):
            return True
        return bool(original(self, seq))

    return done


@fault(QueueCore, "_expire")
def time_to_live_ends_nothing(_: Any) -> Callable[..., Any]:
    return lambda self, topic, seq: None


# Commits


@fault(GroupCommit, "write")
def answered_before_the_commit(_: Any) -> Callable[..., Any]:
    async def write(self: GroupCommit, transaction: Any) -> None:
        self.submit(transaction)
        self._urgent.set()

    return write


@fault(EmbeddedEngine, "_durably")
def settled_before_the_commit(original: Any) -> Callable[..., Any]:
    """Only settles: publishers are still answered when they may be."""

    async def durably(self: EmbeddedEngine, transaction: Any) -> None:
        if isinstance(transaction, transactions.Settle):
            self._submit(transaction)
        else:
            await original(self, transaction)

    return durably


@fault(transactions.Publish, "abort")
def failed_publish_stays_visible(_: Any) -> Callable[..., Any]:
    def abort(self: transactions.Publish, error: Any, now: float) -> None:
        self.error = error
        self.core.show(self.topic, self.messages, now, self.wall - self.now)

    return abort


@fault(transactions.Settle, "abort")
def failed_settle_ends_the_lease(_: Any) -> Callable[..., Any]:
    def abort(self: transactions.Settle, error: Any, now: float) -> None:
        self.commit(now)
        self.error = error

    return abort


@fault(GroupCommit, "_try")
def failed_commit_is_called_a_success(original: Any) -> Callable[..., Any]:
    def attempt(self: GroupCommit, batch: list[Any]) -> StorageError | None:
        error: StorageError | None = original(self, batch)
        return error if len(batch) > 1 else None

    return attempt


@fault(Dedup, "forget")
def key_of_a_failed_publish_is_kept(_: Any) -> Callable[..., Any]:
    return lambda self, key: self.settle(key)


@fault(Dedup, "get")
def key_is_forgotten(_: Any) -> Callable[..., Any]:
    return lambda self, key, now: None


@fault(WatchedStore, "commit")
def half_a_batch_is_stored(original: Any) -> Callable[..., Any]:
    def commit(self: WatchedStore, batch: Sequence[Any]) -> None:
        rows = [list(records) for records in batch]
        for records in rows:
            added = [record for record in records if isinstance(record, MessageAdded)]
            if len(added) > 1:
                records.remove(added[-1])
        original(self, rows)

    return commit


# Keys, order, purges


@fault(Group, "let_go", seed=8)
def dead_letter_keeps_its_key(original: Any) -> Callable[..., Any]:
    def let_go(self: Group, seq: int) -> bool:
        return False if self.open.get(seq) is State.DEAD else bool(original(self, seq))

    return let_go


@fault(Group, "_hold")
def key_holds_nobody_back(_: Any) -> Callable[..., Any]:
    return lambda self, key, seq: self.holders.__setitem__(key, seq) is None


@fault(Group, "put_back", seed=8)
def returned_message_loses_its_place(_: Any) -> Callable[..., Any]:
    """What comes back goes behind what came back before."""

    def put_back(self: Group, seq: int) -> None:
        self.open[seq] = State.READY
        self.waiting += 1
        self.returned.append(seq)

    return put_back


@fault(QueueCore, "undo")
def undone_lease_counts_an_attempt(_: Any) -> Callable[..., Any]:
    def undo(self: QueueCore, group: Group, key: Any) -> None:
        lease = self.live_lease(group, key)
        if lease is not None:
            self._end(group, lease)
            self._come_back(group, key.seq, lease.attempt)

    return undo


@fault(QueueCore, "finish")
def release_counts_an_attempt(original: Any) -> Callable[..., Any]:
    def finish(self: QueueCore, settlement: transactions.Settlement, now: float, wall: float) -> None:
        settlement.lease.attempt += settlement.outcome == "release"
        original(self, settlement, now, wall)

    return finish


@fault(QueueCore, "finish")
def release_loses_the_message(original: Any) -> Callable[..., Any]:
    """It is done with, as if it were acked."""

    def finish(self: QueueCore, settlement: transactions.Settlement, now: float, wall: float) -> None:
        lost = settlement.outcome == "release"
        original(self, settlement._replace(outcome="ack") if lost else settlement, now, wall)

    return finish


@fault(transactions.Settle, "records", seed=5)
def release_forgets_the_message_on_disk(original: Any) -> Callable[..., Any]:
    """No history and no attempts: in front of the cursor that says that it is done with."""

    def records(self: transactions.Settle) -> Iterator[Any]:
        cleared = {(one.group.topic.id, one.lease.key.seq) for one in self.settlements if one.outcome == "release"}
        for record in original(self):
            if isinstance(record, HistorySet) and (record.topic_id, record.seq) in cleared:
                yield HistoryCleared(record.topic_id, record.group, record.seq)
            else:
                yield record

    return records


@fault(QueueCore, "_free_room")
def dead_letters_take_room(_: Any) -> Callable[..., Any]:
    return lambda self, topic, seq: None


# Room


@fault(QueueCore, "_check_room")
def limits_are_ignored(_: Any) -> Callable[..., Any]:
    return lambda self, topic, count, size: None


@fault(QueueCore, "_check_room")
def full_one_message_too_early(original: Any) -> Callable[..., Any]:
    return lambda self, topic, count, size: original(self, topic, count + 1, size)


@fault(QueueCore, "_check_room")
def bytes_have_no_limit(original: Any) -> Callable[..., Any]:
    return lambda self, topic, count, size: original(self, topic, count, min(size, -topic.held_bytes))


@fault(transactions.Publish, "abort")
def room_of_a_failed_publish_is_kept(original: Any) -> Callable[..., Any]:
    def abort(self: transactions.Publish, error: Any, now: float) -> None:
        held = self.topic.held_messages, self.topic.held_bytes
        original(self, error, now)
        self.topic.held_messages, self.topic.held_bytes = held

    return abort


@fault(QueueCore, "_let_drop")
def room_of_an_expired_message_is_kept(original: Any) -> Callable[..., Any]:
    def let_drop(self: QueueCore, group: Group, seq: int) -> None:
        held = group.topic.held_messages, group.topic.held_bytes
        original(self, group, seq)
        group.topic.held_messages, group.topic.held_bytes = held

    return let_drop


@fault(Topic, "take_room")
def bytes_of_a_redriven_message_are_not_counted(original: Any) -> Callable[..., Any]:
    def take_room(self: Topic, seq: int) -> None:
        held = self.held_bytes
        original(self, seq)
        self.held_bytes = held

    return take_room


@fault(Holding, "wake")
def room_wakes_no_publisher(_: Any) -> Callable[..., Any]:
    return lambda self, topic: None


@fault(QueueCore, "_admit", seed=5)
def memory_budget_is_ignored(original: Any) -> Callable[..., Any]:
    def admit(self: QueueCore, topic: Topic, message: Message) -> None:
        with patch.object(self, "memory_budget", 1 << 62):
            original(self, topic, message)

    return admit


# Restarts


@fault(restoring, "_left_s", seed=15)
def clock_set_back_hides_messages(_: Any) -> Callable[..., Any]:
    """What is left of a stored lease or delay isn't kept within what it was at the start."""
    return lambda history, wall: max(0.0, history.due_at - wall)


@fault(deciding, "_instant", seed=15)
def clock_set_back_prolongs_times(_: Any) -> Callable[..., Any]:
    """Nor what is left of a message's own delay or time to live."""
    return lambda at, message, now, ahead_s: None if at is None else at - ahead_s


@fault(restoring, "_died_at", seed=7)
def last_attempt_that_ran_out_unattended_comes_again(_: Any) -> Callable[..., Any]:
    return lambda topic, history, wall: history.due_at if history.standing == "dead" else None


@fault(KeepingStore, "load", seed=3)
def epoch_is_not_raised(original: Any) -> Callable[..., Any]:
    def load(self: KeepingStore) -> Snapshot:
        snapshot: Snapshot = original(self)
        return snapshot._replace(epoch=1)

    return load


@fault(KeepingStore, "apply", seed=7)
def cursor_is_lost_at_restart(original: Any) -> Callable[..., Any]:
    """A group's row is written once, and then never again."""

    def apply(self: KeepingStore, record: Any) -> None:
        if not (isinstance(record, GroupPut) and (record.topic_id, record.group) in self.groups):
            original(self, record)

    return apply


@fault(KeepingStore, "apply", seed=4)
def delays_are_not_stored(original: Any) -> Callable[..., Any]:
    def apply(self: KeepingStore, record: Any) -> None:
        if not (isinstance(record, HistorySet) and record.standing == "delayed"):
            original(self, record)

    return apply


@fault(KeepingStore, "apply", seed=4)
def idempotency_keys_are_not_stored(original: Any) -> Callable[..., Any]:
    return lambda self, record: None if isinstance(record, KeySeen) else original(self, record)


@fault(restoring, "_restore_hidden")
def leases_are_lost_at_restart(_: Any) -> Callable[..., Any]:
    def restore(core: QueueCore, group: Group, history: HistorySet, now: float, left_s: float) -> None:
        group.attempts[history.seq] = history.attempt
        group.put_back(history.seq)

    return restore


@fault(MemoryDisk, "open")
def nothing_survives(_: Any) -> Callable[..., Any]:
    return lambda self: KeepingStore()


@fault(bodies.Bodies, "_take")
def a_body_is_another_messages(original: Any) -> Callable[..., Any]:
    def take(self: bodies.Bodies, topic_id: int, seq: int) -> Message | None:
        message: Message | None = original(self, topic_id, seq)
        return message and message._replace(body=b'"another.0/1"')

    return take
