"""wakeq: publish and consume messages over HTTP; consumers are woken, not polling.

    async with wakeq.AsyncClient("http://127.0.0.1:8001") as queue:
        await queue.publish("greetings", {"hello": "world"})
        async for delivery in queue.consume("greetings"):
            async with delivery:
                print(delivery.body)

`Client` is the same without an event loop, `Worker` runs handlers, `wakeq.testing` has a server for tests.
"""

from wakeq._async_client import AsyncClient
from wakeq._client import Client
from wakeq._consumer import Consumer
from wakeq._delivery import Delivery, SyncDelivery
from wakeq._errors import (
    BadRequest,
    Draining,
    Forbidden,
    GroupNotFound,
    HeadTooLarge,
    IdempotencyConflict,
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
    UnsupportedMediaType,
    WakeqError,
)
from wakeq._model import (
    Dead,
    GroupInfo,
    Nack,
    Peeked,
    Published,
    Redriven,
    RetryBackoff,
    SettleResult,
    TopicConfig,
    TopicInfo,
)
from wakeq._sync_consumer import SyncConsumer
from wakeq._version import __version__
from wakeq._worker import HandlerTimeout, Middleware, Worker

__all__ = [
    "AsyncClient",
    "BadRequest",
    "Client",
    "Consumer",
    "Dead",
    "Delivery",
    "Draining",
    "Forbidden",
    "GroupInfo",
    "GroupNotFound",
    "HandlerTimeout",
    "HeadTooLarge",
    "IdempotencyConflict",
    "InvalidMessage",
    "LeaseLost",
    "MessageTooLarge",
    "Middleware",
    "Nack",
    "OriginRefused",
    "Peeked",
    "Published",
    "Redriven",
    "RequestTimeout",
    "RetryBackoff",
    "ServerUnavailable",
    "SettleResult",
    "StorageFailed",
    "StorageFull",
    "SyncConsumer",
    "SyncDelivery",
    "TooManyParked",
    "TooManyTopics",
    "TopicConfig",
    "TopicFull",
    "TopicInfo",
    "TopicNotFound",
    "Unauthenticated",
    "UnsupportedMediaType",
    "WakeqError",
    "Worker",
    "__version__",
]
