"""aio-pika: a quorum queue a topic, or a fan-out exchange with one a group; publisher confirms, manual acks."""

# mypy: disable-error-code="import-not-found,import-untyped,misc"

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aio_pika
from _client import TAKE_S, Consumer, Queue, Taken
from _jobs import main

_QUORUM = {"x-queue-type": "quorum"}
_PREFETCH_OF_BATCHES = 1_000


class Pushed(Consumer):
    """A channel of its own, into which the server pushes; an ack of the last is one of all before it."""

    def __init__(self, messages: asyncio.Queue[Any]) -> None:
        self._messages = messages

    async def take(self, most: int) -> Taken:
        """What has been pushed."""
        try:
            taken = [await asyncio.wait_for(self._messages.get(), TAKE_S)]
        except TimeoutError:
            return []
        while len(taken) < most and not self._messages.empty():
            taken.append(self._messages.get_nowait())
        return [(message, message.body) for message in taken]

    async def ack(self, tokens: Sequence[Any]) -> None:
        """One ack, which AMQP does not confirm."""
        await tokens[-1].ack(multiple=True)


class Rabbit(Queue):
    """Queues of one server, over one connection."""

    def __init__(self, connection: Any, channel: Any) -> None:
        self._connection = connection
        self._channel = channel
        self._exchanges: dict[str, Any] = {}

    async def create(self, topic: str, groups: Sequence[str] = ()) -> None:
        """Durable quorum queues."""
        if not groups:
            await self._channel.declare_queue(topic, durable=True, arguments=_QUORUM)
            return
        exchange = await self._channel.declare_exchange(topic, aio_pika.ExchangeType.FANOUT, durable=True)
        self._exchanges[topic] = exchange
        for group in groups:
            queue = await self._channel.declare_queue(f"{topic}.{group}", durable=True, arguments=_QUORUM)
            await queue.bind(exchange)

    async def publish(self, topic: str, body: str) -> None:
        """One persistent message, confirmed."""
        message = aio_pika.Message(body.encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        exchange = self._exchanges.get(topic, self._channel.default_exchange)
        await exchange.publish(message, routing_key=topic)

    async def publish_many(self, topic: str, bodies: Sequence[str]) -> None:
        """One after the other, whose confirms are gathered."""
        await asyncio.gather(*(self.publish(topic, body) for body in bodies))

    async def consumer(self, topic: str) -> Consumer:
        """With a channel of its own."""
        return Pushed(await self._pushed(topic, _PREFETCH_OF_BATCHES))

    async def deliveries(self, topic: str, prefetch: int, group: str | None = None) -> AsyncIterator[tuple[Any, bytes]]:
        """Pushed, `prefetch` of them unacked."""
        messages = await self._pushed(topic if group is None else f"{topic}.{group}", prefetch)
        while True:
            message = await messages.get()
            yield message, message.body

    async def _pushed(self, name: str, prefetch: int) -> asyncio.Queue[Any]:
        channel = await self._connection.channel()
        await channel.set_qos(prefetch_count=prefetch)
        messages: asyncio.Queue[Any] = asyncio.Queue()
        queue = await channel.declare_queue(name, durable=True, arguments=_QUORUM)
        await queue.consume(messages.put)
        return messages

    async def ack_one(self, token: Any) -> None:
        """One ack, which AMQP does not confirm."""
        await token.ack()


@contextlib.asynccontextmanager
async def connect(options: argparse.Namespace) -> AsyncIterator[Queue]:
    """One connection."""
    connection = await aio_pika.connect(options.url)
    async with connection:
        yield Rabbit(connection, await connection.channel(publisher_confirms=True))


if __name__ == "__main__":
    main(connect)
