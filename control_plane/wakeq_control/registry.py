"""Which services are registered, and which of them are there."""

from collections.abc import Iterable
from typing import Literal

from wakeq_control.errors import ServiceNotFound
from wakeq_control.model import NO_RETRY, Effects, Retry, Service


class Registry:
    """Services by name."""

    def __init__(self) -> None:
        self._services: dict[str, Service] = {}
        self._present: dict[str, set[str]] = {}
        self._sees = False

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

    def appeared(self, name: str, consumer: str) -> None:
        """A consumer of the service's topic is there."""
        self._present.setdefault(name, set()).add(consumer)

    def went(self, name: str, consumer: str) -> None:
        """It is gone."""
        consumers = self._present.get(name, set())
        consumers.discard(consumer)
        if not consumers:
            self._present.pop(name, None)

    def present_are(self, present: Iterable[tuple[str, str]]) -> None:
        """Those of a snapshot, and nobody else."""
        self._present = {}
        self._sees = True
        for name, consumer in present:
            self.appeared(name, consumer)

    def lost_sight(self) -> None:
        """The queue's events are followed no more: who was there may have gone."""
        self._present = {}
        self._sees = False

    def state(self, name: str) -> Literal["up", "down", "unknown"]:
        """Whether anybody consumes a service's messages."""
        if not self._sees:
            return "unknown"
        return "up" if name in self._present else "down"

    def consumers(self, name: str) -> list[str]:
        """Who consumes a service's messages, by name."""
        return sorted(self._present.get(name, ()))


def to_definition(service: Service) -> dict[str, object]:
    """llama_deploy's ServiceDefinition."""
    return {
        "service_name": service.name,
        "description": service.description,
        "prompt": service.prompt,
        "host": service.host,
        "port": service.port,
    }
