"""What the checker knows of topics, groups and messages, from calls, answers and commits alone.

A message's place in a group is a *set* of states: those it may be in. An answer or a quiet moment makes it one. Time
works in two steps, since a server may be late: `spread` adds what may have happened by now, `tighten` takes out what
must be over, and is called only when everybody who could run has run.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from wakeq_server.core.model import Message, NewMessage, Settle, TopicConfig

INF = float("inf")
OUT = frozenset({"leased", "delayed"})
UNSETTLED = frozenset({"ready", "leased", "delayed"})


class Violated(Exception):
    """A promise was broken; the sentence says which."""


def check(holds: object, sentence: str) -> None:
    """Raise unless it holds."""
    if not holds:
        raise Violated(sentence)


@dataclass(slots=True, eq=False)
class Lease:
    """A lease that a client has been given, or may have been."""

    id: str
    order: tuple[int, int]
    """Of a message's leases the later one has the greater: the epoch of its server, and its number there."""
    attempt: int
    ends_lo: float
    ends_hi: float
    length: float
    owner: object = None
    changes: int = 0
    """How often its end was moved."""
    stored_hi: float = 0.0
    """The latest end that the store may know."""
    outcome: str = ""
    """How it ended, once that was answered."""
    asked: set[str] = field(default_factory=set)
    """How it may have ended, where nobody was answered."""

    def move(self, end: float) -> None:
        """It ends then, for certain."""
        self.ends_lo = self.ends_hi = end
        self.stored_hi = max(self.stored_hi, end)
        self.changes += 1


@dataclass(slots=True, eq=False)
class Pending:
    """A call that may end a lease, or a place's stay, and isn't known to have done it."""

    outcome: str
    states: frozenset[str]
    lease: str
    called: float
    failures: int
    """How often the store had failed when it was called."""
    hidden: tuple[float, float] = (0.0, 0.0)
    sure: bool = False
    """Whether it was certainly taken: only a failing store can keep it from happening."""


@dataclass(slots=True, eq=False)
class Place:
    """A message in a group."""

    message: Message
    seq: int
    states: set[str]
    due_lo: float = 0.0
    due_hi: float = 0.0
    due_span: float = 0.0
    """Longest that a delay of it was."""
    expires: float = INF
    attempts_lo: int = 0
    attempts_hi: int = 0
    """Deliveries that count, if it were READY now."""
    highest: int = 0
    floor: int = 0
    """Bounds of that number after a crash."""
    lease: Lease | None = None
    leases: list[Lease] = field(default_factory=list)
    """All that may be what the store knows."""
    pending: list[Pending] = field(default_factory=list)
    dead_lo: float = INF
    dead_hi: float = INF
    was: frozenset[str] = frozenset()
    """The states that the store may know in place of the newest."""
    dirty: bool = False
    """Whether the store may know less than we do."""
    unseen: bool = False
    """Leased to somebody who hasn't been told yet."""
    strayed: bool = False
    """Whether the store may know leases that we don't."""
    redriven: bool = False
    looked: float = 0.0
    """When it was last asked what may have happened."""

    @property
    def possible(self) -> set[str]:
        """Every state it may be in."""
        return self.states.union(*(pending.states for pending in self.pending))

    def certainly(self, *states: str) -> bool:
        """Whether it is in one of these for certain."""
        return self.possible <= set(states)

    def note(self, *states: str, durable: bool = False) -> None:
        """It is in one of these now; the store knows it (``durable``), or will."""
        if durable:
            self.was, self.dirty = frozenset(), False
            self.floor = self.attempts_lo
            self.highest = self.attempts_hi
            self.leases = [self.lease] if self.lease is not None and "leased" in states else []
        else:
            self.was |= self.states
            self.dirty = True
        self.states = set(states)

    def spread(self, now: float, config: TopicConfig, *, blurred: bool = False) -> None:
        """Add what may have happened by now; ``blurred`` where leases may have come and gone without being told of."""
        states = self.states
        for pending in self.pending:
            if "delayed" in pending.states and pending.called + pending.hidden[0] <= now:
                pending.states |= {"ready"}
            if pending.outcome == "purge" and "delayed" in states:
                # If it fails.
                states.add("ready")
            if self.expires <= now and pending.states & {"ready", "delayed"}:
                pending.states |= {"gone", "dead"} if pending.outcome == "redrive" else {"gone"}
            if "dead" in pending.states and pending.called + config.dead_ttl_s <= now:
                pending.states |= {"gone"}
        if "leased" in states and (self.unseen or (self.lease is not None and self.lease.ends_lo <= now)):
            states |= self.after_expiry(config)
        if "delayed" in states and self.due_lo <= now:
            states.add("ready")
        if blurred and ("ready" in self.possible or self.unseen or ("delayed" in states and self.due_lo <= now)):
            states |= {"ready", "leased", "dead"} if config.max_deliveries else {"ready", "leased"}
            self.attempts_hi = max(self.attempts_hi, config.max_deliveries or 1_000)
            self.highest = max(self.highest, self.attempts_hi)
            self.strayed = True
            # A last lease that nobody was told of may have ended right after we looked.
            self.dead_lo = min(self.dead_lo, self.looked + config.dead_ttl_s)
            self.dead_hi = INF
        if self.expires <= now and states & {"ready", "delayed"}:
            states.add("gone")
        if "dead" in states and self.dead_lo <= now:
            states.add("gone")
        self.looked = now

    def after_expiry(self, config: TopicConfig) -> set[str]:
        """What becomes of it when its lease runs out, or (unseen) is undone."""
        known = self.lease is not None and not self.unseen
        attempt = self.lease.attempt if known and self.lease is not None else self.attempts_hi
        last = bool(config.max_deliveries) and attempt >= config.max_deliveries
        if last:
            ended = self.lease.ends_lo if self.lease is not None and not self.strayed else 0.0
            self.dead_lo, self.dead_hi = ended + config.dead_ttl_s, INF
        if not known:
            return {"ready", "dead"} if last else {"ready"}
        return {"dead"} if last else {"ready"}

    def tighten(self, now: float, config: TopicConfig) -> None:
        """Take out what must be over. Everybody who could run has run."""
        over = set()
        if self.lease is not None and self.lease.ends_hi <= now and not self.pending:
            over.add("leased")
        if self.due_hi <= now:
            over.add("delayed")
        if self.expires <= now and not self.redriven:
            over |= {"ready", "delayed"}
        # One that is about to be redriven, or moved, stays until that has happened or failed.
        if self.dead_hi <= now and not self.pending and config.dead_letter_topic is None:
            over.add("dead")
        if over & self.states:
            self.was |= self.states
            self.dirty = True
            self.states -= over


@dataclass(slots=True, eq=False)
class Group:
    """A group, from its commit on."""

    id: int
    name: str
    label: str
    """Topic and group, for sentences."""
    places: dict[int, Place] = field(default_factory=dict)
    """All that are not certainly gone."""
    gone: set[int] = field(default_factory=set)

    def claimable(self) -> list[int]:
        """READY, and its key free. To be asked in quiet moments."""
        out = {place.message.key for place in self.places.values() if place.possible & OUT}
        found = []
        for seq in sorted(self.places):
            place = self.places[seq]
            key = place.message.key
            if place.possible == {"ready"} and (key is None or key not in out):
                found.append(seq)
                if key is not None:
                    out.add(key)
        return found


@dataclass(slots=True, eq=False)
class Key:
    """An idempotency key that is in the store."""

    content: Any
    first: int
    count: int
    until: float
    until_wall: float


@dataclass(slots=True, eq=False)
class Topic:
    """A topic, from its commit on."""

    id: int
    name: str
    config: TopicConfig
    paused: bool
    groups: dict[int, Group] = field(default_factory=dict)
    messages: dict[int, Message] = field(default_factory=dict)
    keys: dict[str, list[Key]] = field(default_factory=dict)
    pausing: int = 0
    """Calls under way that change it."""
    leaving: set[int] = field(default_factory=set)
    """Messages of groups whose end is stored, and may not have been told yet."""

    def unsettled(self) -> set[int]:
        """All that isn't gone for certain in every group."""
        return {seq for group in self.groups.values() for seq in group.places}

    def held(self, seq: int, *, certainly: bool) -> bool:
        """Whether a message takes room."""
        places = [group.places[seq] for group in self.groups.values() if seq in group.places]
        if certainly:
            return any(place.possible <= UNSETTLED for place in places)
        return any(place.possible & UNSETTLED for place in places)


def token(body: bytes | None) -> str:
    """What names a message: which publish, which of it, of how many."""
    return (body or b'""').decode().strip()[1:-1]


class Room(NamedTuple):
    """How much messages take of what a topic may hold."""

    messages: int = 0
    size: int = 0
    """In bytes."""

    def fits(self, config: TopicConfig) -> bool:
        """Whether a topic may hold it."""
        too_many = config.max_messages is not None and self.messages > config.max_messages
        return not too_many and (config.max_bytes is None or self.size <= config.max_bytes)

    def with_(self, messages: Iterable[NewMessage]) -> "Room":
        """And these."""
        sizes = [len(message.body) for message in messages]
        return Room(self.messages + len(sizes), self.size + sum(sizes))


NOTHING = Room()


@dataclass(slots=True, eq=False)
class PublishCall:
    """A publish under way."""

    topic: str
    messages: list[NewMessage]
    key: str | None
    held: bool
    """Whether it waits for room, so that it may be decided later than when it was called."""
    called: float
    index: int
    """How many transactions had been committed when it was called."""
    born: int = 0
    failed: int | None = None
    """What was heard before, when it was called, and when it was refused."""
    known: Key | None = None
    taken: Room = NOTHING
    """What the topic's messages took at the most when this was called."""
    left: bool = False
    """Whether its publisher doesn't wait any more: when the disk has everything it is over."""

    @property
    def tokens(self) -> list[str]:
        return [token(message.body) for message in self.messages]


@dataclass(slots=True, eq=False)
class SettleCall:
    """A settle under way."""

    topic: str
    lines: list[Settle]
    called: float
    failures: int
    applied: list["Applied"] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Applied:
    """A line of a settle that may have done something."""

    line: Settle
    topic: Topic
    group: Group
    place: Place
    lease: Lease
    pending: Pending | None
    """None: an extension."""
    sure: bool
    """Whether the lease was live, and nobody else was about to end it."""
    alone: bool
    changes: int
