"""Live leases, and the memory of those that ended lately."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from wakeq_server.core.lifecycle import Event, State, after
from wakeq_server.core.model import LeaseKey, Outcome

if TYPE_CHECKING:
    from wakeq_server.core.topic import Group
    from wakeq_server.core.transactions import Settle

RECENT_MAX = 65_536
RECENT_S = 120.0


class Owner(Protocol):
    """Whoever wants to hear of the end of its leases, to ask for more."""

    def lease_ended(self, lease: "Lease") -> None:
        """One of its leases has ended, whatever the way."""


class Lease:
    """One message in the hands of one consumer."""

    __slots__ = (
        "attempt",
        "claimed_at",
        "deadline",
        "durable_end",
        "extending",
        "id",
        "key",
        "moves",
        "owner",
        "queue",
        "settled_in",
        "settling",
        "state",
    )

    def __init__(
        self, key: LeaseKey, attempt: int, now: float, owner: Owner | None, queue: "LeaseQueue | None" = None
    ) -> None:
        """Whoever names a ``queue`` puts it there."""
        self.key = key
        self.id = key.encode()
        self.attempt = attempt
        self.claimed_at = now
        self.deadline = self.durable_end = now if queue is None else now + queue.length_s
        """When it ends if none of the extensions that are being written gets there."""
        self.extending: tuple[float, ...] = ()
        """The ends that those would have."""
        self.owner = owner
        self.moves = 0
        """How often its end was moved by others than the one who has it."""
        self.state = State.LEASED
        self.queue = queue
        """Where its clock runs; None while it is SETTLING."""
        self.settling: Outcome | None = None
        self.settled_in: Settle | None = None
        """While it is SETTLING: what will end it, if that becomes durable. Not longer, or each would keep the other."""

    def step(self, event: Event) -> None:
        """Go where the transition table says."""
        self.state = after(self.state, event)

    def leave_queue(self) -> None:
        """Stop this lease's clock."""
        if self.queue is not None:
            del self.queue.leases[self]
            self.queue = None


class LeaseQueue:
    """The leases of one length in one group: they end in the order they began, so the first is the next."""

    def __init__(self, group: "Group", length_s: float) -> None:
        self.group = group
        self.length_s = length_s
        # An OrderedDict, since its first element is found in O(1) whatever was deleted before it.
        self.leases: OrderedDict[Lease, None] = OrderedDict()

    def first(self) -> Lease | None:
        """The lease that ends next."""
        return next(iter(self.leases), None)

    def head(self) -> float | None:
        """When that is."""
        first = self.first()
        return None if first is None else first.deadline

    def add(self, lease: Lease, now: float) -> None:
        """Start the lease's clock anew; it becomes the last to end."""
        lease.leave_queue()
        lease.deadline = now + self.length_s
        self.leases[lease] = None
        lease.queue = self


class RecentOutcomes:
    """How leases ended lately, so that repeating a settle whose answer was lost is not an error.

    Bounded by count, and forgotten at restart: after that a repeated settle is *stale*, which is as safe. Kept in two
    dictionaries: when the newer is full, the older is forgotten as a whole, which costs nothing a lease.
    """

    def __init__(self, limit: int = RECENT_MAX, keep_s: float = RECENT_S) -> None:
        """At least ``limit`` are remembered, and about twice as many at most."""
        self._limit = limit
        self._keep_s = keep_s
        self._newer: dict[str, tuple[Outcome, float]] = {}
        self._older: dict[str, tuple[Outcome, float]] = {}

    def note(self, lease_ids: Sequence[str], outcome: Outcome, now: float) -> None:
        """Remember how leases ended that did so together."""
        if len(self._newer) >= self._limit:
            self._older, self._newer = self._newer, {}
        self._newer.update(dict.fromkeys(lease_ids, (outcome, now)))

    def ended_by(self, lease_id: str, outcome: Outcome, now: float) -> bool:
        """Whether that lease ended with that outcome within the time that is remembered."""
        known = self._newer.get(lease_id) or self._older.get(lease_id)
        return known is not None and known[0] == outcome and now - known[1] <= self._keep_s
