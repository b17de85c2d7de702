"""The nouns: topic configuration, messages, deliveries, and the records that a store keeps.

All are immutable. Instants named ``*_at`` are wall-clock seconds since the epoch, as they are stored and
shown; the core's own ``now`` is monotonic and never leaves the process.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import urlsplit

DEFAULT_GROUP = "default"

_Named = TypeVar("_Named", bound=tuple[Any, ...])


def many(kind: type[_Named], *columns: Iterable[Any]) -> Iterator[_Named]:
    """Named tuples of one kind, of the columns of all its fields: as by calling it for each, in less than its time."""
    return map(partial(tuple.__new__, kind), zip(*columns))  # noqa: B905  of columns, all but one may be endless


Schema = Literal["queue_message", "json", "any"] | Mapping[str, Any]
"""A named schema, or a JSON Schema of the topic's own."""


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """How one topic behaves. Ranges are checked where values come in (`wakeq_server.http.params`)."""

    schema: Schema = "json"
    """What a body must be: llama_deploy's QueueMessage, any JSON value, any bytes, or JSON of a JSON Schema."""
    lease_s: float = 30.0
    """How long a claimed message stays hidden unless the claim says otherwise; 1 to 43,200 s."""
    max_deliveries: int = 5
    """Deliveries after which an unsettled message is dead; 0: no limit (SQS's maxReceiveCount)."""
    retry_min_s: float = 1.0
    """Delay after the first nack that names none; doubles with each further attempt."""
    retry_max_s: float = 60.0
    """Upper bound of that delay."""
    dead_ttl_s: float = 14 * 86_400.0
    """How long dead letters are kept."""
    dead_letter_topic: str | None = None
    """Where dead letters go; None: they stay in place."""
    ttl_s: float | None = None
    """How long after its publish an undelivered message is dropped; None: never."""
    max_messages: int | None = None
    """Unsettled messages the topic takes before it refuses publishes; None: no limit."""
    max_bytes: int | None = None
    """Bytes of unsettled bodies the topic takes before it refuses publishes; None: no limit."""
    max_message_bytes: int | None = None
    """Largest body; None: 64 MiB for ``queue_message``, else 1 MiB."""
    dedup_window_s: float = 120.0
    """How long an idempotency key is remembered."""


class NewMessage(NamedTuple):
    """A message as a publisher hands it in, valid for its topic's schema."""

    body: bytes
    content_type: str | None = None
    """None where the body is JSON."""
    headers: Mapping[str, str] | None = None
    id: str | None = None
    """The idempotency key."""
    key: str | None = None
    """The ordering key."""
    delay_s: float = 0.0
    ttl_s: float | None = None


NOTHING_SAID = NewMessage(b"")[1:]
"""What nearly all messages have behind their body."""


class Message(NamedTuple):
    """A message as the queue keeps it."""

    seq: int
    body: bytes | None
    """None: in the store alone."""
    size: int
    published_at: float
    content_type: str | None = None
    headers: Mapping[str, str] | None = None
    id: str | None = None
    key: str | None = None
    due_at: float | None = None
    """Not before this; None: at once."""
    expires_at: float | None = None
    """Dropped undelivered at this; None: never."""

    @property
    def plain(self) -> bool:
        """Whether it is like its neighbours but for its body, so that a range of seqs can stand for many."""
        return self.key is None and self.due_at is None and self.expires_at is None


LEASE_ID = "%x-%x-%x-%x-%x"
"""Of a LeaseKey's fields. An f-string takes four times as long: it asks each number for its format."""


class LeaseKey(NamedTuple):
    """What a lease id says. No two leases ever share one: the epoch rises with each start of the server."""

    incarnation: int
    group: int
    seq: int
    epoch: int
    number: int

    def encode(self) -> str:
        """The lease id as clients see it; opaque to them."""
        return LEASE_ID % self

    @classmethod
    def decode(cls, text: str) -> "LeaseKey | None":
        """The key in a lease id, or None where the text is no lease id of ours."""
        try:
            incarnation, group, seq, epoch, number = text.split("-", 5)
            key = cls(int(incarnation, 16), int(group, 16), int(seq, 16), int(epoch, 16), int(number, 16))
        except ValueError:
            return None
        # `int` takes capitals, blanks, underscores, signs and the digits of all scripts.
        return key if key.encode() == text else None


class Delivery(NamedTuple):
    """A message in a consumer's hands, until its lease ends."""

    message: Message
    lease: LeaseKey
    attempt: int
    lease_expires_at: float

    @property
    def id(self) -> str:
        """The idempotency key of its publish; without one, what no other message has. The same at each delivery."""
        given = self.message.id
        return OWN_ID % (self.lease.incarnation, self.message.seq) if given is None else given


OWN_ID = "wakeq-%x-%x"
"""Of a topic's incarnation, and the message's seq."""

Outcome = Literal["ack", "nack", "extend", "dead", "release"]
SettleStatus = Literal["ok", "stale", "unknown"]


class Settle(NamedTuple):
    """One line of a settle request."""

    outcome: Outcome
    lease_id: str
    delay_s: float | None = None
    """With ``nack``: how long the message stays hidden; None: the topic's retry backoff."""
    lease_s: float | None = None
    """With ``extend``: the lease's new length, counted from now; None: the topic's."""
    reason: str | None = None
    """With ``nack`` and ``dead``: why; kept with the dead letter."""


class SettleResult(NamedTuple):
    """What became of one line of a settle request."""

    lease_id: str
    status: SettleStatus


@dataclass(frozen=True, slots=True)
class Published:
    """The sequence numbers that a publish was given, now or when it came the first time."""

    first_seq: int
    last_seq: int
    count: int
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Moved:
    """What a redrive has done."""

    moved: int
    remaining: int


class Consumer(NamedTuple):
    """Who asks for messages."""

    id: str
    """What it calls itself, else its address."""
    address: str


class ConsumerInfo(NamedTuple):
    """A consumer that is present in a group."""

    id: str
    address: str
    group: str
    since: float
    parked: int
    """Open long polls."""
    streams: int
    """Open streams."""
    in_flight: int
    """Unsettled messages of these streams."""


PresenceKind = Literal["consumer.parked", "consumer.gone", "push.up", "push.down", "topic.created", "topic.deleted"]


class PresenceEvent(NamedTuple):
    """Something that whoever watches topics is told."""

    number: int
    """Increases, while the server runs."""
    kind: PresenceKind
    topic: str
    group: str | None
    consumer: str | None
    address: str | None
    at: float


class GroupInfo(NamedTuple):
    """How a group stands."""

    name: str
    ready: int
    delayed: int
    leased: int
    dead: int
    oldest_age_s: float | None
    parked: int = 0
    """Consumers in line; counted by whoever parks them."""
    delivered_per_s: float = 0.0
    """Messages leased to a consumer, averaged over the last minute."""
    settled_per_s: float = 0.0
    """Leases ended by an ack, a nack, a death or a release, likewise."""


class TopicInfo(NamedTuple):
    """How a topic stands."""

    name: str
    config: TopicConfig
    created_at: float
    paused: bool
    messages: int
    bytes: int
    groups: tuple[GroupInfo, ...]
    published_per_s: float = 0.0
    """Averaged over the last minute."""


class Overview(NamedTuple):
    """All topics together, and the busiest by themselves."""

    topics: int
    messages: int
    """Held; a message counts once, however many groups have still to do with it."""
    bytes: int
    ready: int
    """By group, as the next three."""
    delayed: int
    leased: int
    dead: int
    short_of_keys: Mapping[str, int]
    """By topic: idempotency keys that were forgotten before their time; where they are most."""
    busiest: tuple[TopicInfo, ...] = ()


class PushConfig(NamedTuple):
    """How a push is to be delivered. Ranges are checked where values come in (`wakeq_server.http.params`)."""

    url: str
    """Where each message is posted; http or https."""
    group: str = DEFAULT_GROUP
    max_in_flight: int = 1
    """Requests that may wait for their answer at a time."""
    timeout_s: float = 30.0
    """How long an answer is waited for."""

    @property
    def shown_url(self) -> str:
        """The URL without the credentials that it may have."""
        parts = urlsplit(self.url)
        _, at, host = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"***@{host}").geturl() if at else self.url


class Push(NamedTuple):
    """Messages of a group that are posted to a URL as they come."""

    topic: str
    name: str
    id: int
    """Another one for each time it is put, so that what is said of the replaced one isn't taken for it."""
    config: PushConfig


class PushStanding(NamedTuple):
    """How the delivery of a push goes; counted since the start of the process."""

    suspended_until: float | None = None
    """None: up. Else the wall-clock instant from which its target is tried again."""
    in_flight: int = 0
    delivered: int = 0
    failed: int = 0
    last_error: str | None = None


class Peeked(NamedTuple):
    """A message looked at, not taken."""

    message: Message
    state: str
    attempt: int
    reason: str | None
    due_at: float | None
    """When it becomes ready, or its lease ends, or (dead) when it died."""


# What a store keeps. A transaction is a list of these; a store applies it whole or not at all.


class TopicPut(NamedTuple):
    """A topic was created, or its configuration replaced."""

    topic_id: int
    name: str
    config: TopicConfig
    created_at: float
    paused: bool = False


class TopicDropped(NamedTuple):
    """A topic is gone, with everything in it."""

    topic_id: int


class GroupPut(NamedTuple):
    """A group, and how far it has come.

    Every plain message in front of the cursor that has no history is done with. One with a key, a delay or a time to
    live is done with only where its history says `gone`.
    """

    topic_id: int
    group: int
    name: str
    start: int
    """The group's first message: it has no share in those before."""
    cursor: int


class GroupDropped(NamedTuple):
    """A group is gone."""

    topic_id: int
    group: int


class PushPut(NamedTuple):
    """A push was made, or the one of that name replaced."""

    topic_id: int
    name: str
    push_id: int
    group: int
    url: str
    max_in_flight: int
    timeout_s: float


class PushDropped(NamedTuple):
    """A push is gone; one of its name that has replaced it stays."""

    topic_id: int
    name: str
    push_id: int


class MessageAdded(NamedTuple):
    """A message was published."""

    topic_id: int
    message: Message


class MessageRemoved(NamedTuple):
    """Every group is done with a message."""

    topic_id: int
    seq: int


Standing = Literal["ready", "delayed", "leased", "dead", "gone"]


class HistorySet(NamedTuple):
    """A message of a group is no longer simply "never delivered"."""

    topic_id: int
    group: int
    seq: int
    standing: Standing
    attempt: int = 0
    due_at: float = 0.0
    """When the lease or the delay ends, or when it died; wall clock."""
    span_s: float = 0.0
    """From the moment of writing to ``due_at``: what bounds ``due_at`` when the wall clock has jumped."""
    epoch: int = 0
    number: int = 0
    reason: str | None = None


class HistoryCleared(NamedTuple):
    """A message of a group has no history any more."""

    topic_id: int
    group: int
    seq: int


@dataclass(frozen=True, slots=True)
class KeySeen:
    """An idempotency key was used."""

    topic_id: int
    digest: bytes
    fingerprint: bytes
    """Of everything else in that publish: the same key with another is a conflict."""
    first_seq: int
    count: int
    expires_at: float


class KeysForgotten(NamedTuple):
    """Idempotency keys whose window is over."""

    topic_id: int
    before: float


Record = (
    TopicPut
    | TopicDropped
    | GroupPut
    | GroupDropped
    | PushPut
    | PushDropped
    | MessageAdded
    | MessageRemoved
    | HistorySet
    | HistoryCleared
    | KeySeen
    | KeysForgotten
)


class Run(NamedTuple):
    """Plain messages with consecutive seqs."""

    topic_id: int
    first: int
    last: int
    size: int


class Snapshot(NamedTuple):
    """Everything a store holds but for bodies, as of its last commit."""

    epoch: int
    """Higher than at any earlier start on this store, and durable already."""
    topics: tuple[TopicPut, ...] = ()
    groups: tuple[GroupPut, ...] = ()
    pushes: tuple[PushPut, ...] = ()
    runs: tuple[Run, ...] = ()
    others: tuple[MessageAdded, ...] = ()
    """The messages that are not plain, without their bodies."""
    histories: tuple[HistorySet, ...] = ()
    keys: tuple[KeySeen, ...] = ()
    next_topic_id: int = 1
    next_seq: Mapping[int, int] = {}
    """By topic id: the first sequence number never used."""
