"""What a client is given and gives."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal, NamedTuple


class Published(NamedTuple):
    """Where a publish went: the sequence numbers of its first and last message."""

    first_seq: int
    last_seq: int


class Nack(NamedTuple):
    """A lease to give back."""

    lease_id: str
    delay_s: float | None = None
    """How many seconds the message stays hidden; None: the topic's retry backoff."""
    reason: str | None = None
    """Why; its first 1,000 characters are kept with a dead letter."""


class Dead(NamedTuple):
    """A lease whose message is to be a dead letter."""

    lease_id: str
    reason: str | None = None
    """Why; its first 1,000 characters are kept."""


class SettleResult(NamedTuple):
    """What became of one lease."""

    lease_id: str
    status: Literal["ok", "stale", "unknown"]


class RetryBackoff(NamedTuple):
    """Seconds that a nacked message stays hidden: the first time, and at most."""

    min: float
    max: float


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """How a topic treats its messages; section 2 of docs/protocol.md says what each field means."""

    kind: str
    schema: str | Mapping[str, Any]
    """``queue_message``, ``json``, ``any``, or a JSON Schema."""
    lease_s: float
    max_deliveries: int
    """0: no limit."""
    retry_backoff_s: RetryBackoff
    dead_ttl_s: float
    dead_letter_topic: str | None
    """None: dead letters stay in place."""
    ttl_s: float | None
    max_messages: int | None
    max_bytes: int | None
    max_message_bytes: int | None
    """None: what the server's default for the schema is."""
    dedup_window_s: float

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "TopicConfig":
        """From a configuration of the protocol; fields of a later version are left out."""
        values = {one.name: wire[one.name] for one in fields(cls)}
        backoff = wire["retry_backoff_s"]
        return cls(**values | {"retry_backoff_s": RetryBackoff(backoff["min"], backoff["max"])})


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """How a group of a topic stands: its messages by state, and who waits for them."""

    name: str
    ready: int
    delayed: int
    leased: int
    dead: int
    parked: int
    """Consumers that wait for a message."""
    oldest_age_s: float | None
    """Seconds since the publish of the oldest message that isn't settled; None without one."""

    @classmethod
    def from_wire(cls, name: str, wire: Mapping[str, Any]) -> "GroupInfo":
        """From a GroupInfo of the protocol, which doesn't have the name."""
        return cls(name=name, **{one.name: wire[one.name] for one in fields(cls) if one.name != "name"})


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """How a topic stands."""

    name: str
    created_at: datetime
    paused: bool
    messages: int
    """Unsettled ones."""
    bytes: int
    """Those of their bodies."""
    config: TopicConfig
    groups: Mapping[str, GroupInfo]
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The server's JSON, with what this version of the client doesn't know."""

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "TopicInfo":
        """From a TopicInfo of the protocol."""
        return cls(
            name=wire["name"],
            created_at=datetime.fromisoformat(wire["created_at"]),
            paused=wire["paused"],
            messages=wire["messages"],
            bytes=wire["bytes"],
            config=TopicConfig.from_wire(wire["config"]),
            groups={name: GroupInfo.from_wire(name, group) for name, group in wire["groups"].items()},
            raw=wire,
        )


@dataclass(frozen=True, slots=True)
class Peeked:
    """A message that was looked at, and is in nobody's hands for that."""

    seq: int
    id: str | None
    key: str | None
    headers: Mapping[str, str]
    published_at: datetime
    state: Literal["ready", "delayed", "leased", "dead"]
    attempt: int
    """How often it was delivered."""
    reason: str | None
    """Why it is dead."""
    due_at: datetime | None
    """When a delayed message becomes ready, a lease ends, or a dead letter died."""
    body: Any
    """The JSON value, or bytes where ``content_type`` is set."""
    content_type: str | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The server's JSON, with what this version of the client doesn't know."""

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "Peeked":
        """From a Peeked of the protocol."""
        return cls(
            seq=wire["seq"],
            id=wire["id"],
            key=wire["key"],
            headers=wire["headers"],
            published_at=datetime.fromisoformat(wire["published_at"]),
            state=wire["state"],
            attempt=wire["attempt"],
            reason=wire["reason"],
            due_at=datetime.fromisoformat(wire["due_at"]) if wire["due_at"] is not None else None,
            body=_body(wire),
            content_type=wire.get("content_type"),
            raw=wire,
        )


class Redriven(NamedTuple):
    """What a redrive did: dead letters made ready again, and those left."""

    moved: int
    remaining: int


def _body(wire: Mapping[str, Any]) -> Any:
    encoded = wire.get("body_b64")
    return wire["body"] if encoded is None else base64.b64decode(encoded)
