"""Everything that can go wrong between a program and the queue, or the control plane.

    WakeqError
    ├── ServerUnavailable       no answer: refused, reset, timed out
    ├── LeaseLost               the message is no longer this consumer's
    ├── TaskFailed              a task has ended, and not well
    │   ├── TaskCancelled
    │   └── TaskTimedOut
    ├── one for each code of the queue server:
    │   BadRequest, Unauthenticated, Forbidden, OriginRefused, TopicNotFound, GroupNotFound, RequestTimeout,
    │   MessageTooLarge, HeadTooLarge, UnsupportedMediaType, InvalidMessage, IdempotencyConflict, TopicFull,
    │   TooManyTopics, TooManyParked, Draining, StorageFull, StorageFailed
    └── one for each code of the control plane that the queue server doesn't have:
        InvalidArguments, InvalidBody, BodyTooLarge, ServiceNotFound, SessionNotFound, TaskNotFound, TaskConflict,
        WrongSession, StateConflict, StateTooLarge, TooManySessions, TooManyTasks, TooManyInputs, Stopping

A code that this version doesn't know comes as a plain WakeqError.
"""

import copy
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import orjson

from wakeq._json import loads

if TYPE_CHECKING:
    from wakeq._connection import Answer
    from wakeq._control_model import TaskInfo

_T = TypeVar("_T")


class WakeqError(Exception):
    """Base of all of them."""

    CODE: ClassVar[str] = ""
    STATUS: ClassVar[int | None] = None

    def __init__(self, detail: str, *, code: str | None = None, status: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        """A sentence for a person."""
        self.code = code or self.CODE
        """Stable; empty where no server said anything."""
        self.status = status or self.STATUS
        """The HTTP status, or what the code stands for in a batch; None where there was no answer."""
        self.retry_after_s: float | None = None
        """How long the server asks to be left alone."""


class ServerUnavailable(WakeqError):
    """The server can't be reached, or hung up before it answered."""

    may_have_happened: bool = True
    """Whether what was asked for may have been done all the same; False: the request was never sent."""


class LeaseLost(WakeqError):
    """The lease has ended: it ran out, or was settled before. The message belongs to another consumer, or to none."""


class BadRequest(WakeqError):
    """The server doesn't understand a parameter, or it is out of its range."""

    CODE = "BAD_REQUEST"
    STATUS = 400


class Unauthenticated(WakeqError):
    """The server asks for a token, and was shown none, or another."""

    CODE = "UNAUTHENTICATED"
    STATUS = 401


class Forbidden(WakeqError):
    """The server's settings allow this to nobody."""

    CODE = "FORBIDDEN"
    STATUS = 403


class OriginRefused(WakeqError):
    """The server doesn't answer to the host name in the URL."""

    CODE = "ORIGIN_REFUSED"
    STATUS = 403


class TopicNotFound(WakeqError):
    """There is no such topic."""

    CODE = "TOPIC_NOT_FOUND"
    STATUS = 404


class GroupNotFound(WakeqError):
    """The topic has no such group."""

    CODE = "GROUP_NOT_FOUND"
    STATUS = 404


class RequestTimeout(WakeqError):
    """The request came too slowly; nothing of it has happened."""

    CODE = "REQUEST_TIMEOUT"
    STATUS = 408


class MessageTooLarge(WakeqError):
    """A message or a batch is larger than the topic takes."""

    CODE = "MESSAGE_TOO_LARGE"
    STATUS = 413


class HeadTooLarge(WakeqError):
    """What a publish says about its message is more than a request's head may have."""

    CODE = "HEAD_TOO_LARGE"
    STATUS = 431


class UnsupportedMediaType(WakeqError):
    """The topic's schema doesn't take messages of that content type."""

    CODE = "UNSUPPORTED_MEDIA_TYPE"
    STATUS = 415


class InvalidMessage(WakeqError):
    """A message isn't what the topic's schema asks for."""

    CODE = "INVALID_MESSAGE"
    STATUS = 422


class IdempotencyConflict(WakeqError):
    """The idempotency key was used for another message."""

    CODE = "IDEMPOTENCY_CONFLICT"
    STATUS = 422


class TopicFull(WakeqError):
    """The topic takes no more until some of its messages are settled."""

    CODE = "TOPIC_FULL"
    STATUS = 429


class TooManyTopics(WakeqError):
    """The server has as many topics as it may have."""

    CODE = "TOO_MANY_TOPICS"
    STATUS = 429


class TooManyParked(WakeqError):
    """As many consumers wait on the server as may."""

    CODE = "TOO_MANY_PARKED"
    STATUS = 503


class Draining(WakeqError):
    """The server is about to stop and hands out no more messages."""

    CODE = "DRAINING"
    STATUS = 503


class StorageFull(WakeqError):
    """The server's disk is full."""

    CODE = "STORAGE_FULL"
    STATUS = 507


class StorageFailed(WakeqError):
    """The server's disk or database failed."""

    CODE = "STORAGE_FAILED"
    STATUS = 500


class InvalidArguments(WakeqError):
    """A task's arguments are not what its service takes; ``detail`` says what that is."""

    CODE = "INVALID_ARGUMENTS"
    STATUS = 400


class WrongSession(WakeqError):
    """A task's definition names another session than its call."""

    CODE = "WRONG_SESSION"
    STATUS = 400


class ServiceNotFound(WakeqError):
    """No service of that name is registered, and none was within the time that a task waits for it."""

    CODE = "SERVICE_NOT_FOUND"
    STATUS = 404


class SessionNotFound(WakeqError):
    """There is no such session."""

    CODE = "SESSION_NOT_FOUND"
    STATUS = 404


class TaskNotFound(WakeqError):
    """The session has no such task, or has it no more."""

    CODE = "TASK_NOT_FOUND"
    STATUS = 404


class TaskConflict(WakeqError):
    """The task's id was used for another task."""

    CODE = "TASK_CONFLICT"
    STATUS = 409


class StateConflict(WakeqError):
    """A session's state has changed since the version that it was to be written with; nothing was written."""

    CODE = "STATE_CONFLICT"
    STATUS = 412


class StateTooLarge(WakeqError):
    """A session's state would be larger than the control plane takes."""

    CODE = "STATE_TOO_LARGE"
    STATUS = 413


class TooManySessions(WakeqError):
    """The control plane has as many sessions as it may have."""

    CODE = "TOO_MANY_SESSIONS"
    STATUS = 429


class TooManyTasks(WakeqError):
    """The control plane has as many tasks that have not ended as it may have."""

    CODE = "TOO_MANY_TASKS"
    STATUS = 429


class TooManyInputs(WakeqError):
    """A task was sent as many events as it may be, or as large ones."""

    CODE = "TOO_MANY_INPUTS"
    STATUS = 429


class BodyTooLarge(WakeqError):
    """What a task or a state has in it is more than the control plane takes."""

    CODE = "BODY_TOO_LARGE"
    STATUS = 413


class InvalidBody(WakeqError):
    """A value is not what the call takes, such as a task's id; ``detail`` names it."""

    CODE = "INVALID_BODY"
    STATUS = 422


class Stopping(WakeqError):
    """The control plane is about to stop."""

    CODE = "STOPPING"
    STATUS = 503


class TaskFailed(WakeqError):
    """A task has ended, and not well: ``detail`` is its error. No request failed, so there is no ``status``."""

    CODE = "TASK_FAILED"

    def __init__(self, task: "TaskInfo") -> None:
        super().__init__(task.error or f"task {task.id} has {task.status.replace('_', ' ')}")
        self.task = task
        """How it stands."""

    @classmethod
    def of(cls, task: "TaskInfo") -> "TaskFailed":
        """The error of a task that has not succeeded."""
        return {"cancelled": TaskCancelled, "timed_out": TaskTimedOut}.get(task.status, TaskFailed)(task)


class TaskCancelled(TaskFailed):
    """Somebody has cancelled it."""

    CODE = "TASK_CANCELLED"


class TaskTimedOut(TaskFailed):
    """It has not ended within its ``timeout_s``."""

    CODE = "TASK_TIMED_OUT"


# Without a code it is a proxy that speaks, of a server it can't reach.
_GATEWAY = (502, 503, 504)
_BY_CODE = {error.CODE: error for error in WakeqError.__subclasses__() if error.STATUS}


def raise_for_answer(answer: "Answer") -> None:
    """Raise what an answer says went wrong, if it says so."""
    if 200 <= answer.status < 300:
        return
    try:
        problem = orjson.loads(answer.content)
        code, detail = str(problem["code"]), problem["detail"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        code, detail = "", f"{answer.url} answered {answer.status} {_phrase(answer.status)}".rstrip()
    text = detail if isinstance(detail, str) else sentence_of(detail)
    error = error_of(code, text, answer.status)
    retry_after = answer.headers.get(b"retry-after", b"")
    if retry_after.isdigit():
        error.retry_after_s = float(retry_after)
    raise error


def error_of(code: str, detail: str, status: int | None = None) -> WakeqError:
    """The error of a code."""
    unknown = ServerUnavailable if status in _GATEWAY and not code else WakeqError
    return _BY_CODE.get(code, unknown)(detail, code=code, status=status)


def same_error(error: WakeqError) -> WakeqError:
    """Another of its kind: one that is raised in two tasks gathers the tracebacks of both."""
    twin = copy.copy(error)
    twin.__cause__ = error.__cause__
    return twin.with_traceback(None)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def sentence_of(errors: Any) -> str:
    """Of llama_deploy's list of what is wrong."""
    try:
        return "; ".join(f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in errors)
    except (LookupError, TypeError):
        return orjson.dumps(errors).decode()


def read_answer(answer: "Answer", read: Callable[[Any], _T]) -> _T:
    """What ``read`` makes of an answer's JSON. Raises WakeqError where that is none of this protocol's answers."""
    try:
        return read(loads(answer.content))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise WakeqError(f"{answer.url} did not answer as a wakeq server does", status=answer.status) from error
