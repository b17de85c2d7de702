"""wakeq: publish and consume messages over HTTP; consumers are woken, not polling.

    async with wakeq.AsyncClient("http://127.0.0.1:8001") as queue:
        await queue.publish("greetings", {"hello": "world"})
        async for delivery in queue.consume("greetings"):
            async with delivery:
                print(delivery.body)

`Client` is the same without an event loop, `Worker` runs handlers, `wakeq.testing` has a server for tests.
`AsyncControlPlane` and `ControlPlane` give tasks to services, and wait for what comes of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from wakeq._version import __version__

if TYPE_CHECKING:
    from wakeq._async_client import AsyncClient
    from wakeq._async_control import AsyncControlPlane
    from wakeq._client import Client
    from wakeq._consumer import Consumer
    from wakeq._control import ControlPlane
    from wakeq._control_model import (
        ServiceInfo,
        ServiceReplica,
        SessionInfo,
        SessionState,
        TaskEvent,
        TaskFailure,
        TaskInfo,
        TaskReplica,
    )
    from wakeq._delivery import Delivery, SyncDelivery
    from wakeq._errors import (
        BadRequest,
        BodyTooLarge,
        Draining,
        Forbidden,
        GroupNotFound,
        HeadTooLarge,
        IdempotencyConflict,
        InvalidArguments,
        InvalidBody,
        InvalidMessage,
        LeaseLost,
        MessageTooLarge,
        OriginRefused,
        RequestTimeout,
        ServerUnavailable,
        ServiceNotFound,
        SessionNotFound,
        StateConflict,
        StateTooLarge,
        Stopping,
        StorageFailed,
        StorageFull,
        TaskCancelled,
        TaskConflict,
        TaskFailed,
        TaskNotFound,
        TaskTimedOut,
        TooManyInputs,
        TooManyParked,
        TooManySessions,
        TooManyTasks,
        TooManyTopics,
        TopicFull,
        TopicNotFound,
        Unauthenticated,
        UnsupportedMediaType,
        WakeqError,
        WrongSession,
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
    from wakeq._task_events import SyncTaskEvents, TaskEvents
    from wakeq._worker import HandlerTimeout, Middleware, Worker

__all__ = [
    "AsyncClient",
    "AsyncControlPlane",
    "BadRequest",
    "BodyTooLarge",
    "Client",
    "Consumer",
    "ControlPlane",
    "Dead",
    "Delivery",
    "Draining",
    "Forbidden",
    "GroupInfo",
    "GroupNotFound",
    "HandlerTimeout",
    "HeadTooLarge",
    "IdempotencyConflict",
    "InvalidArguments",
    "InvalidBody",
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
    "ServiceInfo",
    "ServiceNotFound",
    "ServiceReplica",
    "SessionInfo",
    "SessionNotFound",
    "SessionState",
    "SettleResult",
    "StateConflict",
    "StateTooLarge",
    "Stopping",
    "StorageFailed",
    "StorageFull",
    "SyncConsumer",
    "SyncDelivery",
    "SyncTaskEvents",
    "TaskCancelled",
    "TaskConflict",
    "TaskEvent",
    "TaskEvents",
    "TaskFailed",
    "TaskFailure",
    "TaskInfo",
    "TaskNotFound",
    "TaskReplica",
    "TaskTimedOut",
    "TooManyInputs",
    "TooManyParked",
    "TooManySessions",
    "TooManyTasks",
    "TooManyTopics",
    "TopicConfig",
    "TopicFull",
    "TopicInfo",
    "TopicNotFound",
    "Unauthenticated",
    "UnsupportedMediaType",
    "WakeqError",
    "Worker",
    "WrongSession",
    "__version__",
]

# Each is loaded when it is first asked for: a server needs little of this, and a command of the shell less.
_NAMES = {
    "_async_client": ("AsyncClient",),
    "_async_control": ("AsyncControlPlane",),
    "_client": ("Client",),
    "_consumer": ("Consumer",),
    "_control": ("ControlPlane",),
    "_control_model": (
        "ServiceInfo",
        "ServiceReplica",
        "SessionInfo",
        "SessionState",
        "TaskEvent",
        "TaskFailure",
        "TaskInfo",
        "TaskReplica",
    ),
    "_delivery": (
        "Delivery",
        "SyncDelivery",
    ),
    "_errors": (
        "BadRequest",
        "BodyTooLarge",
        "Draining",
        "Forbidden",
        "GroupNotFound",
        "HeadTooLarge",
        "IdempotencyConflict",
        "InvalidArguments",
        "InvalidBody",
        "InvalidMessage",
        "LeaseLost",
        "MessageTooLarge",
        "OriginRefused",
        "RequestTimeout",
        "ServerUnavailable",
        "ServiceNotFound",
        "SessionNotFound",
        "StateConflict",
        "StateTooLarge",
        "Stopping",
        "StorageFailed",
        "StorageFull",
        "TaskCancelled",
        "TaskConflict",
        "TaskFailed",
        "TaskNotFound",
        "TaskTimedOut",
        "TooManyInputs",
        "TooManyParked",
        "TooManySessions",
        "TooManyTasks",
        "TooManyTopics",
        "TopicFull",
        "TopicNotFound",
        "Unauthenticated",
        "UnsupportedMediaType",
        "WakeqError",
        "WrongSession",
    ),
    "_model": (
        "Dead",
        "GroupInfo",
        "Nack",
        "Peeked",
        "Published",
        "Redriven",
        "RetryBackoff",
        "SettleResult",
        "TopicConfig",
        "TopicInfo",
    ),
    "_sync_consumer": ("SyncConsumer",),
    "_task_events": (
        "SyncTaskEvents",
        "TaskEvents",
    ),
    "_worker": (
        "HandlerTimeout",
        "Middleware",
        "Worker",
    ),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}


if not TYPE_CHECKING:
    # A checker of types that saw it would take any name for one of these.
    def __getattr__(name: str) -> Any:
        module = _MODULES.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
