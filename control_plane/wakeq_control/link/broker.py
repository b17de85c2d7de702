"""What the control plane asks of the queue, with its topics made where they are missing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import orjson

import wakeq
from wakeq._errors import raise_for_answer
from wakeq._sse import SSEParser
from wakeq_control.messages import CONTROL_PLANE

DEDUP_WINDOW_S = 3_600.0
"""How long after a crash a message that may have been published can be published again and is still the same."""
SILENCE_S = 37.5
"""Two and a half heartbeats of 15 s: a stream that silent is dead."""


class Broker:
    """One queue server."""

    def __init__(self, url: str, token: str | None, namespace: str) -> None:
        self.client = wakeq.AsyncClient(url, token=token, consumer=f"control plane {namespace}")
        headers = {"authorization": f"Bearer {token}"} if token else {}
        # Pushes and events are no part of the client.
        self._http = httpx.AsyncClient(base_url=url, headers=headers, verify=url.startswith("https:"), timeout=10.0)
        self._prefix = f"{namespace}."

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()
        await self.client.aclose()

    def topic(self, service: str) -> str:
        """Where a service's messages go, and the control plane's own."""
        return self._prefix + service

    def service(self, topic: str) -> str | None:
        """The service that consumes a topic; None for a topic of somebody else."""
        return topic.removeprefix(self._prefix) if topic.startswith(self._prefix) else None

    async def make_topic(self, service: str) -> None:
        """Make a service's topic, unless it is there; one that is there stays as it is. Raises WakeqError."""
        topic = self.topic(service)
        try:
            await self.client.topic(topic)
        except wakeq.TopicNotFound:
            # The control plane decides by itself which of its messages are dead: a restart is no attempt.
            config: dict[str, Any] = {"max_deliveries": 0} if service == CONTROL_PLANE else {}
            await self.client.create_topic(topic, schema="queue_message", dedup_window_s=DEDUP_WINDOW_S, **config)

    async def publish(self, service: str, body: dict[str, Any], key: str) -> None:
        """Publish to a service; with the same key again, nothing happens. Raises WakeqError."""
        try:
            await self.client.publish(self.topic(service), body, idempotency_key=key)
        except wakeq.TopicNotFound:
            await self.make_topic(service)
            await self.client.publish(self.topic(service), body, idempotency_key=key)

    async def put_push(self, service: str, name: str, url: str) -> None:
        """Have a service's messages posted to a URL. Raises Forbidden where the queue may not reach it, WakeqError."""
        await self._ask("PUT", self._push(service, name), json={"url": url})

    async def delete_push(self, service: str, name: str) -> None:
        """End a push; one that isn't there has ended. Raises WakeqError."""
        await self._ask("DELETE", self._push(service, name))

    async def pushes(self, service: str) -> list[str]:
        """The names of a service's pushes. Raises WakeqError."""
        answer = await self._ask("GET", self._push(service))
        return [] if answer is None else [push["name"] for push in answer.json()["pushes"]]

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator["Seen"]]:
        """Who comes and goes, after a snapshot of who is there. Raises WakeqError, from the iteration too."""
        timeout = httpx.Timeout(10.0, read=SILENCE_S)
        try:
            async with self._http.stream("GET", "/events", timeout=timeout) as response:
                if not response.is_success:
                    await response.aread()
                    raise_for_answer(response)
                yield self._seen(response)
        except httpx.TransportError as error:
            raise wakeq.ServerUnavailable(f"no events from the queue: {error!r}") from error

    async def _seen(self, response: httpx.Response) -> AsyncIterator["Seen"]:
        parser = SSEParser()
        async for chunk in response.aiter_raw():
            for event in parser.feed(chunk):
                data = orjson.loads(event.data)
                service = self.service(data.get("topic", ""))
                yield Seen(event.event, service, data.get("consumer", ""))

    async def _ask(self, method: str, path: str, **more: Any) -> httpx.Response | None:
        try:
            response = await self._http.request(method, path, **more)
        except httpx.TransportError as error:
            raise wakeq.ServerUnavailable(f"no answer from the queue: {error!r}") from error
        if response.status_code == httpx.codes.NOT_FOUND and method != "PUT":
            return None
        raise_for_answer(response)
        return response

    def _push(self, service: str, name: str | None = None) -> str:
        path = f"/topics/{_segment(self.topic(service))}/push"
        return path if name is None else f"{path}/{_segment(name)}"


class Seen(NamedTuple):
    """An event of the queue's."""

    kind: str
    service: str | None
    """None where it is about no service of this control plane."""
    consumer: str


def _segment(name: str) -> str:
    return quote(name, safe="").replace(".", "%2E")
