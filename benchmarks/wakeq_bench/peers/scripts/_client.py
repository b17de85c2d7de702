"""What a client has to be able to do for the jobs of this folder; one module a queue, which calls its usual client.

Run by the python of a peer's environment: the standard library only.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Any

TAKE_S = 1.0
"""How long a `take` may wait for a first message."""

Taken = Sequence[tuple[Any, bytes | str]]


class Consumer(ABC):
    """One consumer of a topic."""

    @abstractmethod
    async def take(self, most: int) -> Taken:
        """Up to `most` messages, each with what acks it; none if there were none for a while."""

    @abstractmethod
    async def ack(self, tokens: Sequence[Any]) -> None:
        """Ack them all, in as few requests as the client has for it; return when the server has."""


class Queue(ABC):
    """A client, connected. What a queue has no calls for, its contestant says it can't do, and is not asked for."""

    requests: int | None = None
    """How many it has made so far, where it can be told."""

    @abstractmethod
    async def create(self, topic: str, groups: Sequence[str] = ()) -> None:
        """Make a topic whose consumers share its messages, or, with `groups`, one that gives each group all of them."""

    @abstractmethod
    async def publish(self, topic: str, body: str) -> None:
        """Publish one message; return when the server has confirmed it."""

    async def publish_many(self, topic: str, bodies: Sequence[str]) -> None:
        """Publish a batch, pipelined or in one request; return when the server has confirmed all."""
        raise NotImplementedError

    async def consumer(self, topic: str) -> Consumer:
        """A consumer more."""
        raise NotImplementedError

    @abstractmethod
    def deliveries(self, topic: str, prefetch: int, group: str | None = None) -> AsyncIterator[tuple[Any, bytes | str]]:
        """Messages as they come, one by one; where the queue can, at most `prefetch` of them unacked."""

    @abstractmethod
    async def ack_one(self, token: Any) -> None:
        """Ack one message; return when the server has confirmed it, or the client has no way to know."""
