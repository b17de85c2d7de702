"""Which services are registered, and which of them are there."""

from collections.abc import Iterable
from typing import Literal

from wakeq_control.errors import ServiceNotFound
from wakeq_control.model import NO_RETRY, Effects, Retry, Service, replica_address


class Registry:
    """Services by name."""

    def __init__(self) -> None:
        self._services: dict[str, Service] = {}
        self._present: dict[str, set[str]] = {}
        """Consumers, by the address whose messages they take."""
        self._replicas: dict[str, set[str]] = {}
        """Those that are there, by service."""
        self._leaving: set[str] = set()
        """Consumers that take no more."""
        self.sees = False
        """Whether it is known who is there."""

    def __contains__(self, name: object) -> bool:
        return name in self._services

    def all(self) -> list[Service]:
        """In the order of their first registration."""
        return list(self._services.values())

    def get(self, name: str) -> Service:
        """Raises ServiceNotFound."""
        try:
            return self._services[name]
        except KeyError:
            raise ServiceNotFound from None

    def require(self, name: str) -> Service:
        """Raises ServiceNotFound, which names those there are."""
        if name not in self._services:
            raise ServiceNotFound.among(name, self._services)
        return self._services[name]

    def is_worker(self, name: str, was: bool) -> bool:
        """Whether the service follows its tasks; ``was``: what one that is no longer registered did."""
        return self._services[name].is_worker if name in self._services else was

    def is_for_all(self, name: str) -> bool:
        """Whether its tasks are given to each of its replicas now."""
        return name in self._services and self._services[name].delivery == "all"

    def retry(self, name: str) -> Retry:
        """What follows a failed attempt; of a service that isn't registered, nothing."""
        return self._services[name].retry if name in self._services else NO_RETRY

    def restore(self, service: Service) -> None:
        """Take one from the store."""
        self._services[service.name] = service

    def register(self, service: Service, effects: Effects) -> None:
        """Add a service, or replace the one of its name."""
        if self._services.get(service.name) != service:
            self._services[service.name] = service
            row = to_definition(service) | {
                "schema": service.schema,
                "is_worker": service.is_worker,
                "retry": service.retry,
                "max_concurrent_tasks": service.max_concurrent_tasks,
                "delivery": service.delivery,
            }
            effects.put("service", service.name, row)
        effects.registered.append(service)

    def deregister(self, name: str, effects: Effects) -> None:
        """Forget a service; one that isn't there is forgotten already."""
        if self._services.pop(name, None) is not None:
            effects.drop("service", name)
            effects.deregistered.append(name)

    # Presence is the queue's to know, and is told anew whenever its events are followed: it is not stored, and while
    # they are not followed nothing is known.

    def appeared(self, address: str, consumer: str) -> None:
        """A consumer of a service's topic, or of a replica's, is there."""
        self._present.setdefault(address, set()).add(consumer)
        service, _, replica = address.partition("/")
        if replica:
            self._replicas.setdefault(service, set()).add(replica)

    def went(self, address: str, consumer: str) -> None:
        """It is gone."""
        consumers = self._present.get(address, set())
        consumers.discard(consumer)
        self._leaving.discard(consumer)
        if consumers:
            return
        self._present.pop(address, None)
        service, _, replica = address.partition("/")
        replicas = self._replicas.get(service, set())
        replicas.discard(replica)
        if not replicas:
            self._replicas.pop(service, None)

    def present_are(self, present: Iterable[tuple[str, str]]) -> None:
        """Those of a snapshot, and nobody else."""
        leaving, self._leaving = self._leaving, set()
        self.lost_sight()
        self.sees = True
        for address, consumer in present:
            self.appeared(address, consumer)
            if consumer in leaving:
                self._leaving.add(consumer)

    def lost_sight(self) -> None:
        """The queue's events are followed no more: who was there may have gone."""
        self._present = {}
        self._replicas = {}
        self.sees = False

    def is_present(self, address: str) -> bool:
        """Whether anybody is known to consume what is sent there."""
        return address in self._present

    def leaves(self, consumer: str) -> None:
        """It is about to go: it ends what it has, and is not to be given more."""
        if any(consumer in consumers for consumers in self._present.values()):
            self._leaving.add(consumer)

    def replicas(self, service: str) -> list[str]:
        """Those of a service that are known to be there, by name."""
        return sorted(self._replicas.get(service, ()))

    def takers(self, service: str) -> list[str]:
        """Those of them that may be given tasks."""
        found = self.replicas(service)
        return [name for name in found if self._present[replica_address(service, name)] - self._leaving]

    def state(self, name: str) -> Literal["up", "down", "unknown"]:
        """Whether anybody consumes a service's messages: with delivery to all, one of its replicas."""
        return self._seen(self._addresses(name))

    def consumers(self, name: str) -> list[str]:
        """Who consumes a service's messages, by name."""
        return sorted(name for address in self._addresses(name) for name in self._present.get(address, ()))

    def replica_state(self, service: str, replica: str) -> Literal["up", "down", "unknown"]:
        """Whether anybody consumes a replica's messages."""
        return self._seen([replica_address(service, replica)])

    def _seen(self, addresses: Iterable[str]) -> Literal["up", "down", "unknown"]:
        if not self.sees:
            return "unknown"
        return "up" if any(map(self.is_present, addresses)) else "down"

    def _addresses(self, name: str) -> list[str]:
        service = self._services.get(name)
        if service is None or service.delivery == "one":
            return [name]
        return [replica_address(name, replica) for replica in self.replicas(name)]


def to_definition(service: Service) -> dict[str, object]:
    """llama_deploy's ServiceDefinition."""
    return {
        "service_name": service.name,
        "description": service.description,
        "prompt": service.prompt,
        "host": service.host,
        "port": service.port,
    }
