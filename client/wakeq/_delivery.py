"""Messages in a consumer's hands.

A delivery is settled once: acked, given back (nack; release where nobody has begun with it) or made a dead letter.
`async with delivery:` does that by how its block ends, and what the block settles itself stays as it is.
"""

import base64
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio

from wakeq._errors import WakeqError
from wakeq._model import Dead, Nack
from wakeq._settler import Settling

if TYPE_CHECKING:
    from wakeq._client import Client

_log = logging.getLogger("wakeq")

REASON_MAX = 1_000
"""Characters of a reason that the server keeps."""
GIVE_BACK_S = 2.0
"""How long a cancelled consumer may take to give back what it has."""


class Received:
    """What a delivery says of its message."""

    __slots__ = ("_wire", "body", "lease_id", "topic")

    topic: str
    body: Any
    """The JSON value, or bytes where ``content_type`` is set."""
    lease_id: str

    def __init__(self, topic: str, wire: Mapping[str, Any]) -> None:
        """From a Delivery of the protocol."""
        encoded = wire.get("body_b64")
        self.body = wire["body"] if encoded is None else base64.b64decode(encoded)
        self.lease_id = wire["lease_id"]
        self.topic = topic
        self._wire = wire

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.topic!r}, seq {self.seq}, attempt {self.attempt}>"

    @property
    def seq(self) -> int:
        """The message's number in its topic."""
        seq: int = self._wire["seq"]
        return seq

    @property
    def attempt(self) -> int:
        """1 for the first delivery."""
        attempt: int = self._wire["attempt"]
        return attempt

    @property
    def id(self) -> str:
        """The same at each delivery: the idempotency key that its publish was given, or an id that no other has."""
        found: str = self._wire["id"]
        return found

    @property
    def key(self) -> str | None:
        """Its ordering key."""
        key: str | None = self._wire["key"]
        return key

    @property
    def headers(self) -> Mapping[str, str]:
        """Those of its publish, by names in lower case."""
        headers: Mapping[str, str] = self._wire["headers"]
        return headers

    @property
    def content_type(self) -> str | None:
        """Of a message that was published as bytes; None: it is JSON."""
        kind: str | None = self._wire.get("content_type")
        return kind

    @property
    def published_at(self) -> datetime:
        """By the server's clock."""
        return datetime.fromisoformat(self._wire["published_at"])

    @property
    def lease_expires_at(self) -> datetime:
        """By the server's clock, when the message was delivered; extending it doesn't change this."""
        return datetime.fromisoformat(self._wire["lease_expires_at"])


class Holder(ABC):
    """Who took a delivery, and settles it."""

    @abstractmethod
    async def settle(self, topic: str, end: Settling) -> None:
        """End one lease. Raises LeaseLost, ServerUnavailable."""

    @abstractmethod
    async def extend(self, topic: str, lease_id: str, lease_s: float | None) -> None:
        """Prolong a lease. Raises LeaseLost, ServerUnavailable."""

    @abstractmethod
    def ack_soon(self, lease_id: str) -> bool:
        """Ack without waiting for it; False where nobody would do that."""

    @abstractmethod
    def nack_soon(self, nack: Nack) -> bool:
        """Give back without waiting for it; False where nobody would do that."""

    @abstractmethod
    def drop(self, lease_id: str) -> None:
        """Nobody holds the delivery any more."""


class Delivery(Received):
    """A message in this consumer's hands, until its lease ends."""

    __slots__ = ("_holder", "_settled")

    def __init__(self, topic: str, wire: Mapping[str, Any], holder: Holder) -> None:
        """Made by `AsyncClient.consume` and `AsyncClient.claim`."""
        # Until it is whole: what a server sent may be no delivery.
        self._settled = True
        super().__init__(topic, wire)
        self._holder = holder
        self._settled = False

    @property
    def settled(self) -> bool:
        """Whether this delivery has been acked, nacked, released or made a dead letter."""
        return self._settled

    async def ack(self) -> None:
        """The message is done with; returns when the server knows. Raises LeaseLost, ServerUnavailable."""
        await self._holder.settle(self.topic, Settling(ack=[self.lease_id]))
        self._settled = True

    async def nack(self, *, delay_s: float | None = None, reason: str | None = None) -> None:
        """Give the message back; it is hidden for ``delay_s`` seconds, None: for the topic's retry backoff.

        ``reason`` (1,000 characters are kept) is what a dead letter says for itself, should this have been its last
        attempt. Raises LeaseLost, ServerUnavailable.
        """
        await self._holder.settle(self.topic, Settling(nack=[Nack(self.lease_id, delay_s, reason)]))
        self._settled = True

    async def release(self) -> None:
        """Give the message back as if it hadn't come: it is ready again at once, and no attempt is counted.

        Only for what was not begun with: a message that is released each time is never a dead letter. Raises LeaseLost,
        ServerUnavailable.
        """
        await self._holder.settle(self.topic, Settling(release=[self.lease_id]))
        self._settled = True

    async def dead(self, *, reason: str | None = None) -> None:
        """Make the message a dead letter at once: no other attempt would end better.

        Raises LeaseLost, ServerUnavailable.
        """
        await self._holder.settle(self.topic, Settling(dead=[Dead(self.lease_id, reason)]))
        self._settled = True

    async def extend(self, lease_s: float | None = None) -> None:
        """Keep the message ``lease_s`` seconds from now; None: the topic's lease.

        Raises LeaseLost, ServerUnavailable.
        """
        await self._holder.extend(self.topic, self.lease_id, lease_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ack; after an error nack with its text; when cancelled, give the message back at once."""
        if self._settled:
            return
        if error is None:
            if not self._holder.ack_soon(self.lease_id):
                await self.ack()
        elif isinstance(error, Exception):
            await self._give_back(Nack(self.lease_id, None, reason_of(error)))
        else:
            await self._give_back(Nack(self.lease_id, 0.0, "cancelled"))
        self._settled = True

    async def _give_back(self, nack: Nack) -> None:
        if self._holder.nack_soon(nack):
            return
        with anyio.move_on_after(GIVE_BACK_S, shield=True):
            try:
                await self._holder.settle(self.topic, Settling(nack=[nack]))
            except WakeqError as error:
                # The block's own error must come out. The message comes back when its lease ends.
                _log.warning("topic %s: message %d could not be given back: %s", self.topic, self.seq, error)

    def __del__(self) -> None:
        if not self._settled:
            self._holder.drop(self.lease_id)


class SyncDelivery(Received):
    """A message in this consumer's hands, until its lease ends; for programs without an event loop."""

    __slots__ = ("_ack_soon", "_acked", "_client", "_delivery")

    def __init__(
        self, client: "Client", delivery: Delivery, ack_soon: Callable[[Delivery], None] | None = None
    ) -> None:
        """Made by `Client.consume`, which acks soon, and `Client.claim`."""
        super().__init__(delivery.topic, delivery._wire)
        self._client = client
        self._delivery = delivery
        self._ack_soon = ack_soon
        self._acked = False

    @property
    def settled(self) -> bool:
        """Whether this delivery has been acked, nacked, released or made a dead letter."""
        return self._acked or self._delivery.settled

    def ack(self) -> None:
        """The message is done with; returns when the server knows. Raises LeaseLost, ServerUnavailable."""
        self._client._call(self._delivery.ack)

    def nack(self, *, delay_s: float | None = None, reason: str | None = None) -> None:
        """Give the message back; it is hidden for ``delay_s`` seconds, None: for the topic's retry backoff.

        ``reason`` (1,000 characters are kept) is what a dead letter says for itself, should this have been its last
        attempt. Raises LeaseLost, ServerUnavailable.
        """
        self._client._call(self._delivery.nack, delay_s=delay_s, reason=reason)

    def release(self) -> None:
        """Give the message back as if it hadn't come: it is ready again at once, and no attempt is counted.

        Only for what was not begun with: a message that is released each time is never a dead letter. Raises LeaseLost,
        ServerUnavailable.
        """
        self._client._call(self._delivery.release)

    def dead(self, *, reason: str | None = None) -> None:
        """Make the message a dead letter at once: no other attempt would end better.

        Raises LeaseLost, ServerUnavailable.
        """
        self._client._call(self._delivery.dead, reason=reason)

    def extend(self, lease_s: float | None = None) -> None:
        """Keep the message ``lease_s`` seconds from now; None: the topic's lease.

        Raises LeaseLost, ServerUnavailable.
        """
        self._client._call(self._delivery.extend, lease_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ack; after an error nack with its text; when interrupted, give the message back at once."""
        # Let go of, since a consumer that nothing refers to is closed.
        ack_soon, self._ack_soon = self._ack_soon, None
        if self.settled:
            return
        if error is None and ack_soon is not None:
            self._acked = True
            ack_soon(self._delivery)
        else:
            self._client._call(self._delivery.__aexit__, kind, error, trace)


def reason_of(error: BaseException) -> str:
    """An error as a nack's reason."""
    text = str(error)
    return (f"{type(error).__name__}: {text}" if text else type(error).__name__)[:REASON_MAX]
