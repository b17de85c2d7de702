"""Iteration without an event loop. Going to the loop and back costs more than a message, so it is done for several."""

from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Self

from wakeq._consumer import Consumer
from wakeq._delivery import Delivery, SyncDelivery

if TYPE_CHECKING:
    from wakeq._client import Client


class SyncConsumer:
    """An iterator of deliveries; also a context manager, which gives back what was not handed over.

    Without the context manager that happens when the loop is left and nothing else refers to the consumer, or when the
    client is closed.
    """

    def __init__(self, client: "Client", consumer: Consumer) -> None:
        """Made by `Client.consume`."""
        self._client = client
        self._consumer = consumer
        # Appending and taking are atomic; nothing else is asked of them by several threads.
        self._ready: deque[Delivery] = deque()
        self._done: deque[Delivery] = deque()
        self._telling = False

    @property
    def streams(self) -> bool:
        """False while this consumer has found that only long polls get through."""
        return self._consumer.streams

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> SyncDelivery:
        """The next message; what passes by itself is waited out. Raises TopicNotFound, GroupNotFound, BadRequest."""
        while True:
            try:
                delivery = self._ready.popleft()
            except IndexError:
                if not self._client._call(self._take):
                    raise StopIteration from None
                continue
            # Else its lease has ended while it waited here, and somebody else has the message.
            if self._consumer._holds(delivery):
                return SyncDelivery(self._client, delivery, self._ack_soon)

    async def _take(self) -> bool:
        taken = await self._consumer._take()
        self._ready.extend(taken)
        return bool(taken)

    def _ack_soon(self, delivery: Delivery) -> None:
        self._done.append(delivery)
        if not self._telling:
            self._telling = True
            self._client._soon(self._tell)

    async def _tell(self) -> None:
        # First: what is appended from here on finds the next one on its way.
        self._telling = False
        while self._done:
            await self._done.popleft().__aexit__(None, None, None)

    def stop(self) -> None:
        """See `Consumer.stop`."""
        self._client._call(self._stop)

    async def _stop(self) -> None:
        self._consumer._take_back(self._ready)
        self._consumer.stop()

    def close(self) -> None:
        """Close the stream, and give back what was not handed over; returns when the server knows (or after 5 s)."""
        self._client._call(self._close)

    async def _close(self) -> None:
        await self._tell()
        await self._stop()
        await self._consumer.aclose()

    def __del__(self) -> None:
        if self._consumer._here:
            # An ack on its way was the last to refer to this. The loop can't be asked from itself, and need not be.
            self._consumer._take_back(self._ready)
        else:
            self._client._soon(self._close)
