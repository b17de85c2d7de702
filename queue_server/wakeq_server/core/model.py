"""The nouns: topic configuration, messages, deliveries, and the records that a store keeps.

All are immutable. Instants named ``*_at`` are wall-clock seconds since the epoch, as they are stored and
shown; the core's own ``now`` is monotonic and never leaves the process.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

DEFAULT_GROUP = "default"

Schema = Literal["queue_message", "json", "any"]


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """How one topic behaves. Ranges are checked where values come in (`wakeq_server.http.topics`)."""

    schema: Schema = "json"
    """What a body must be: llama_deploy's QueueMessage, any JSON value, or any bytes."""
    lease_s: float = 30.0
    """How long a claimed message stays hidden unless the claim says otherwise; 1 to 43,200 s."""
    retry_min_s: float = 1.0
    """Delay after the first nack that names none; doubles with each further attempt."""
    retry_max_s: float = 60.0
    """Upper bound of that delay."""
    max_messages: int | None = None
    """Unsettled messages the topic takes before it refuses publishes; None: no limit."""
    max_bytes: int | None = None
    """Bytes of unsettled bodies the topic takes before it refuses publishes; None: no limit."""
    max_message_bytes: int | None = None
    """Largest body; None: 64 MiB for ``queue_message``, else 1 MiB."""


class NewMessage(NamedTuple):
    """A message as a publisher hands it in, valid for its topic's schema."""

    body: bytes
    content_type: str | None = None
    """None where the body is JSON."""
    headers: Mapping[str, str] | None = None


class Message(NamedTuple):
    """A message as the queue keeps it."""

    seq: int
    body: bytes
    published_at: float
    content_type: str | None = None
    headers: Mapping[str, str] | None = None


class LeaseKey(NamedTuple):
    """What a lease id says. No two leases ever share one: the epoch rises with each start of the server."""

    incarnation: int
    group: int
    seq: int
    epoch: int
    number: int

    def encode(self) -> str:
        """The lease id as clients see it; opaque to them."""
        return "-".join(f"{part:x}" for part in self)

    @classmethod
    def decode(cls, text: str) -> "LeaseKey | None":
        """The key in a lease id, or None where the text is no lease id of ours."""
        parts = text.split("-", 5)
        if len(parts) != 5:
            return None
        try:
            return cls(*(int(part, 16) for part in parts))
        except ValueError:
            return None


class Delivery(NamedTuple):
    """A message in a consumer's hands, until its lease ends."""

    message: Message
    lease: LeaseKey
    attempt: int
    lease_expires_at: float


Outcome = Literal["ack", "nack", "extend"]
SettleStatus = Literal["ok", "stale", "unknown"]


class Settle(NamedTuple):
    """One line of a settle request."""

    outcome: Outcome
    lease_id: str
    delay_s: float | None = None
    """With ``nack``: how long the message stays hidden; None: the topic's retry backoff."""
    lease_s: float | None = None
    """With ``extend``: the lease's new length, counted from now; None: the topic's."""


class SettleResult(NamedTuple):
    """What became of one line of a settle request."""

    lease_id: str
    status: SettleStatus


@dataclass(frozen=True, slots=True)
class Published:
    """The sequence numbers that a publish was given."""

    first_seq: int
    last_seq: int
    count: int


class GroupInfo(NamedTuple):
    """How a group stands."""

    name: str
    ready: int
    delayed: int
    leased: int
    oldest_age_s: float | None
    parked: int = 0
    """Consumers that wait for a message; only the engine knows them."""


class TopicInfo(NamedTuple):
    """How a topic stands."""

    name: str
    config: TopicConfig
    created_at: float
    messages: int
    bytes: int
    groups: tuple[GroupInfo, ...]


# What a store keeps. A transaction is a list of these; a store applies it whole or not at all.


class TopicPut(NamedTuple):
    """A topic was created, or its configuration replaced."""

    topic_id: int
    name: str
    config: TopicConfig
    created_at: float


class TopicDropped(NamedTuple):
    """A topic is gone, with everything in it."""

    topic_id: int


class MessageAdded(NamedTuple):
    """A message was published."""

    topic_id: int
    message: Message


class MessageRemoved(NamedTuple):
    """Every group is done with a message."""

    topic_id: int
    seq: int


class HistorySet(NamedTuple):
    """A message of a group is no longer simply "never delivered".

    Either it is leased (``number`` is not 0, until ``due_at``), or it is hidden until ``due_at``, or (both 0)
    it is ready again after ``attempt`` deliveries.
    """

    topic_id: int
    group: int
    seq: int
    attempt: int
    epoch: int = 0
    number: int = 0
    due_at: float = 0.0
    span_s: float = 0.0
    """From the moment of writing to ``due_at``: what bounds ``due_at`` when the wall clock has jumped."""


class HistoryCleared(NamedTuple):
    """A message of a group is as if it had never been delivered."""

    topic_id: int
    group: int
    seq: int


Record = TopicPut | TopicDropped | MessageAdded | MessageRemoved | HistorySet | HistoryCleared


class Snapshot(NamedTuple):
    """Everything a store holds, as of its last commit."""

    epoch: int
    """Higher than at any earlier start on this store, and durable already."""
    topics: tuple[TopicPut, ...] = ()
    messages: tuple[MessageAdded, ...] = ()
    histories: tuple[HistorySet, ...] = ()
    next_topic_id: int = 1
    next_seq: Mapping[int, int] = {}
    """By topic id: the first sequence number never used."""
