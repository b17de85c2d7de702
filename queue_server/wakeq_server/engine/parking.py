"""Parked consumers: a condition variable for many, where one message wakes one.

A parked consumer is one task inside an anyio cancel scope; to wake it is to cancel that scope. Inside, the task
does what it would have to do anyway: it watches its connection for the hang-up. So there is no second task a
consumer, nobody contends for a lock, and waking is O(1) whoever else is parked. (`anyio.Condition` wakes through
its lock and removes one that timed out in O(n); what it costs in memory stands in docs/decisions/parking.md.)

The rules that keep messages from getting lost:

1. A message is leased to a consumer *before* it is woken, and lies in `handed`.
2. Whoever is handed something leaves the line at that moment, so nobody is handed to twice.
3. The woken task either returns what it was handed, or undoes it: cancelled meanwhile, hung up, whatever. There is
   no await between waking and that choice.
"""

from collections import OrderedDict
from typing import TYPE_CHECKING

import anyio

from wakeq_server.core.leases import Lease
from wakeq_server.errors import QueueError

if TYPE_CHECKING:
    from wakeq_server.engine.dealing import EmbeddedSubscription


class Parked:
    """One consumer that waits."""

    __slots__ = ("again", "error", "handed", "handed_at", "limit", "scope", "subscription")

    def __init__(
        self, subscription: "EmbeddedSubscription", limit: int, deadline: float, *, again: bool = False
    ) -> None:
        self.subscription = subscription
        self.limit = limit
        self.again = again
        """Whether it has had its turn, which came to nothing."""
        self.scope = anyio.CancelScope(deadline=deadline)
        self.handed: list[Lease] = []
        self.handed_at = 0.0
        self.error: QueueError | None = None

    @property
    def room(self) -> int:
        """How many more messages it would take now."""
        return self.subscription.room(self.limit - len(self.handed))

    def wake(self) -> None:
        """Let it run."""
        self.scope.cancel()


class Parking:
    """The line of a group: longest parked first."""

    __slots__ = ("_line",)

    def __init__(self) -> None:
        # An OrderedDict finds its first and deletes any in O(1), which neither a deque nor a dict does.
        self._line: OrderedDict[Parked, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._line)

    def join(self, parked: Parked) -> None:
        """Stand at the end; whoever stands there already keeps its place."""
        self._line.setdefault(parked)

    def rejoin(self, parked: Parked) -> None:
        """Stand in front again: there was nothing after all."""
        self._line[parked] = None
        self._line.move_to_end(parked, last=False)

    def leave(self, parked: Parked) -> None:
        """Go, wherever one stands."""
        self._line.pop(parked, None)

    def first(self, count: int) -> list[Parked]:
        """Up to that many from the front; they leave the line."""
        return [self._line.popitem(last=False)[0] for _ in range(min(count, len(self._line)))]

    def everyone(self) -> list[Parked]:
        """All of them; they leave the line."""
        return self.first(len(self._line))
