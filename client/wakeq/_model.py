"""What a client is given and gives."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from wakeq._async_client import AsyncClient


class Published(NamedTuple):
    """Where a publish went: the sequence numbers of its first and last message."""

    first_seq: int
    last_seq: int


class Nack(NamedTuple):
    """A lease to give back."""

    lease_id: str
    delay_s: float | None = None
    """How long the message stays hidden; None: the topic's retry backoff."""


class SettleResult(NamedTuple):
    """What became of one lease."""

    lease_id: str
    status: Literal["ok", "stale", "unknown"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message in this consumer's hands, until its lease ends."""

    topic: str
    seq: int
    body: Any
    """The JSON value, or bytes where ``content_type`` is set."""
    lease_id: str
    lease_expires_at: datetime
    attempt: int
    """1 for the first delivery."""
    published_at: datetime
    headers: Mapping[str, str]
    content_type: str | None
    _client: "AsyncClient" = field(repr=False, compare=False)

    @classmethod
    def from_wire(cls, client: "AsyncClient", topic: str, wire: Mapping[str, Any]) -> "Delivery":
        """From a Delivery of the protocol."""
        encoded = wire.get("body_b64")
        return cls(
            topic=topic,
            seq=wire["seq"],
            body=wire["body"] if encoded is None else base64.b64decode(encoded),
            lease_id=wire["lease_id"],
            lease_expires_at=datetime.fromisoformat(wire["lease_expires_at"]),
            attempt=wire["attempt"],
            published_at=datetime.fromisoformat(wire["published_at"]),
            headers=wire["headers"],
            content_type=wire.get("content_type"),
            _client=client,
        )

    async def ack(self) -> None:
        """The message is done with. Raises LeaseLost."""
        await self._client.settle_one(self.topic, ack=self.lease_id)

    async def nack(self, *, delay_s: float | None = None) -> None:
        """Give the message back, for now or for ``delay_s`` seconds. Raises LeaseLost."""
        await self._client.settle_one(self.topic, nack=Nack(self.lease_id, delay_s))

    async def extend(self, lease_s: float | None = None) -> None:
        """Keep the message ``lease_s`` seconds from now; None: the topic's lease. Raises LeaseLost."""
        await self._client.settle_one(self.topic, extend=(self.lease_id, lease_s))
