"""wakeq: publish and consume messages over HTTP; consumers are woken, not polling.

async with wakeq.AsyncClient("http://127.0.0.1:8001") as queue:
    await queue.publish("greetings", {"hello": "world"})
    async with queue.consume("greetings") as deliveries:
        async for delivery in deliveries:
            print(delivery.body)
            await delivery.ack()
"""

from wakeq._async_client import AsyncClient
from wakeq._consumer import Consumer
from wakeq._errors import (
    BadRequest,
    Draining,
    GroupNotFound,
    InvalidMessage,
    LeaseLost,
    MessageTooLarge,
    OriginRefused,
    RequestTimeout,
    ServerUnavailable,
    StorageFailed,
    StorageFull,
    TooManyParked,
    TooManyTopics,
    TopicFull,
    TopicNotFound,
    Unauthenticated,
    WakeqError,
)
from wakeq._model import Delivery, Nack, Published, SettleResult
from wakeq._version import __version__

__all__ = [
    "AsyncClient",
    "BadRequest",
    "Consumer",
    "Delivery",
    "Draining",
    "GroupNotFound",
    "InvalidMessage",
    "LeaseLost",
    "MessageTooLarge",
    "Nack",
    "OriginRefused",
    "Published",
    "RequestTimeout",
    "ServerUnavailable",
    "SettleResult",
    "StorageFailed",
    "StorageFull",
    "TooManyParked",
    "TooManyTopics",
    "TopicFull",
    "TopicNotFound",
    "Unauthenticated",
    "WakeqError",
    "__version__",
]
