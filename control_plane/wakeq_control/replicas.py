"""Which replicas are there, and what that means for tasks.

The queue's events say who consumes a replica's topic. A task is given to the replicas that are there; what one has
that is gone has failed, but what its worker still follows: that stops, and may end what it has. Where the queue was not
heard for a while, who is missing has some time to come back.
"""

from collections.abc import Callable, Iterable

from wakeq_control.model import Effects, replica_address
from wakeq_control.registry import Registry
from wakeq_control.runs import Runs

MISSING_S = 30.0
"""How long a replica may be missing when the queue is heard again: the two may have to find each other anew, too."""


class Replicas:
    """Those of all services, by their addresses."""

    def __init__(self, registry: Registry, runs: Runs) -> None:
        self._registry = registry
        self._runs = runs
        self.is_followed: Callable[[str], bool] = lambda task_id: False
        """Whether a worker is there that has begun a task."""
        self._missing: set[str] = set()
        """Those that were not there with the last snapshot."""
        self.missing_at: float | None = None
        """When those of them that are not there then are gone."""
        self._gone: set[str] = set()
        """Those that are gone and whose workers have something to end."""

    def appeared(self, address: str, consumer: str, now: float) -> Effects:
        """A consumer of a service's topic, or of a replica's, is there; tasks that wait for the latter go to it."""
        effects = Effects()
        self._registry.appeared(address, consumer)
        self._gone.discard(address)
        service, _, replica = address.partition("/")
        if replica:
            self.give_out(service, now, effects)
        return effects

    def went(self, address: str, consumer: str, now: float) -> Effects:
        """It is gone; what a replica has not ended has failed."""
        effects = Effects()
        self._registry.went(address, consumer)
        if self.is_gone(address):
            self._goes(address, now, effects)
        return effects

    def present_are(self, present: Iterable[tuple[str, str]], now: float, known: Iterable[str] = ()) -> Effects:
        """Those are there, and nobody else; replicas that are missing have some time to come back.

        ``known``: the addresses of replicas that have topics.
        """
        effects = Effects()
        self._registry.present_are(present)
        addresses = {*known, *self._runs.addresses()}
        self._missing = {address for address in addresses if not self._registry.is_present(address)}
        self.missing_at = now + MISSING_S if self._missing else None
        for service in self._runs.awaited():
            self.give_out(service, now, effects)
        return effects

    def lost_sight(self) -> Effects:
        """Nobody knows who is there: nothing ends of that."""
        self._registry.lost_sight()
        self.missing_at = None
        return Effects()

    def left(self, now: float) -> Effects:
        """A worker follows its tasks no more; what it has of a replica that is gone has failed."""
        effects = Effects()
        for address in sorted(self._gone):
            if self.is_gone(address):
                self._goes(address, now, effects)
        return effects

    def tick(self, now: float, effects: Effects) -> None:
        """Who was missing for too long is gone."""
        if self.missing_at is None or self.missing_at > now:
            return
        self.missing_at = None
        # Others may have gone in the meantime.
        for address in sorted({*self._missing, *self._runs.addresses()}):
            if self.is_gone(address):
                self._goes(address, now, effects)

    def give_out(self, service: str, now: float, effects: Effects) -> None:
        """Give what waits for a service's replicas to those that are there."""
        replicas = self._registry.takers(service)
        if replicas:
            self._runs.give_out(service, replicas, now, effects)

    def is_gone(self, address: str) -> bool:
        """Whether nobody is there, as far as is known, and will be."""
        return self._registry.sees and self.missing_at is None and not self._registry.is_present(address)

    def of(self, service: str) -> list[tuple[str, int]]:
        """A service's, and how many tasks each has to end; those that are missing and have any, too."""
        names = {*self._registry.replicas(service), *self._runs.replicas(service)}
        return [(name, self._runs.unfinished(replica_address(service, name))) for name in sorted(names)]

    def _goes(self, address: str, now: float, effects: Effects) -> None:
        if "/" not in address:
            return
        self._runs.gone(address, self.is_followed, now, effects)
        if self._runs.unfinished(address):
            self._gone.add(address)
        else:
            self._gone.discard(address)
            effects.gone.append(address)
