"""Everything that can go wrong between a program and the queue.

    WakeqError
    ├── ServerUnavailable       no answer: refused, reset, timed out
    ├── LeaseLost               the message is no longer this consumer's
    └── one for each code of the server:
        BadRequest, Unauthenticated, Forbidden, OriginRefused, TopicNotFound, GroupNotFound, RequestTimeout,
        MessageTooLarge, HeadTooLarge, UnsupportedMediaType, InvalidMessage, IdempotencyConflict, TopicFull,
        TooManyTopics, TooManyParked, Draining, StorageFull, StorageFailed

A code that this version doesn't know comes as a plain WakeqError.
"""

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import httpx
import orjson

from wakeq._json import loads

_T = TypeVar("_T")


class WakeqError(Exception):
    """Base of all of them."""

    CODE: ClassVar[str] = ""

    def __init__(self, detail: str, *, code: str | None = None, status: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        """A sentence for a person."""
        self.code = code or self.CODE
        """Stable; empty where no server said anything."""
        self.status = status
        """The HTTP status; None where there was no answer."""
        self.retry_after_s: float | None = None
        """How long the server asks to be left alone."""


class ServerUnavailable(WakeqError):
    """The server can't be reached, or hung up before it answered: what was asked for may or may not have happened."""


class LeaseLost(WakeqError):
    """The lease has ended: it ran out, or was settled before. The message belongs to another consumer, or to none."""


class BadRequest(WakeqError):
    """The server doesn't understand a parameter, or it is out of its range."""

    CODE = "BAD_REQUEST"


class Unauthenticated(WakeqError):
    """The server asks for a token, and was shown none, or another."""

    CODE = "UNAUTHENTICATED"


class Forbidden(WakeqError):
    """The server's settings allow this to nobody."""

    CODE = "FORBIDDEN"


class OriginRefused(WakeqError):
    """The server doesn't answer to the host name in the URL."""

    CODE = "ORIGIN_REFUSED"


class TopicNotFound(WakeqError):
    """There is no such topic."""

    CODE = "TOPIC_NOT_FOUND"


class GroupNotFound(WakeqError):
    """The topic has no such group."""

    CODE = "GROUP_NOT_FOUND"


class RequestTimeout(WakeqError):
    """The request came too slowly; nothing of it has happened."""

    CODE = "REQUEST_TIMEOUT"


class MessageTooLarge(WakeqError):
    """A message or a batch is larger than the topic takes."""

    CODE = "MESSAGE_TOO_LARGE"


class HeadTooLarge(WakeqError):
    """What a publish says about its message is more than a request's head may have."""

    CODE = "HEAD_TOO_LARGE"


class UnsupportedMediaType(WakeqError):
    """The topic's schema doesn't take messages of that content type."""

    CODE = "UNSUPPORTED_MEDIA_TYPE"


class InvalidMessage(WakeqError):
    """A message isn't what the topic's schema asks for."""

    CODE = "INVALID_MESSAGE"


class IdempotencyConflict(WakeqError):
    """The idempotency key was used for another message."""

    CODE = "IDEMPOTENCY_CONFLICT"


class TopicFull(WakeqError):
    """The topic takes no more until some of its messages are settled."""

    CODE = "TOPIC_FULL"


class TooManyTopics(WakeqError):
    """The server has as many topics as it may have."""

    CODE = "TOO_MANY_TOPICS"


class TooManyParked(WakeqError):
    """As many consumers wait on the server as may."""

    CODE = "TOO_MANY_PARKED"


class Draining(WakeqError):
    """The server is about to stop and hands out no more messages."""

    CODE = "DRAINING"


class StorageFull(WakeqError):
    """The server's disk is full."""

    CODE = "STORAGE_FULL"


class StorageFailed(WakeqError):
    """The server's disk or database failed."""

    CODE = "STORAGE_FAILED"


# Without a code it is a proxy that speaks, of a server it can't reach.
_GATEWAY = (502, 503, 504)
_BY_CODE = {error.CODE: error for error in WakeqError.__subclasses__() if error.CODE}


def raise_for_answer(response: httpx.Response) -> None:
    """Raise what an answer says went wrong, if it says so. The body must have been read."""
    if response.is_success:
        return
    try:
        problem = orjson.loads(response.content)
        code, detail = str(problem["code"]), problem["detail"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        code, detail = "", f"{response.request.url} answered {response.status_code} {response.reason_phrase}"
    text = detail if isinstance(detail, str) else _sentence(detail)
    unknown = ServerUnavailable if response.status_code in _GATEWAY and not code else WakeqError
    error = _BY_CODE.get(code, unknown)(text, code=code, status=response.status_code)
    retry_after = response.headers.get("retry-after", "")
    if retry_after.isdigit():
        error.retry_after_s = float(retry_after)
    raise error


def _sentence(errors: Any) -> str:
    """Of llama_deploy's list of what is wrong."""
    try:
        return "; ".join(f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in errors)
    except (LookupError, TypeError):
        return orjson.dumps(errors).decode()


def read_answer(response: httpx.Response, read: Callable[[Any], _T]) -> _T:
    """What ``read`` makes of an answer's JSON. Raises WakeqError where that is none of this protocol's answers."""
    try:
        return read(loads(response.content))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise WakeqError(
            f"{response.request.url} did not answer as a wakeq server does", status=response.status_code
        ) from error
