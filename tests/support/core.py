"""The core by itself, with a store of the test's and a clock that stands still."""

from collections.abc import Sequence

from tests.support.stores import KeepingStore
from wakeq_server.core.leases import Lease
from wakeq_server.core.model import DEFAULT_GROUP, NewMessage, Settle, TopicConfig
from wakeq_server.core.queue import QueueCore
from wakeq_server.core.restore import restore
from wakeq_server.core.topic import Group, Topic
from wakeq_server.core.transactions import Publish, Transaction
from wakeq_server.core.transactions import Settle as Settling
from wakeq_server.errors import StorageFailed

AHEAD = 1_000_000_000.0
X = NewMessage(b"x")


def claim(core: QueueCore, group: Group, now: float) -> Lease | None:
    """Lease the next READY message; None where there is none, or delivery is paused."""
    leases = core.lease(group, core.take(group, now, 1), None, now)
    return leases[0] if leases else None


class Stored:
    """A core on a store, which can be loaded again."""

    def __init__(self, memory_budget: int = 1 << 62, max_topics: int = 1 << 62) -> None:
        self.now = 100.0
        self.ahead = AHEAD
        self.store = KeepingStore()
        self.memory_budget = memory_budget
        self.max_topics = max_topics
        self.core = self.load()

    @property
    def wall(self) -> float:
        return self.ahead + self.now

    def load(self) -> QueueCore:
        return restore(
            self.store.load(),
            now=self.now,
            wall=self.wall,
            jitter=lambda: 0.0,
            durable=True,
            memory_budget=self.memory_budget,
            max_topics=self.max_topics,
        )

    def write(self, *batch: Transaction, fails: Sequence[Transaction] = ()) -> None:
        """One batch: everything is stored first, and then told, in order; those that fail have been tried alone."""
        history = self.core.write_history(self.now, self.wall)
        transactions: list[Transaction] = [*([history] if history is not None else []), *batch]
        self.store.commit([list(one.records()) for one in transactions if one not in fails])
        for transaction in transactions:
            if transaction in fails:
                transaction.abort(StorageFailed("disk"), self.now)
            else:
                transaction.commit(self.now)


class Bench(Stored):
    """And what the engine does for any of its topics."""

    def restart(self) -> None:
        self.core = self.load()
        self.tick()

    def tick(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.core.tick(self.now, self.wall)

    def topic(self, name: str = "t", config: TopicConfig | None = None) -> Topic:
        """The topic of that name; made unless it is there."""
        if name not in self.core.topics:
            self.write(self.core.create(name, config or TopicConfig(), self.wall))
        return self.core.topic(name)

    def group(self, topic: Topic, name: str = DEFAULT_GROUP) -> Group:
        """The group of that name; made unless it is there."""
        if name not in topic.groups:
            self.write(self.core.put_group(topic, name))
        return topic.groups[name]

    def publishing(self, topic: Topic, *new: NewMessage) -> Publish:
        publish = self.core.publish(topic, new or [X], self.now, self.wall)
        assert isinstance(publish, Publish)
        return publish

    def publish(self, topic: Topic, *new: NewMessage) -> None:
        self.write(self.publishing(topic, *new))

    def claim(self, group: Group) -> Lease:
        lease = claim(self.core, group, self.now)
        assert lease is not None
        return lease

    def settling(self, topic: Topic, outcome: str, lease: Lease, delay_s: float | None = None) -> Settling:
        line = Settle(outcome, lease.key.encode(), delay_s=delay_s)  # type: ignore[arg-type]
        (result,), settle = self.core.settle(topic, [line], self.now, self.wall)
        assert result.status == "ok"
        return settle

    def settle(self, topic: Topic, outcome: str, lease: Lease, delay_s: float | None = None) -> None:
        self.write(self.settling(topic, outcome, lease, delay_s))

    def kill(self, group: Group) -> int:
        """The next message, made a dead letter."""
        lease = self.claim(group)
        self.settle(group.topic, "dead", lease)
        return lease.key.seq
