"""What the control plane asks of the queue, with its topics made where they are missing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, NamedTuple

import anyio
import orjson

import wakeq
from wakeq._connection import SILENCE_S, Answer, Connection, path_segment, topic_path
from wakeq._errors import raise_for_answer, read_answer
from wakeq._sse import SSEParser
from wakeq_control.messages import CONTROL_PLANE
from wakeq_control.model import replica_address

DEDUP_WINDOW_S = 3_600.0
"""How long after a crash a message that may have been published can be published again and is still the same."""
TIMEOUT_S = 10.0
"""How long the queue may be silent where it isn't asked to wait."""


class Broker:
    """One queue server."""

    def __init__(self, client: wakeq.AsyncClient, connection: Connection, namespace: str) -> None:
        """Made by `open_broker`. ``connection`` is for pushes and events, which are no part of the client."""
        self.client = client
        self._connection = connection
        self._prefix = f"{namespace}."
        self._replicas = f"{namespace}@"

    def topic(self, service: str) -> str:
        """Where the messages of a service go, those to a replica's address, and the control plane's own."""
        name, slash, replica = service.partition("/")
        return f"{self._replicas}{name}@{replica}" if slash else self._prefix + name

    def service(self, topic: str) -> str | None:
        """The service that consumes a topic, or the replica's address; None for a topic of somebody else."""
        if topic.startswith(self._prefix):
            return topic.removeprefix(self._prefix)
        if not topic.startswith(self._replicas):
            return None
        # No replica has an @ in its name.
        service, _, replica = topic.removeprefix(self._replicas).rpartition("@")
        return replica_address(service, replica) if service and replica else None

    async def make_topic(self, service: str, *, is_worker: bool = False) -> None:
        """Make the topic of a service or a replica, unless it is there, as it is. Raises WakeqError.

        The control plane decides by itself which of its own messages are dead, and when a worker's task has been tried
        often enough: their topics have no limit of deliveries, and a worker's loses it.
        """
        topic = self.topic(service)
        config: dict[str, Any] = {"max_deliveries": 0} if is_worker or service == CONTROL_PLANE else {}
        try:
            found = await self.client.topic(topic)
        except wakeq.TopicNotFound:
            await self.client.create_topic(topic, schema="queue_message", dedup_window_s=DEDUP_WINDOW_S, **config)
        else:
            if is_worker and found.raw["config"]["max_deliveries"] != 0:
                await self.client.configure_topic(topic, **config)

    async def drop_topic(self, address: str) -> None:
        """Drop a replica's topic, but for one with dead letters, which are there for people. Raises WakeqError."""
        topic = self.topic(address)
        try:
            found = await self.client.topic(topic)
            if not any(group.dead for group in found.groups.values()):
                await self.client.delete_topic(topic)
        except wakeq.TopicNotFound:
            return

    async def replicas(self) -> list[str]:
        """The addresses of all replicas that have topics. Raises WakeqError."""
        found: list[str] = []
        # They stand together, since topics come by name.
        async for topic in self.client.topics(after=self._replicas):
            if not topic.name.startswith(self._replicas):
                break
            if (address := self.service(topic.name)) is not None:
                found.append(address)
        return found

    async def publish(self, service: str, body: dict[str, Any], key: str) -> None:
        """Publish to a service; with the same key again, nothing happens. Raises WakeqError."""
        try:
            await self.client.publish(self.topic(service), body, idempotency_key=key)
        except wakeq.TopicNotFound:
            await self.make_topic(service, is_worker="/" in service)
            await self.client.publish(self.topic(service), body, idempotency_key=key)

    async def put_push(self, service: str, name: str, url: str) -> None:
        """Have a service's messages posted to a URL. Raises Forbidden where the queue may not reach it, WakeqError."""
        raise_for_answer(await self._ask("PUT", self._push(service, name), orjson.dumps({"url": url})))

    async def delete_push(self, service: str, name: str) -> None:
        """End a push; one that isn't there has ended. Raises WakeqError."""
        answer = await self._ask("DELETE", self._push(service, name))
        if answer.status != HTTPStatus.NOT_FOUND:
            raise_for_answer(answer)

    async def pushes(self, service: str) -> dict[str, bool]:
        """A service's pushes by name, and whether they are up: their targets can be reached. Raises WakeqError."""
        answer = await self._ask("GET", self._push(service))
        if answer.status == HTTPStatus.NOT_FOUND:
            return {}
        raise_for_answer(answer)
        return read_answer(answer, lambda said: {push["name"]: push["state"] == "up" for push in said["pushes"]})

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator["Seen"]]:
        """Who comes and goes, after a snapshot of who is there. Raises WakeqError, from the iteration too."""
        async with self._connection.stream("/events", [(b"accept", b"text/event-stream")], SILENCE_S) as response:
            yield self._seen(response)

    async def _seen(self, parts: AsyncIterator[bytes]) -> AsyncIterator["Seen"]:
        parser = SSEParser()
        async for part in parts:
            for event in parser.feed(part):
                data = orjson.loads(event.data)
                service = self.service(data.get("topic", ""))
                yield Seen(event.event, service, data.get("consumer", ""))

    async def _ask(self, method: str, path: str, content: bytes = b"") -> Answer:
        return await self._connection.ask(method, path, content=content)

    def _push(self, service: str, name: str | None = None) -> str:
        path = f"{topic_path(self.topic(service))}/push"
        return path if name is None else f"{path}/{path_segment(name)}"


class Seen(NamedTuple):
    """An event of the queue's."""

    kind: str
    service: str | None
    """None where it is about no service of this control plane."""
    consumer: str


@asynccontextmanager
async def open_broker(
    url: str, token: str | None, namespace: str, *, consumer: str, retry_s: float = 0.0
) -> AsyncIterator[Broker]:
    """A queue server, whose connections are closed on the way out. ``consumer`` is what it is told who we are."""
    connection = Connection(url, token=token, timeout=TIMEOUT_S, transport=None)
    # Without `retry_s` trying again is decided by the callers, which log it.
    async with wakeq.AsyncClient(url, token=token, retry_s=retry_s, consumer=consumer) as client:
        try:
            yield Broker(client, connection, namespace)
        finally:
            with anyio.CancelScope(shield=True):
                await connection.aclose()
