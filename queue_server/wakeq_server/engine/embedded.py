"""The engine of one process: the core decides, consumers are parked here, one thread writes.

Every call has the same three steps. It asks the core, which changes its state and says what must be written
(`core.transactions`). Where the store keeps anything, it waits for the batch that holds its transaction. Then
`_act` has what became deliverable dealt to whoever is parked (`engine.dealing`). In memory the second step is empty,
and a whole publish, waking included, is one synchronous stretch.

One timer runs, for the earliest deadline the core knows of; without leases and delays none does.
"""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread

from wakeq_server.core.model import (
    DEFAULT_GROUP,
    Delivery,
    NewMessage,
    Published,
    Settle,
    SettleResult,
    TopicConfig,
    TopicInfo,
)
from wakeq_server.core.queue import Effects, QueueCore
from wakeq_server.core.restore import restore
from wakeq_server.core.topic import Group, Topic
from wakeq_server.core.transactions import Transaction
from wakeq_server.engine.clocks import Clocks
from wakeq_server.engine.commits import GroupCommit
from wakeq_server.engine.dealing import Dealer, EmbeddedSubscription
from wakeq_server.engine.holding import Holding
from wakeq_server.engine.stats import Stats
from wakeq_server.errors import (
    GroupNotFound,
    StorageError,
    TopicFull,
    TopicNotFound,
)
from wakeq_server.store.base import Store

_NEVER = float("inf")


class EmbeddedEngine:
    """Everything in this process. Made by `open_engine`."""

    name = "embedded"
    capabilities = frozenset({"fence", "head_return", "delay"})

    def __init__(self, store: Store, core: QueueCore, clocks: Clocks) -> None:
        self._stats = Stats()
        self.core = core
        self._clocks = clocks
        self._store = store
        self._dealer = Dealer(core, self._stats, clocks, self._act)
        self._commits = GroupCommit(store, core, clocks, self._applied)
        self._holding = Holding()
        self._ticks_at = _NEVER
        self._sooner = anyio.Event()
        self._unleased = anyio.Event()

    @property
    def stats(self) -> Stats:
        """See `Engine`."""
        self._stats.redelivered, self._stats.expired = self.core.redelivered, self.core.expired
        return self._stats

    # Topics

    async def topic_config(self, topic: str) -> TopicConfig:
        """See `Engine`."""
        return self.core.topic(topic).config

    async def create_topic(self, topic: str, config: TopicConfig) -> bool:
        """See `Engine`."""
        while (existing := await self._existing(topic)) is not None:
            # Its maker may still be waiting for the disk, and in vain.
            await self._commits.written()
            if not existing.gone:
                return False
        await self._durably(self.core.create(topic, config, self._clocks.wall()))
        return True

    async def put_topic(self, topic: str, config: TopicConfig) -> bool:
        """See `Engine`."""
        existing = await self._existing(topic)
        if existing is None:
            return await self.create_topic(topic, config)
        await self._durably(self.core.configure(existing, config))
        self._holding.wake(existing)
        return False

    async def delete_topic(self, topic: str) -> None:
        """See `Engine`."""
        await self._durably(self.core.drop(self.core.topic(topic)))

    async def describe_topic(self, topic: str) -> TopicInfo:
        """See `Engine`."""
        return self._describe(self.core.topic(topic), self._clocks.wall())

    async def list_topics(self, after: str, limit: int) -> list[TopicInfo]:
        """See `Engine`."""
        wall = self._clocks.wall()
        names = sorted(name for name, topic in self.core.topics.items() if name > after and not topic.dropping)
        return [self._describe(self.core.topics[name], wall) for name in names[:limit]]

    def _describe(self, topic: Topic, wall: float) -> TopicInfo:
        info = topic.describe(wall)
        groups = tuple(g._replace(parked=self._dealer.parked_in(topic.groups[g.name])) for g in info.groups)
        return info._replace(groups=groups)

    async def _existing(self, name: str) -> Topic | None:
        """The topic of that name; one that is being dropped is waited for, so that its successor is another."""
        while (topic := self.core.topics.get(name)) is not None and topic.dropping:
            await self._commits.written()
        return topic

    # Publish

    async def publish(self, topic: str, messages: Sequence[NewMessage], hold_s: float = 0.0) -> Published:
        """See `Engine`."""
        started = self._clocks.timer()
        queue = self.core.topic(topic)
        until = self._clocks.now() + hold_s if hold_s else 0.0
        retried = False
        while True:
            try:
                published = await self._publish(queue, messages)
            except (TopicFull, StorageError):
                if self._clocks.now() >= until:
                    raise
            else:
                break
            await self._holding.wait(queue, until, first=retried)
            retried = True
        if hold_s:
            # Room for several may have been made while one was woken.
            self._holding.wake(queue)
        self._stats.published += len(messages)
        self._stats.publish_s.observe(self._clocks.timer() - started)
        return published

    async def _publish(self, topic: Topic, messages: Sequence[NewMessage]) -> Published:
        if topic.gone or topic.dropping:
            raise TopicNotFound(topic.name)
        transaction = self.core.publish(topic, messages, self._clocks.wall())
        woken = self._dealer.woken
        await self._durably(transaction)
        if self._dealer.woken != woken:
            # Whoever was woken goes first: it waits for the message, the publisher only for a nod.
            await self._clocks.turn()
        written = transaction.messages
        return Published(written[0].seq, written[-1].seq, len(written))

    # Receive

    async def subscribe(
        self, topic: str, *, group: str = DEFAULT_GROUP, lease_s: float | None = None, prefetch: int | None = None
    ) -> EmbeddedSubscription:
        """See `Engine`."""
        found = self.core.topic(topic).groups.get(group)
        if found is None:
            raise GroupNotFound(topic, group)
        return EmbeddedSubscription(self._dealer, found, self._acknowledge, lease_s=lease_s, prefetch=prefetch)

    def _acknowledge(self, group: Group, deliveries: Sequence[Delivery]) -> None:
        """Ack leases, durable with the next commit."""
        transaction = self.core.acknowledge(group, [delivery.lease for delivery in deliveries], self._clocks.wall())
        if not transaction:
            return
        self._stats.settled["ack"] += len(transaction.settlements)
        if self._store.durable:
            self._commits.submit(transaction)
        else:
            transaction.commit(self._clocks.now())
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
        for line, result in zip(lines, results, strict=True):
            if result.status == "ok":
                self._stats.settled[line.outcome] += 1
        return results

    async def leases_ended(self) -> None:
        """See `Engine`."""
        while self.core.leased:
            self._unleased = anyio.Event()
            await self._unleased.wait()

    # Draining

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

    # What decisions mean for others

    async def _durably(self, transaction: Transaction) -> None:
        if self._store.durable:
            await self._commits.write(transaction)
        else:
            transaction.commit(self._clocks.now())
            self._act()
            if transaction.error is not None:
                raise transaction.error

    def _applied(self, recovered: bool) -> None:
        self._stats.commits += 1
        if recovered:
            self._holding.wake_all_topics()
        self._act()

    def _act(self) -> None:
        """Deal with the effects of what the core has decided, until there are none."""
        while self.core.effects:
            effects, self.core.effects = self.core.effects, Effects()
            for lease in effects.ended:
                if lease.owner is not None:
                    lease.owner.lease_ended(lease)
            for topic in effects.topics_gone:
                self._dealer.tell_gone(topic)
            for topic in effects.roomier:
                self._holding.wake(topic)
            for group in effects.deliverable:
                self._dealer.deal(group)
        self._watch_history_and_clock()
        if not self.core.leased:
            self._unleased.set()

    # Time

    def _watch_history_and_clock(self) -> None:
        if self.core.changed:
            self._commits.ride()
        deadline = self.core.next_deadline()
        if deadline is not None and deadline < self._ticks_at:
            self._sooner.set()

    async def _tick(self) -> None:
        while True:
            self.core.tick(self._clocks.now())
            self._act()
            deadline = self.core.next_deadline()
            self._ticks_at = _NEVER if deadline is None else deadline
            self._sooner = anyio.Event()
            with anyio.CancelScope(deadline=self._ticks_at):
                await self._sooner.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the clock and the writer; on the way out, write what is left."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._tick)
            tasks.start_soon(self._commits.run)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()
        if self._store.durable:
            await self._commits.flush()


@asynccontextmanager
async def open_engine(
    store: Store, clocks: Clocks, jitter: Callable[[], float] = random.random
) -> AsyncIterator[EmbeddedEngine]:
    """Load the store and run an engine on it; on the way out everything submitted is written, and the store closed.

    Raises StartupError.
    """
    try:
        snapshot = await anyio.to_thread.run_sync(store.load)
        core = restore(snapshot, now=clocks.now(), wall=clocks.wall(), jitter=jitter, keep_history=store.durable)
        engine = EmbeddedEngine(store, core, clocks)
        async with engine.running():
            yield engine
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(store.close)
