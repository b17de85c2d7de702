"""What a program iterates over to get messages."""

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from wakeq._delivery import Delivery
from wakeq._feed import Feed


class Consumer:
    """An async iterator of deliveries; also an async context manager, which gives back what was not handed over.

    Without the context manager that happens when the loop is left and nothing else refers to the consumer, or when the
    client is closed.
    """

    def __init__(self, feed: Feed, start: Callable[[Feed], None]) -> None:
        """Made by `AsyncClient.consume`."""
        self._feed = feed
        self._start: Callable[[Feed], None] | None = start
        self._thread = 0

    @property
    def streams(self) -> bool:
        """False while this consumer has found that only long polls get through."""
        return self._feed.streams

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery:
        """The next message; what passes by itself is waited out. Raises TopicNotFound, GroupNotFound, BadRequest."""
        ready = self._feed.ready
        while True:
            while ready:
                delivery = ready.popleft()
                # Else its lease has ended while it waited here, and somebody else has the message.
                if self._holds(delivery):
                    return delivery
            if not await self._more():
                raise StopAsyncIteration

    async def _take(self) -> list[Delivery]:
        """All that have come, as soon as there is one; none is the end."""
        await self._more()
        taken = list(self._feed.ready)
        self._feed.ready.clear()
        return taken

    def _take_back(self, deliveries: deque[Delivery]) -> None:
        """What was taken in advance, and not handed over."""
        while deliveries:
            self._feed.ready.appendleft(deliveries.pop())

    @property
    def _here(self) -> bool:
        """Whether this is the thread of the loop that it was started on."""
        return self._thread == threading.get_ident()

    def _holds(self, delivery: Delivery) -> bool:
        return self._feed.keeper.holds(delivery.lease_id)

    async def _more(self) -> bool:
        if self._start is not None:
            start, self._start = self._start, None
            self._thread = threading.get_ident()
            start(self._feed)
        return await self._feed.news()

    def stop(self) -> None:
        """Take no more messages, and give back what was not handed over: the iteration ends.

        What was handed over stays this consumer's, and is extended, until the consumer is closed.
        """
        self._feed.stop()

    async def aclose(self) -> None:
        """Stop, and end when the server knows what was settled (or after 5 s).

        What was handed over and not settled comes back to the topic within its grace.
        """
        self._start = None
        await self._feed.aclose()

    def __del__(self) -> None:
        # From another thread the loop can't be told; then the client's end does this.
        if self._here:
            self._feed.abandon()
