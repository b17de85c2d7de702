"""Deliberate faults, each of which the checker must find: a checker that finds none proves nothing.

Each is switched on by a context manager, and breaks one promise in one place.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from tests.simulation.disk import MemoryDisk
from wakeq_server.core.dedup import Dedup
from wakeq_server.core.leases import LeaseQueue
from wakeq_server.core.lifecycle import State
from wakeq_server.core.queue import QueueCore
from wakeq_server.core.topic import Delays, Group, Scheduled
from wakeq_server.core.transactions import Publish, Settle
from wakeq_server.engine.commits import GroupCommit
from wakeq_server.engine.dealing import Dealer, EmbeddedSubscription
from wakeq_server.engine.embedded import EmbeddedEngine

FAULTS: dict[str, Callable[[], Any]] = {}


def fault(function: Callable[[], Iterator[None]]) -> Callable[[], Any]:
    """Listed under its name."""
    FAULTS[function.__name__] = contextmanager(function)
    return FAULTS[function.__name__]


@fault
def cancelled_consumers_keep_what_they_were_handed() -> Iterator[None]:
    leave = Dealer._leave
    with patch.object(Dealer, "_leave", lambda self, parked, *, undo: leave(self, parked, undo=False)):
        yield


@fault
def released_messages_stay_leased() -> Iterator[None]:
    with patch.object(Dealer, "release", lambda *_: None):
        yield


@fault
def a_message_that_comes_back_wakes_nobody() -> Iterator[None]:
    come_back = QueueCore._come_back

    def silent(self: QueueCore, group: Group, *more: Any) -> None:
        before = group in self.effects.deliverable
        come_back(self, group, *more)
        if not before:
            self.effects.deliverable.pop(group, None)

    with patch.object(QueueCore, "_come_back", silent):
        yield


@fault
def a_delay_that_falls_due_wakes_nobody() -> Iterator[None]:
    unhide = QueueCore._unhide

    def silent(self: QueueCore, delays: Delays, now: float) -> None:
        unhide(self, delays, now)
        self.effects.deliverable.clear()

    with patch.object(QueueCore, "_unhide", silent):
        yield


@fault
def a_publish_wakes_nobody() -> Iterator[None]:
    show = QueueCore.show

    def silent(self: QueueCore, topic: Any, *more: Any) -> None:
        show(self, topic, *more)
        for group in topic.groups.values():
            self.effects.deliverable.pop(group, None)

    with patch.object(QueueCore, "show", silent):
        yield


@fault
def the_timer_is_never_set() -> Iterator[None]:
    with patch.object(QueueCore, "next_deadline", lambda _: None):
        yield


@fault
def leases_never_end() -> Iterator[None]:
    with patch.object(QueueCore, "_end_leases", lambda *_: None), patch.object(LeaseQueue, "head", lambda _: None):
        yield


@fault
def scheduled_messages_come_at_once() -> Iterator[None]:
    add = Scheduled.add
    with patch.object(Scheduled, "add", lambda self, seq, due: add(self, seq, due - 5.0)):
        yield


@fault
def acks_are_answered_before_they_are_written() -> Iterator[None]:
    async def at_once(self: EmbeddedEngine, transaction: Any) -> None:
        self._submit(transaction)

    durably = EmbeddedEngine._durably

    async def hasty(self: EmbeddedEngine, transaction: Any) -> None:
        await (at_once if isinstance(transaction, Settle) else durably)(self, transaction)

    with patch.object(EmbeddedEngine, "_durably", hasty):
        yield


@fault
def publishes_are_answered_before_they_are_written() -> Iterator[None]:
    durably = EmbeddedEngine._durably

    async def hasty(self: EmbeddedEngine, transaction: Any) -> None:
        if isinstance(transaction, Publish):
            self._submit(transaction)
        else:
            await durably(self, transaction)

    with patch.object(EmbeddedEngine, "_durably", hasty):
        yield


@fault
def a_failed_publish_shows() -> Iterator[None]:
    with patch.object(Publish, "abort", lambda self, error, now: self.commit(now)):
        yield


@fault
def a_failed_settle_ends_the_lease() -> Iterator[None]:
    def eager(self: Settle, error: Any, now: float) -> None:
        self.commit(now)
        self.error = error

    with patch.object(Settle, "abort", eager):
        yield


@fault
def a_failed_publish_keeps_its_idempotency_key() -> Iterator[None]:
    with patch.object(Dedup, "forget", lambda self, key: self.settle(key)):
        yield


@fault
def idempotency_keys_are_not_looked_at() -> Iterator[None]:
    with patch.object(Dedup, "get", lambda *_: None):
        yield


@fault
def lease_ids_come_again_after_a_crash() -> Iterator[None]:
    init = QueueCore.__init__

    def first_epoch(self: QueueCore, *, epoch: int, **more: Any) -> None:
        init(self, epoch=1, **more)

    with patch.object(QueueCore, "__init__", first_epoch):
        yield


@fault
def a_dead_letter_keeps_its_key() -> Iterator[None]:
    die = QueueCore._die

    def dying(self: QueueCore, *more: Any) -> None:
        with patch.object(Group, "let_go", lambda *_: False):
            die(self, *more)

    with patch.object(QueueCore, "_die", dying):
        yield


@fault
def an_acked_message_keeps_its_key() -> Iterator[None]:
    with patch.object(Group, "let_go", lambda *_: False):
        yield


@fault
def ordering_keys_hold_nobody_back() -> Iterator[None]:
    with patch.object(Group, "_hold", lambda *_: True):
        yield


@fault
def what_comes_back_goes_to_the_end() -> Iterator[None]:
    def last(self: Group) -> int | None:
        fresh = take_fresh(self)
        return take(self) if fresh is None else fresh

    take = Group.take

    def take_fresh(self: Group) -> int | None:
        kept, self.returned = self.returned, []
        try:
            return take(self)
        finally:
            self.returned = kept + self.returned

    with patch.object(Group, "take", last):
        yield


@fault
def attempts_are_forgotten() -> Iterator[None]:
    claim = QueueCore.claim

    def forgetful(self: QueueCore, group: Group, *more: Any) -> Any:
        group.attempts.clear()
        return claim(self, group, *more)

    with patch.object(QueueCore, "claim", forgetful):
        yield


@fault
def nothing_ever_dies() -> Iterator[None]:
    die = QueueCore._die

    def spare(self: QueueCore, group: Group, seq: int, *more: Any) -> None:
        die(self, group, seq, *more)
        if seq in group.dead:
            self.revive(group, seq)

    with patch.object(QueueCore, "_die", spare):
        yield


@fault
def a_time_to_live_ends_what_is_leased() -> Iterator[None]:
    expire = QueueCore._expire

    def harsh(self: QueueCore, topic: Any, seq: int) -> None:
        for group in list(topic.groups.values()):
            lease = group.lease_of(seq)
            if lease is not None and lease.queue is not None:
                self._end(group, lease)
                self.loose.append(self.done_record(group, seq))
                self._done(group, seq)
        expire(self, topic, seq)

    with patch.object(QueueCore, "_expire", harsh):
        yield


@fault
def nothing_is_dropped_by_its_time_to_live() -> Iterator[None]:
    with patch.object(QueueCore, "_expire", lambda *_: None):
        yield


@fault
def a_purge_frees_no_key() -> Iterator[None]:
    drop = QueueCore.drop_waiting

    def stingy(self: QueueCore, group: Group) -> Any:
        with patch.object(Group, "let_go", lambda *_: False):
            return list(drop(self, group))

    with patch.object(QueueCore, "drop_waiting", stingy):
        yield


@fault
def a_closed_stream_keeps_its_leases() -> Iterator[None]:
    with patch.object(EmbeddedSubscription, "close", lambda *_: None):
        yield


@fault
def room_in_a_prefetch_is_not_noticed() -> Iterator[None]:
    with patch.object(Dealer, "made_room", lambda *_: None):
        yield


@fault
def a_prefetch_bounds_nothing() -> Iterator[None]:
    with patch.object(EmbeddedSubscription, "room", lambda _, limit: limit):
        yield


@fault
def paused_topics_are_delivered() -> Iterator[None]:
    claim = QueueCore.claim

    def eager(self: QueueCore, group: Group, *more: Any) -> Any:
        paused, group.topic.paused = group.topic.paused, False
        try:
            return claim(self, group, *more)
        finally:
            group.topic.paused = paused

    with patch.object(QueueCore, "claim", eager):
        yield


@fault
def history_is_never_written() -> Iterator[None]:
    def forget(self: QueueCore, *_: Any, **__: Any) -> None:
        self.changed.clear()
        self.moved.clear()
        self.loose = []

    with patch.object(QueueCore, "write_history", forget):
        yield


@fault
def a_failed_batch_is_half_told() -> Iterator[None]:
    tell = GroupCommit._tell
    with patch.object(GroupCommit, "_tell", lambda self, batch, errors: tell(self, batch, [None for _ in errors])):
        yield


@fault
def two_are_leased_one_message() -> Iterator[None]:
    take = Group.take
    last: dict[Group, int] = {}

    def twice(self: Group) -> int | None:
        seq = take(self)
        if seq is None and self in last and self.open.get(last[self]) is not State.DEAD:
            seq = last.pop(self)
            return seq if self.lease_of(seq) is not None else None
        if seq is not None:
            last[self] = seq
        return seq

    with patch.object(Group, "take", twice):
        yield


@fault
def committed_messages_are_lost_in_a_crash() -> Iterator[None]:
    opened = MemoryDisk.open

    def forgetful(self: MemoryDisk) -> Any:
        store = opened(self)
        for key in list(getattr(store, "messages", {}))[-1:]:
            store.messages.pop(key)  # type: ignore[attr-defined]
        return store

    with patch.object(MemoryDisk, "open", forgetful):
        yield
