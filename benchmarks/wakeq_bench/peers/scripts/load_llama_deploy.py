"""llama_deploy's own queue: its client, which sleeps 100 ms between two requests, or a loop that sleeps 50 ms.

A message that is answered is gone from the queue: there are no acks, and no batches.
"""

# mypy: disable-error-code="import-not-found,misc"

import argparse
import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
from _client import Queue
from _jobs import main
from llama_deploy import CallableMessageConsumer, QueueMessage
from llama_deploy.message_queues.simple import SimpleMessageQueue, SimpleMessageQueueConfig

_POLL_EVERY_S = 0.05


class Polled(Queue):
    """Topics of one server; `own_loop` is the query of its requests, None has its own client ask."""

    def __init__(self, own_loop: str | None) -> None:
        self.requests = 0
        self._own_loop = own_loop

    async def count(self, _request: Any) -> None:
        """One more, for httpx."""
        self.requests += 1

    def connect(self, queue: Any, http: httpx.AsyncClient) -> None:
        """To call by these from now on."""
        self._queue = queue
        self._http = http

    async def create(self, topic: str, groups: Sequence[str] = ()) -> None:
        """One that is there already is refused, which is as good."""
        await self._http.post(f"/topics/{topic}")

    async def publish(self, topic: str, body: str) -> None:
        """By the client, which makes a connection for each."""
        await self._queue.publish(QueueMessage(data={"body": body}), topic)

    async def deliveries(self, topic: str, prefetch: int, group: str | None = None) -> AsyncIterator[tuple[Any, str]]:
        """By the client's consumer, or by the loop."""
        if self._own_loop is not None:
            while True:
                message = (await self._http.get(f"/messages/{topic}{self._own_loop}")).json()
                if message:
                    yield None, message["data"]["body"]
                await asyncio.sleep(_POLL_EVERY_S)
        delivered: asyncio.Queue[str] = asyncio.Queue()

        async def deliver(message: QueueMessage) -> None:
            delivered.put_nowait(message.data["body"])

        consumer = CallableMessageConsumer(message_type="default", handler=deliver)
        consuming = asyncio.create_task((await self._queue.register_consumer(consumer, topic))())
        try:
            while True:
                yield None, await delivered.get()
        finally:
            consuming.cancel()

    async def ack_one(self, token: Any) -> None:
        """There are none."""


@contextlib.asynccontextmanager
async def connect(options: argparse.Namespace) -> AsyncIterator[Queue]:
    """Ways: its client, with what `client_kwargs` say; or a loop, with a query where that follows."""
    # A line of log a message would be measured with it.
    logging.getLogger("llama_deploy").setLevel(logging.WARNING)
    way, _, more = options.way.partition(":")
    polled = Polled(more if way == "loop" else None)
    address, hooks = urlsplit(options.url), {"request": [polled.count]}
    client_kwargs = {"timeout": 30.0, "event_hooks": hooks, **(json.loads(more or "{}") if way == "client" else {})}
    config = SimpleMessageQueueConfig(host=address.hostname, port=address.port or 80, client_kwargs=client_kwargs)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=options.url, timeout=30.0, limits=limits, event_hooks=hooks) as http:
        polled.connect(SimpleMessageQueue(config), http)
        yield polled


if __name__ == "__main__":
    main(connect)
