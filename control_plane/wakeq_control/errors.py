"""Everything the control plane refuses, as exceptions without a word of HTTP.

``code`` is stable: clients branch on it. ``detail`` is a sentence for a person, llama_deploy's own where it had one.
The one table from code to status is in `wakeq_control.http.wire`.

    ControlError
    ├── BadRequest              a parameter out of its range, or not understood
    ├── InvalidBody             a body that is not what the call takes
    ├── TooLarge
    ├── Unauthenticated
    ├── OriginRefused
    ├── PathNotFound
    ├── ServiceNotFound
    ├── SessionNotFound
    ├── TaskNotFound
    ├── WrongSession            a task that names another session than its call
    ├── TaskConflict            a task's id was used for another task
    ├── InvalidArguments        a task's input is not what its service takes
    ├── StateConflict           a session's state has changed since it was read
    ├── StateTooLarge
    ├── TooManySessions
    ├── TooManyTasks
    ├── TooManyInputs           for a task
    └── Stopping
    StorageFailed               the state can't be kept: the server ends, and a restart goes on from what was kept
    StartupError                the server can't start; one sentence and what to do
"""

from collections.abc import Iterable, Sequence
from typing import ClassVar


class ControlError(Exception):
    """Base of everything that a caller can be refused with."""

    code: ClassVar[str] = "INTERNAL"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class BadRequest(ControlError):
    """A request that says something the control plane doesn't understand."""

    code = "BAD_REQUEST"
    title = "Bad request"


class InvalidBody(ControlError):
    """A body that is not what the call takes; ``errors`` lists what is wrong, in pydantic's terms."""

    code = "INVALID_BODY"
    title = "Invalid body"

    def __init__(self, errors: Sequence[dict[str, object]]) -> None:
        super().__init__("the body is not what this call takes")
        self.errors = errors


class TooLarge(ControlError):
    """A body of more bytes than are taken."""

    code = "BODY_TOO_LARGE"
    title = "Body too large"


class Unauthenticated(ControlError):
    """The request has not shown the control plane's token."""

    code = "UNAUTHENTICATED"
    title = "Unauthenticated"

    def __init__(self) -> None:
        super().__init__("this control plane asks for its token: Authorization: Bearer TOKEN")


class OriginRefused(ControlError):
    """A web page of elsewhere, or a name that is not this server's."""

    code = "ORIGIN_REFUSED"
    title = "Origin refused"


class PathNotFound(ControlError):
    """Nothing is there."""

    code = "NOT_FOUND"
    title = "Not found"

    def __init__(self) -> None:
        super().__init__("Not Found")


class ServiceNotFound(ControlError):
    """No service of that name is registered."""

    code = "SERVICE_NOT_FOUND"
    title = "Service not found"

    def __init__(self, detail: str = "Service not found") -> None:
        super().__init__(detail)

    @classmethod
    def among(cls, service: str, registered: Iterable[str]) -> "ServiceNotFound":
        """With the services that there are."""
        names = ", ".join(sorted(registered)) or "none"
        return cls(f"no service {service!r} is registered; there are: {names}")


class SessionNotFound(ControlError):
    """There is no such session."""

    code = "SESSION_NOT_FOUND"
    title = "Session not found"

    def __init__(self) -> None:
        super().__init__("Session not found")


class TaskNotFound(ControlError):
    """The session has no such task."""

    code = "TASK_NOT_FOUND"
    title = "Task not found"

    def __init__(self, detail: str = "Task not found") -> None:
        super().__init__(detail)


class WrongSession(ControlError):
    """A task's definition names another session than its call."""

    code = "WRONG_SESSION"
    title = "Wrong session"


class TaskConflict(ControlError):
    """A task's id was used for another task."""

    code = "TASK_CONFLICT"
    title = "Task conflict"


class InvalidArguments(ControlError):
    """A task's input is not what its service takes."""

    code = "INVALID_ARGUMENTS"
    title = "Invalid arguments"


class StateConflict(ControlError):
    """A session's state has changed since whoever writes it has read it."""

    code = "STATE_CONFLICT"
    title = "State conflict"

    def __init__(self, version: int) -> None:
        super().__init__(f"the state has changed since it was read: it is at version {version} now; read it again")


class StateTooLarge(ControlError):
    """A session's state would have more bytes than it may."""

    code = "STATE_TOO_LARGE"
    title = "State too large"


class TooManySessions(ControlError):
    """There are as many sessions as there may be."""

    code = "TOO_MANY_SESSIONS"
    title = "Too many sessions"


class TooManyTasks(ControlError):
    """As many tasks have not ended as may be."""

    code = "TOO_MANY_TASKS"
    title = "Too many tasks"


class TooManyInputs(ControlError):
    """A task was sent as much as it may be."""

    code = "TOO_MANY_INPUTS"
    title = "Too many inputs"


class Stopping(ControlError):
    """The server is about to stop."""

    code = "STOPPING"
    title = "Stopping"

    def __init__(self) -> None:
        super().__init__("the control plane is stopping")


class StorageFailed(Exception):
    """The state can't be kept, so what was decided must not be told to anyone: the server ends."""


class StartupError(Exception):
    """The server can't start. ``hint`` says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """An error of a task group, out of its group; a task group in a task group makes groups in groups."""
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
