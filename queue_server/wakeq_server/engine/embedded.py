"""The engine of one process: the core decides, consumers are parked here, one thread writes.

Every call has the same three steps. It asks the core, which changes its state and says what must be written
(`core.transactions`). Where the store keeps anything, it waits for the batch that holds its transaction. Then
`_act` has what became deliverable dealt to whoever is parked (`engine.dealing`). In memory the second step is empty,
and a whole publish, waking included, is one synchronous stretch.

One timer runs, for the earliest deadline that the core knows of or that ends a consumer's grace; without leases,
delays, times to live and graces none does.
"""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

from wakeq._serving.offload import Offload, OneThread
from wakeq_server.core.dedup import Seen
from wakeq_server.core.model import (
    DEFAULT_GROUP,
    Consumer,
    Delivery,
    NewMessage,
    Published,
    Settle,
    SettleResult,
)
from wakeq_server.core.queue import Effects, QueueCore
from wakeq_server.core.restore import restore
from wakeq_server.core.topic import Group, Topic
from wakeq_server.core.transactions import Publish, Transaction
from wakeq_server.engine.bodies import KEPT_BYTES, Bodies
from wakeq_server.engine.clocks import Clocks
from wakeq_server.engine.commits import GroupCommit
from wakeq_server.engine.dealing import Dealer, EmbeddedSubscription
from wakeq_server.engine.holding import Holding
from wakeq_server.engine.presence import Presences, Watch
from wakeq_server.engine.pushes import PushAdministration
from wakeq_server.engine.stats import Stats
from wakeq_server.errors import QueueError, StorageError, TopicFull, TopicNotFound, fresh
from wakeq_server.store.base import Store

_NEVER = float("inf")


class EmbeddedEngine(PushAdministration):
    """Everything in this process. Made by `open_engine`."""

    name = "embedded"
    capabilities = frozenset(
        {"fence", "head_return", "delay", "ordering_keys", "idempotency_conflict", "groups", "presence", "push"}
    )

    def __init__(
        self,
        store: Store,
        core: QueueCore,
        clocks: Clocks,
        tasks: TaskGroup,
        *,
        writing: Offload,
        reading: Offload,
        tell: Callable[[StorageError | None], object],
    ) -> None:
        self._stats = Stats()
        self.core = core
        self._clocks = clocks
        self._store = store
        self._tasks = tasks
        self._commits = GroupCommit(store, core, clocks, writing, self._applied)
        self._bodies = Bodies(store, reading, min(KEPT_BYTES, core.memory_budget // 4))
        self._dealer = Dealer(core, self._stats, clocks, self._bodies, self._act, self._submit)
        self._holding = Holding()
        self._presences = Presences(clocks, self._tick_by)
        self._deliverer = None
        self._closing = False
        self._tell_of_failure = tell
        self._told: type[StorageError] | None = None
        self._tell_of_storage()
        self._ticks_at = _NEVER
        self._sooner = anyio.Event()
        self._unleased: anyio.Event | None = None
        """Somebody waits for the last lease to end."""

    @property
    def stats(self) -> Stats:
        """See `Engine`."""
        counts, stats = self.core.counts, self._stats
        stats.redelivered, stats.expired = counts.redelivered, counts.expired_leases
        stats.duplicates, stats.dead, stats.dropped_by_ttl = counts.duplicates, counts.dead, counts.dropped_by_ttl
        stats.keys_forgotten = counts.keys_forgotten
        stats.memory_bytes, stats.memory_budget_bytes = self.core.memory_used, self.core.memory_budget
        return stats

    # Publish

    async def publish(
        self, topic: str, messages: Sequence[NewMessage], *, key: str | None = None, hold_s: float = 0.0
    ) -> Published:
        """See `Engine`."""
        started = self._clocks.timer()
        queue = self.core.topic(topic)
        now = self._clocks.now()
        try:
            published = await self._publish(queue, messages, key, now)
        except (TopicFull, StorageError) as error:
            if self._clocks.now() >= now + hold_s:
                raise
            published = await self._publish_held(queue, messages, key, now + hold_s, error)
        if not published.duplicate:
            self._stats.published += len(messages)
        self._stats.publish_s.observe(self._clocks.timer() - started)
        return published

    async def _publish_held(
        self, topic: Topic, messages: Sequence[NewMessage], key: str | None, until: float, error: QueueError
    ) -> Published:
        retried = False
        try:
            while True:
                # Storage that has recovered since has told whoever was held by then.
                if not isinstance(error, StorageError) or self._commits.failure is not None:
                    await self._holding.wait(topic, until, first=retried)
                    retried = True
                try:
                    return await self._publish(topic, messages, key, self._clocks.now())
                except (TopicFull, StorageError) as again:
                    if self._clocks.now() >= until:
                        raise
                    error = again.with_traceback(None)
        finally:
            # Room for several may have been made while one was woken, and he may have been cancelled.
            self._holding.wake(topic)

    async def _publish(self, topic: Topic, messages: Sequence[NewMessage], key: str | None, now: float) -> Published:
        decided = self._decide(topic, messages, key, now)
        if isinstance(decided, Seen):
            return await self._as_before(decided)
        woken = self._dealer.woken
        if self._store.durable:
            await self._commits.write(decided)
        else:
            self._apply(decided, now)
        if self._dealer.woken != woken:
            # Whoever was woken goes first: it waits for the message, the publisher only for a nod.
            await self._clocks.turn()
        return decided.published

    def _decide(self, topic: Topic, messages: Sequence[NewMessage], key: str | None, now: float) -> Publish | Seen:
        if topic.gone or topic.dropping:
            raise TopicNotFound(topic.name)
        return self.core.publish(topic, messages, now, self._clocks.wall(), key)

    async def _as_before(self, seen: Seen) -> Published:
        """A duplicate of a publish that isn't durable yet shares its fate."""
        if seen.publish is not None:
            await self._commits.written()
            if seen.publish.error is not None:
                raise fresh(seen.publish.error)
        return Published(seen.first_seq, seen.first_seq + seen.count - 1, seen.count, duplicate=True)

    async def publish_each(self, topic: str, messages: Sequence[NewMessage]) -> list[Published | QueueError]:
        """See `Engine`."""
        queue = self.core.topic(topic)
        decided: list[Publish | Seen | QueueError] = []
        for message in messages:
            try:
                decided.append(self._decide(queue, [message], message.id, self._clocks.now()))
            except QueueError as error:
                decided.append(error.with_traceback(None))
            else:
                if isinstance(decided[-1], Publish):
                    self._submit(decided[-1])
        if self._store.durable:
            await self._commits.written()
        else:
            self._act()
        return [await self._outcome(one) for one in decided]

    async def _outcome(self, decided: Publish | Seen | QueueError) -> Published | QueueError:
        if isinstance(decided, Seen):
            try:
                return await self._as_before(decided)
            except QueueError as error:
                return error
        if isinstance(decided, QueueError):
            return decided
        if decided.error is not None:
            return decided.error
        self._stats.published += 1
        return decided.published

    # Receive

    async def subscribe(
        self,
        topic: str,
        *,
        group: str = DEFAULT_GROUP,
        lease_s: float | None = None,
        prefetch: int | None = None,
        consumer: Consumer | None = None,
        stream: bool = False,
        ahead: bool = False,
    ) -> EmbeddedSubscription:
        """See `Engine`."""
        return EmbeddedSubscription(
            self._dealer,
            self.group(topic, group),
            self._acknowledge,
            self._presences,
            lease_s=lease_s,
            prefetch=prefetch,
            consumer=consumer,
            stream=stream,
            ahead=ahead,
        )

    def _acknowledge(self, group: Group, deliveries: Sequence[Delivery]) -> None:
        transaction = self.core.acknowledge(group, [delivery.lease for delivery in deliveries], self._clocks.wall())
        if transaction:
            self._stats.settled["ack"] += len(transaction.settlements)
            self._submit(transaction)
            self._act()

    # Settle

    async def settle(self, topic: str, lines: Sequence[Settle]) -> list[SettleResult]:
        """See `Engine`."""
        now = self._clocks.now()
        results, transaction = self.core.settle(self.core.topic(topic), lines, now, self._clocks.wall())
        if transaction:
            await self._durably(transaction)
        elif self._store.durable:
            # A repeated line may wait for the same commit as the first.
            await self._commits.written()
        again = [line for line, first in transaction.repeats if first.error is not None]
        self._stats.settled.update(
            line.outcome
            for line, result in zip(lines, results, strict=True)
            if result.status == "ok" and not (again and line in again)
        )
        if not again:
            return results
        # What they repeat has failed, so they are the first.
        renewed = dict(zip(again, await self.settle(topic, again), strict=True))
        return [renewed.get(line, result) for line, result in zip(lines, results, strict=True)]

    async def leases_ended(self) -> None:
        """See `Engine`."""
        while self.core.leased:
            self._unleased = anyio.Event()
            await self._unleased.wait()

    # Presence

    async def watch(self, topics: frozenset[str] | None) -> Watch:
        """See `Engine`."""
        return self._presences.watch(topics)

    def push_changed(self, topic: str, group: str, name: str, url: str, *, up: bool) -> None:
        """See `Engine`."""
        self._presences.tell("push.up" if up else "push.down", topic, group, name, url)

    # Draining

    @property
    def trouble(self) -> str | None:
        """See `Engine`."""
        return None if self._commits.failure is None else self._commits.failure.detail

    @property
    def draining(self) -> bool:
        """See `Engine`."""
        return self._dealer.draining

    def parked(self) -> int:
        """See `Engine`."""
        return self._dealer.parked()

    def drain(self) -> None:
        """See `Engine`."""
        self._dealer.drain()
        self._presences.drain()

    # What decisions mean for others

    async def _durably(self, transaction: Transaction) -> None:
        if self._store.durable:
            await self._commits.write(transaction)
        else:
            self._apply(transaction, self._clocks.now())

    def _apply(self, transaction: Transaction, now: float) -> None:
        """In memory, what has been decided is so at once."""
        transaction.commit(now)
        self._act()
        if transaction.error is not None:
            raise fresh(transaction.error)

    def _submit(self, transaction: Transaction) -> None:
        """As `_durably`, but nobody waits."""
        if self._store.durable:
            self._commits.submit(transaction)
        else:
            transaction.commit(self._clocks.now())

    def _applied(self, recovered: bool) -> None:
        self._stats.commits += 1
        self._stats.commit_s.observe(self._commits.took_s)
        if recovered:
            self._holding.wake_all_topics()
        self._tell_of_storage()
        self._act()

    def _tell_of_storage(self) -> None:
        failure = self._commits.failure
        kind = None if failure is None else type(failure)
        # The words of one kind differ from write to write, and say nothing new.
        if kind is not self._told:
            self._told = kind
            self._tell_of_failure(failure)

    def _act(self) -> None:
        """Deal with the effects of what the core has decided, until there are none."""
        core = self.core
        while True:
            effects = core.effects
            if not effects.only_deliverable:
                core.effects = Effects()
                self._tell(effects)
            elif not effects.deliverable:
                break
            deliverable, effects.deliverable = effects.deliverable, {}
            for group in deliverable:
                self._dealer.deal(group)
        self._watch_history_and_clock()
        if self._unleased is not None and not self.core.leased:
            self._unleased.set()

    def _tell(self, effects: Effects) -> None:
        """Whoever has an interest in them hears of the effects that are nothing to deliver."""
        for lease in effects.ended:
            if lease.owner is not None:
                lease.owner.lease_ended(lease)
        for topic in effects.topics_made:
            self._presences.topic_made(topic.name)
        for topic in effects.topics_gone:
            self._dealer.tell_gone(topic)
            # One whose making has failed was never there.
            self._presences.topic_gone(topic.name, topic.groups, was_made=topic.dropping)
        for group in effects.groups_gone:
            self._dealer.tell_group_gone(group)
            self._presences.group_gone(group.topic.name, group.name)
        for push, there in effects.pushes:
            self._tell_deliverer(push, there)
        for topic in effects.roomier:
            self._holding.wake(topic)
        # What has died since the tasks ended is moved after the next start.
        for group, seq in () if self._closing else effects.to_move:
            self._tasks.start_soon(self._move_dead, group, seq)

    async def _move_dead(self, group: Group, seq: int) -> None:
        """Take a dead letter where its topic wants it; where that fails, it stays where it is."""
        message = group.topic.messages.get(seq)
        try:
            if message is None or message.body is None:
                topic = group.topic
                message = (await self._bodies.read(topic.id, [seq], topic.size_of(seq))).get(seq)
            if message is None:
                return
            move = self.core.move_dead(group, seq, message, self._clocks.now(), self._clocks.wall())
            if move is not None:
                await self._durably(move)
        except StorageError:
            return

    # Time

    def _watch_history_and_clock(self) -> None:
        if self.core.changed or self.core.loose:
            self._commits.ride()
        self._tick_by(self.core.next_deadline())

    def _tick_by(self, deadline: float | None) -> None:
        if deadline is not None and deadline < self._ticks_at:
            self._sooner.set()

    async def tick(self) -> None:
        """Do what is due, for ever."""
        self._act()
        while True:
            self.core.tick(self._clocks.now(), self._clocks.wall())
            self._presences.tick(self._clocks.now())
            self._act()
            deadlines = (self.core.next_deadline(), self._presences.next_end())
            self._ticks_at = min((deadline for deadline in deadlines if deadline is not None), default=_NEVER)
            self._sooner = anyio.Event()
            with anyio.CancelScope(deadline=self._ticks_at):
                await self._sooner.wait()

    async def write(self) -> None:
        """Write what is to be written, for ever."""
        await self._commits.run()

    async def flush(self) -> None:
        """Write what is left, when the tasks have ended."""
        self._closing = True
        if self._store.durable:
            await self._commits.flush()


@asynccontextmanager
async def open_engine(
    store: Store,
    clocks: Clocks,
    jitter: Callable[[], float] = random.random,
    memory_budget: int = 1 << 62,
    writing: Offload | None = None,
    reading: Offload | None = None,
    max_topics: int = 1 << 62,
    tell: Callable[[StorageError | None], object] = lambda _: None,
) -> AsyncIterator[EmbeddedEngine]:
    """Load the store and run an engine on it; on the way out everything submitted is written, and the store closed.

    ``memory_budget`` is in bytes; what doesn't fit stays in the store. ``writing`` makes the store's calls but those
    that read bodies, which ``reading`` makes; None: one of anyio's threads does. ``tell`` is told what the storage
    refuses when it begins to, and None when it works again. Raises StartupError.
    """
    writing, reading = writing or OneThread(), reading or OneThread()
    try:
        snapshot = await writing(store.load)
        core = restore(
            snapshot,
            now=clocks.now(),
            wall=clocks.wall(),
            jitter=jitter,
            durable=store.durable,
            memory_budget=memory_budget,
            max_topics=max_topics,
        )
        async with anyio.create_task_group() as tasks:
            engine = EmbeddedEngine(store, core, clocks, tasks, writing=writing, reading=reading, tell=tell)
            tasks.start_soon(engine.tick)
            tasks.start_soon(engine.write)
            try:
                yield engine
            finally:
                tasks.cancel_scope.cancel()
        await engine.flush()
    finally:
        with anyio.CancelScope(shield=True):
            await writing(store.close)
