"""The leases that a consumer has out: extended while they are held, and ended in batches.

One task, `run`, waits for requests. It sleeps until the next of these: ends to be told (10 ms after the first, or at
once when the consumer would wait, or has no other delivery in its hands), and a lease of which half is over. Without
either it has no timer.
"""

import logging
import math
from collections.abc import Iterable

import anyio

from wakeq._delivery import Delivery, Holder
from wakeq._errors import LeaseLost, WakeqError
from wakeq._model import Nack, SettleResult
from wakeq._settler import Settler, Settling

FLUSH_S = 0.01
"""How long an ack may wait for others."""
# Leases that are due a little later are extended along.
_TOGETHER = 1 / 8
_log = logging.getLogger("wakeq")


class Keeper(Holder):
    """Of one consumer."""

    def __init__(self, topic: str, settler: Settler, *, lease_s: float, retry_s: float) -> None:
        self._topic = topic
        self._settler = settler
        self._lease_s = lease_s
        # An ack is worth trying again as long as its lease may last.
        self._patience_s = max(retry_s, lease_s)
        self._due: dict[str, float] = {}
        """When each lease is to be extended."""
        self._acks: list[str] = []
        self._nacks: list[Nack] = []
        self._releases: list[str] = []
        self._flush_at = math.inf
        self._wake = anyio.Event()
        self._sleep = anyio.CancelScope()
        self._room: anyio.Event | None = None
        self._running = False
        self._ending = False

    @property
    def held(self) -> int:
        """How many leases are out."""
        return len(self._due)

    def holds(self, lease_id: str) -> bool:
        """Whether the lease, as far as is known, is still ours."""
        return lease_id in self._due

    def take(self, deliveries: Iterable[Delivery]) -> None:
        """Leases that have just begun."""
        due = anyio.current_time() + self._lease_s / 2
        self._due.update(dict.fromkeys([delivery.lease_id for delivery in deliveries], due))
        if due < self._sleep.deadline:
            self._sleep.deadline = due

    def drop(self, lease_id: str) -> None:
        """Extend it no more."""
        self._due.pop(lease_id, None)
        if self._room is not None:
            self._room.set()

    async def room(self, most: int) -> None:
        """Wait until fewer than ``most`` leases are out."""
        while len(self._due) >= most:
            self._room = anyio.Event()
            await self._room.wait()
        self._room = None

    def ack_soon(self, lease_id: str) -> bool:
        """Ack with the next batch; False where nobody does that any more."""
        if self._running:
            self.drop(lease_id)
            self._acks.append(lease_id)
            if not self._due:
                # Nothing is out that could be acked along.
                self.flush()
            elif self._flush_at == math.inf:
                self._flush_at = anyio.current_time() + FLUSH_S
                self._sleep.deadline = min(self._sleep.deadline, self._flush_at)
        return self._running

    def nack_soon(self, nack: Nack) -> bool:
        """Give back at once, without waiting for it; False where nobody does that any more."""
        if self._running:
            self.drop(nack.lease_id)
            self._nacks.append(nack)
            self.flush()
        return self._running

    def release_soon(self, lease_ids: Iterable[str]) -> None:
        """Give back at once what nobody has begun with; nothing where nobody does that any more."""
        if self._running:
            for lease_id in lease_ids:
                self.drop(lease_id)
                self._releases.append(lease_id)
            self.flush()

    @property
    def _untold(self) -> int:
        return len(self._acks) + len(self._nacks) + len(self._releases)

    def flush(self) -> None:
        """Tell the server now what has ended."""
        if self._untold:
            self._flush_at = -math.inf
            self._wake.set()

    async def settle(self, topic: str, end: Settling) -> None:
        """End a lease, and return when the server knows. Raises LeaseLost, ServerUnavailable."""
        (result,) = await self._ask(end)
        self.drop(result.lease_id)
        if result.status != "ok":
            raise LeaseLost(f"the lease {result.lease_id} has ended")

    async def extend(self, topic: str, lease_id: str, lease_s: float | None) -> None:
        """Prolong a lease. Raises LeaseLost, ServerUnavailable."""
        asked_at = anyio.current_time()
        (result,) = await self._ask(Settling(extend=[(lease_id, lease_s)]))
        self._extended([result], asked_at, min(lease_s or self._lease_s, self._lease_s))
        if result.status != "ok":
            raise LeaseLost(f"the lease {lease_id} has ended")

    async def renew(self) -> None:
        """Extend everything now: the server has seen this consumer's connection end. Raises WakeqError."""
        await self._extend_all(list(self._due))

    def end(self) -> None:
        """Let `run` return when what has ended is told."""
        self._ending = True
        self._flush_at = -math.inf
        self._wake.set()

    async def run(self) -> None:
        """Tell the server what has ended and extend what is held, until `end`."""
        self._running = True
        try:
            while not self._ending or self._untold:
                await self._rest()
                await self._tell_ends()
                await self._extend_due()
        finally:
            self._running = False

    async def _rest(self) -> None:
        until = min(self._flush_at, min(self._due.values(), default=math.inf))
        with anyio.CancelScope(deadline=until) as self._sleep:
            await self._wake.wait()
        self._wake = anyio.Event()

    async def _tell_ends(self) -> None:
        if not self._ending and self._flush_at != -math.inf and self._flush_at > anyio.current_time():
            return
        self._flush_at, untold = math.inf, self._untold
        if not untold:
            return
        ends = Settling(self._acks, self._nacks, release=self._releases)
        self._acks, self._nacks, self._releases = [], [], []
        try:
            results = await self._ask(ends)
        except WakeqError as error:
            _log.warning("topic %s: %d ends of leases were not told: %s", self._topic, untold, error)
        else:
            late = sum(result.status != "ok" for result in results)
            if late:
                _log.warning("topic %s: %d leases had ended before their messages were settled", self._topic, late)

    async def _extend_due(self) -> None:
        if self._ending or not self._due:
            return
        now = anyio.current_time()
        if min(self._due.values()) > now:
            return
        soon = now + self._lease_s * _TOGETHER
        leases = [lease for lease, due in self._due.items() if due <= soon]
        try:
            await self._extend_all(leases)
        except WakeqError as error:
            _log.warning("topic %s: %d leases could not be extended: %s", self._topic, len(leases), error)
            self._set_due(leases, now + self._lease_s / 2)

    async def _extend_all(self, leases: list[str]) -> None:
        if leases:
            asked_at = anyio.current_time()
            results = await self._ask(Settling(extend=[(lease, self._lease_s) for lease in leases]))
            self._extended(results, asked_at, self._lease_s)

    def _extended(self, results: Iterable[SettleResult], asked_at: float, lease_s: float) -> None:
        self._set_due([result.lease_id for result in results if result.status == "ok"], asked_at + lease_s / 2)
        for result in results:
            if result.status != "ok":
                self.drop(result.lease_id)

    def _set_due(self, leases: Iterable[str], due: float) -> None:
        # What was settled meanwhile stays so.
        self._due.update({lease: due for lease in leases if lease in self._due})

    async def _ask(self, asked: Settling) -> list[SettleResult]:
        asked.patience_s = self._patience_s
        await self._settler.submit(asked)
        return asked.results
