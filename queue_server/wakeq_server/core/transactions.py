"""Changes that have been decided and wait to be durable.

Each knows what a store must write (`records`), and what happens when that has succeeded (`commit`) or failed
(`abort`). Between the two nothing of it shows: that is what PENDING and SETTLING mean.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from wakeq_server.core.leases import Lease
from wakeq_server.core.lifecycle import Event
from wakeq_server.core.model import (
    HistorySet,
    Message,
    MessageAdded,
    MessageRemoved,
    Outcome,
    Record,
    TopicConfig,
    TopicDropped,
    TopicPut,
)
from wakeq_server.core.topic import Group, Topic
from wakeq_server.errors import QueueError, TopicNotFound

if TYPE_CHECKING:
    from wakeq_server.core.queue import QueueCore


class Transaction(Protocol):
    """What a store takes whole or not at all."""

    error: QueueError | None

    def records(self) -> Iterable[Record]:
        """What a store must write."""

    def commit(self, now: float) -> None:
        """It is durable: let it show."""

    def abort(self, error: QueueError, now: float) -> None:
        """It has failed: leave no trace."""


class Publish:
    """Messages on their way into a topic."""

    __slots__ = ("core", "error", "messages", "topic")

    def __init__(self, core: "QueueCore", topic: Topic, messages: Sequence[Message]) -> None:
        self.core = core
        self.topic = topic
        self.messages = messages
        self.error: QueueError | None = None

    def records(self) -> Iterable[Record]:
        """A row a message."""
        return [MessageAdded(self.topic.id, message) for message in self.messages]

    def commit(self, now: float) -> None:
        """The messages are READY in every group."""
        topic = self.topic
        if topic.gone:
            self.error = TopicNotFound(topic.name)
            return
        for message in self.messages:
            topic.messages[message.seq] = message
        topic.visible_to = self.messages[-1].seq + 1
        topic.visible_count += len(self.messages)
        for group in topic.groups.values():
            self.core.effects.deliverable[group] = None

    def abort(self, error: QueueError, now: float) -> None:
        """Their seqs stay unused."""
        self.error = error
        self.topic.held_messages -= len(self.messages)
        self.topic.held_bytes -= sum(len(message.body) for message in self.messages)


class Settlement(NamedTuple):
    """How one lease ends."""

    group: Group
    lease: Lease
    outcome: Outcome
    hidden_s: float


class Settle:
    """Leases that are about to end, or (``extended``) to last longer."""

    __slots__ = ("core", "error", "extended", "settlements", "wall")

    def __init__(self, core: "QueueCore", wall: float) -> None:
        self.core = core
        self.wall = wall
        self.settlements: list[Settlement] = []
        self.extended: list[HistorySet] = []
        self.error: QueueError | None = None

    def __bool__(self) -> bool:
        return bool(self.settlements or self.extended)

    def records(self) -> Iterable[Record]:
        """Acked messages go; nacked ones are kept with their attempts and delay."""
        yield from self.extended
        for group, lease, outcome, hidden_s in self.settlements:
            key = lease.key
            if outcome == "ack":
                yield MessageRemoved(key.incarnation, key.seq)
            else:
                due_at = self.wall + hidden_s if hidden_s else 0.0
                yield HistorySet(key.incarnation, group.id, key.seq, lease.attempt, due_at=due_at, span_s=hidden_s)

    def commit(self, now: float) -> None:
        """The leases have ended."""
        for settlement in self.settlements:
            if not settlement.group.topic.gone:
                self.core.finish(settlement, now)

    def abort(self, error: QueueError, now: float) -> None:
        """The leases go on."""
        self.error = error
        for group, lease, _, _ in self.settlements:
            lease.step(Event.ABORT)
            self.core.run_lease(group, lease, max(0.0, lease.deadline - now), now)


class CreateTopic:
    """A topic that exists for its creator only when it is durable."""

    def __init__(self, core: "QueueCore", topic: Topic) -> None:
        self.core = core
        self.topic = topic
        self.error: QueueError | None = None

    def records(self) -> Iterable[Record]:
        """One row."""
        return [TopicPut(self.topic.id, self.topic.name, self.topic.config, self.topic.created_at)]

    def commit(self, now: float) -> None:
        """Nothing to do: it has been there for whoever waited."""

    def abort(self, error: QueueError, now: float) -> None:
        """The topic goes, and with it whatever came to it meanwhile."""
        self.error = error
        self.core.forget(self.topic)


class ConfigureTopic:
    """A topic's new configuration."""

    def __init__(self, topic: Topic, config: TopicConfig) -> None:
        self.topic = topic
        self.config = config
        self.error: QueueError | None = None

    def records(self) -> Iterable[Record]:
        """One row."""
        return [TopicPut(self.topic.id, self.topic.name, self.config, self.topic.created_at)]

    def commit(self, now: float) -> None:
        """From now on."""
        self.topic.config = self.config

    def abort(self, error: QueueError, now: float) -> None:
        """As before."""
        self.error = error


class DropTopic:
    """A topic that is about to go."""

    def __init__(self, core: "QueueCore", topic: Topic) -> None:
        self.core = core
        self.topic = topic
        self.error: QueueError | None = None

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


class WriteHistory:
    """Leases and their ends that nobody waits for: they ride along with the next commit."""

    def __init__(self, core: "QueueCore", places: Sequence[tuple[Group, int]], records: Sequence[Record]) -> None:
        self.core = core
        self.error: QueueError | None = None
        self._places = places
        self._records = records

    def records(self) -> Iterable[Record]:
        """As things stood when the batch was closed."""
        return self._records

    def commit(self, now: float) -> None:
        """Nothing waits for it."""

    def abort(self, error: QueueError, now: float) -> None:
        """To be written again."""
        self.error = error
        for place in self._places:
            self.core.changed[place] = None
