"""Who is there: told by the queue's events, never asked for.

Services that gave an address have their messages posted there, so that they get them at once; where the queue can't
reach it, their own parked requests serve them. While the events are not followed nobody knows who is there, and nothing
is said of it. Whenever they begin anew (a start, a queue that was restarted) all topics and pushes are put again.
"""

from functools import partial
from typing import Any

import anyio
import structlog

import wakeq
from wakeq._serving.hosts import ANYWHERE
from wakeq_control.engine.engine import Engine
from wakeq_control.link.broker import Broker, Seen
from wakeq_control.link.trying import PERMANENT, new_backoff, until_done
from wakeq_control.model import Service

_log: Any = structlog.get_logger("wakeq.control")


class Presence:
    """Keeps the registry and the queue's pushes up to date."""

    def __init__(self, engine: Engine, broker: Broker) -> None:
        self._engine = engine
        self._broker = broker
        self._changed: dict[str, Service | None] = {}
        self._something = anyio.Event()
        self._backoff = new_backoff()

    def came(self, service: Service) -> None:
        """It was registered."""
        self._change(service.name, service)

    def went(self, name: str) -> None:
        """It was deregistered."""
        self._change(name, None)

    def gone(self, address: str) -> None:
        """A replica needs its topic no more."""
        self._change(address, None)

    def _change(self, name: str, service: Service | None) -> None:
        self._changed[name] = service
        self._something.set()

    async def run(self) -> None:
        """Follow, for ever."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._put)
            await until_done("following the queue's events", self._follow, self._backoff)

    async def _follow(self) -> None:
        try:
            await self._follow_once()
        finally:
            self._engine.lost_sight()

    async def _follow_once(self) -> None:
        async with self._broker.events() as events:
            for service in self._engine.registry.all():
                self.came(service)
            snapshot: list[tuple[str, str]] | None = []
            async for seen in events:
                if seen.kind == "snapshot.end":
                    # What comes meanwhile is read behind it.
                    self._engine.consumers_are(snapshot or [], await self._broker.replicas())
                    self._backoff.succeeded()
                    _log.info("following the queue's events", present=len(snapshot or []))
                    snapshot = None
                elif seen.service is None:
                    continue
                elif snapshot is not None and seen.kind == "consumer.parked":
                    snapshot.append((seen.service, seen.consumer))
                else:
                    await self._saw(seen, seen.service)
        raise wakeq.ServerUnavailable("the queue's events have ended")

    async def _saw(self, seen: Seen, service: str) -> None:
        match seen.kind:
            case "consumer.parked":
                self._engine.consumer_came(service, seen.consumer)
            case "consumer.gone":
                self._engine.consumer_went(service, seen.consumer)
            case "push.down" if not self._is_current(service, seen.consumer):
                # Where a service was before it was registered elsewhere.
                await self._broker.delete_push(service, seen.consumer)

    def _is_current(self, service: str, push: str) -> bool:
        registry = self._engine.registry
        return service in registry and _address(registry.get(service)) == push

    async def _put(self) -> None:
        while True:
            await self._something.wait()
            self._something = anyio.Event()
            while self._changed:
                name, service = self._changed.popitem()
                await until_done(f"telling the queue of {name}", partial(self._tell, name, service))

    async def _tell(self, name: str, service: Service | None) -> None:
        if "/" in name:
            if not self._engine.registry.is_present(name):
                await self._broker.drop_topic(name)
            return
        if service is None:
            for push in await self._broker.pushes(name):
                await self._broker.delete_push(name, push)
            return
        address = _address(service)
        try:
            await self._broker.make_topic(name, is_worker=service.is_worker)
            if address is not None:
                await self._broker.put_push(name, address, f"http://{address}/process_message")
        except PERMANENT as error:
            # It may be where the queue must not push to, or have an address that is none.
            _log.warning("not pushed to", service=name, reason=error.detail)
        if address is not None:
            # One that went down while nobody heard of it.
            for push, is_up in (await self._broker.pushes(name)).items():
                if not is_up and push != address:
                    await self._broker.delete_push(name, push)


def _address(service: Service) -> str | None:
    """Where a service can be reached, which is the name of its push too."""
    if not service.host or not service.port or service.host in ANYWHERE:
        return None
    host = f"[{service.host}]" if ":" in service.host else service.host
    return f"{host}:{service.port}"
