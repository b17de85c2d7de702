"""Everything the queue server refuses or fails at, as exceptions without a word of HTTP.

``code`` is stable: clients branch on it. ``detail`` is a sentence for a person. The HTTP layer has the one
table from code to status (`wakeq_server.http.wire`).

    QueueError
    ├── BadRequest              a parameter out of its range, or not understood
    │   └── BadValue            ... with the name of the field
    ├── InvalidMessage          the body is not what the topic's schema asks for
    ├── IdempotencyConflict
    ├── MessageTooLarge
    ├── HeadTooLarge
    ├── UnsupportedMediaType
    ├── TopicNotFound
    ├── GroupNotFound
    ├── PushNotFound
    ├── TopicFull
    ├── TooManyTopics
    ├── TooManyParked
    ├── RequestTimeout
    ├── OriginRefused
    ├── Unauthenticated
    ├── Forbidden               allowed to nobody, as this server is set up
    ├── Draining
    └── StorageError
        ├── StorageFull
        └── StorageFailed
    ConsumerGone                not an error: the consumer hung up while it was parked
    BacklogOverflow             a watcher of events takes them too slowly
    StartupError                the server can't start; one sentence and what to do
"""

from collections.abc import Sequence
from typing import ClassVar, TypeVar

_Error = TypeVar("_Error", bound=Exception)


def fresh(error: _Error) -> _Error:
    """Another of an error that is kept, to be raised: by its traceback the one that is kept would keep who keeps it."""
    twin = type(error).__new__(type(error), *error.args)
    vars(twin).update(vars(error))
    return twin


class QueueError(Exception):
    """Base of everything that a caller of an engine can be refused with."""

    code: ClassVar[str] = "INTERNAL"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s


class BadRequest(QueueError):
    """A request that says something the protocol doesn't allow."""

    code = "BAD_REQUEST"
    title = "Bad request"


class BadValue(BadRequest):
    """One named field or parameter is out of its range."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class InvalidMessage(QueueError):
    """A message's body that its topic's schema refuses; ``errors`` lists what is wrong, in pydantic's terms."""

    code = "INVALID_MESSAGE"
    title = "Invalid message"

    def __init__(self, detail: str, errors: Sequence[dict[str, object]]) -> None:
        super().__init__(detail)
        self.errors = errors


class IdempotencyConflict(QueueError):
    """The idempotency key was used for another message."""

    code = "IDEMPOTENCY_CONFLICT"
    title = "Idempotency conflict"


class MessageTooLarge(QueueError):
    """A message or a batch over its limit of bytes or lines."""

    code = "MESSAGE_TOO_LARGE"
    title = "Message too large"


class HeadTooLarge(QueueError):
    """A request's head over its limit; or, together, what its chunks have about them beside their data."""

    code = "HEAD_TOO_LARGE"
    title = "Head too large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the request's head, or its chunks' extensions and trailers, have more than {limit} bytes")


class UnsupportedMediaType(QueueError):
    """A content type that this call doesn't take."""

    code = "UNSUPPORTED_MEDIA_TYPE"
    title = "Unsupported media type"


class TopicNotFound(QueueError):
    """No topic has that name."""

    code = "TOPIC_NOT_FOUND"
    title = "Topic not found"

    def __init__(self, topic: str) -> None:
        super().__init__(f"topic {topic} not found")
        self.topic = topic


class GroupNotFound(QueueError):
    """The topic has no group of that name."""

    code = "GROUP_NOT_FOUND"
    title = "Group not found"

    def __init__(self, topic: str, group: str) -> None:
        super().__init__(f"topic {topic} has no group {group}")


class PushNotFound(QueueError):
    """The topic has no push of that name."""

    code = "NOT_FOUND"
    title = "Push not found"

    def __init__(self, topic: str, push: str) -> None:
        super().__init__(f"topic {topic} has no push {push}")


class TopicFull(QueueError):
    """The topic holds as many messages or bytes as its configuration allows."""

    code = "TOPIC_FULL"
    title = "Topic full"


class TooManyTopics(QueueError):
    """The server has as many topics as it may have."""

    code = "TOO_MANY_TOPICS"
    title = "Too many topics"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the server has its {limit} topics; delete some, or raise --max-topics")


class TooManyParked(QueueError):
    """As many requests are parked as may be."""

    code = "TOO_MANY_PARKED"
    title = "Too many parked requests"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the server has {limit} requests parked, which are all it takes", retry_after_s=5)


class RequestTimeout(QueueError):
    """A request came too slowly to be waited for any longer."""

    code = "REQUEST_TIMEOUT"
    title = "Request timeout"


class OriginRefused(QueueError):
    """A request from a web page, or under a host name, that isn't ours."""

    code = "ORIGIN_REFUSED"
    title = "Origin refused"


class Forbidden(QueueError):
    """What this server's settings don't allow."""

    code = "FORBIDDEN"
    title = "Forbidden"


class Unauthenticated(QueueError):
    """The request has not shown the server's token."""

    code = "UNAUTHENTICATED"
    title = "Unauthenticated"

    def __init__(self) -> None:
        super().__init__("this server asks for its token: Authorization: Bearer TOKEN")


class Draining(QueueError):
    """The server is about to stop and hands out no more messages."""

    code = "DRAINING"
    title = "Draining"

    def __init__(self) -> None:
        super().__init__("the server is draining and hands out no more messages", retry_after_s=1)


class StorageError(QueueError):
    """The store couldn't take a change; nothing of that request has happened."""


class StorageFull(StorageError):
    """The disk is full."""

    code = "STORAGE_FULL"
    title = "Storage full"

    def __init__(
        self, detail: str = "the disk is full: publishes are refused until there is room, settles go on"
    ) -> None:
        super().__init__(detail)


class StorageFailed(StorageError):
    """The disk or the database failed."""

    code = "STORAGE_FAILED"
    title = "Storage failed"


class ConsumerGone(Exception):
    """The consumer hung up while it was parked; whatever had been handed to it has been undone."""


class BacklogOverflow(Exception):
    """More has happened than is kept for a watcher that doesn't take it; what was kept is dropped."""


class StartupError(Exception):
    """The server can't start. ``str()`` is one sentence for a person; ``hint`` says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
