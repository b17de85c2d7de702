"""What every command that asks a control plane does: reach it, and say what went wrong."""

from collections.abc import Awaitable, Callable
from difflib import get_close_matches
from typing import Annotated, TypeVar

import anyio
import typer

import wakeq
from wakeq._connection import DEFAULT_CONTROL_URL
from wakeq.cli import _complete, _values
from wakeq.cli._talk import check_token, fail, server_url

_T = TypeVar("_T")

RETRY_S = 60.0
"""How long a control plane that was reached once is waited for when it goes away."""
_ELSEWHERE = "is --url, or WAKEQ_CONTROL_PLANE, the address of a wakeq control plane?"
_UNREACHABLE = (
    "is `wakeq control-plane`, or `wakeq up`, running there? --url, or WAKEQ_CONTROL_PLANE, says where to look"
)
_HINTS = {
    "": _ELSEWHERE,
    "BAD_REQUEST": "--help says what is allowed",
    "BODY_TOO_LARGE": "the control plane's --max-body-bytes sets the limit",
    "INVALID_ARGUMENTS": "`wakeq services show SERVICE` shows what it takes; NAME=TEXT is text, NAME:=JSON any value",
    "INVALID_BODY": "--help says what is allowed",
    "NOT_FOUND": _ELSEWHERE,
    "ORIGIN_REFUSED": "use a name that the control plane knows, or start it with --allowed-hosts",
    "SERVICE_NOT_FOUND": "`wakeq services list` shows what there is",
    "SESSION_NOT_FOUND": "`wakeq sessions list` shows what there is",
    "STOPPING": "try again when the control plane is back",
    "STATE_CONFLICT": "`wakeq sessions show SESSION` shows what it is now",
    "STATE_TOO_LARGE": "the control plane's --max-state-bytes sets the limit",
    "TASK_CONFLICT": "another task needs another --id",
    "TASK_NOT_FOUND": "`wakeq tasks list SESSION` shows what there is",
    "TOO_MANY_INPUTS": "the control plane's --max-events and --max-events-bytes set the limits",
    "TOO_MANY_SESSIONS": "`wakeq sessions delete` makes room",
    "TOO_MANY_TASKS": "try again when some of them have ended",
    "UNAUTHENTICATED": "it wants a token; WAKEQ_CONTROL_TOKEN, else WAKEQ_TOKEN, has the one that is sent",
}
_MISUSE = (wakeq.InvalidArguments, wakeq.InvalidBody)
_HOW = {"cancelled": "was cancelled", "timed_out": "timed out"}

Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="WAKEQ_CONTROL_PLANE",
        parser=server_url,
        metavar="URL",
        help="The control plane.",
        show_default=DEFAULT_CONTROL_URL,
    ),
]
Service = Annotated[
    str,
    typer.Argument(
        parser=_values.name,
        metavar="SERVICE",
        help="The service's name.",
        show_default=False,
        autocompletion=_complete.services,
    ),
]
Session = Annotated[
    str, typer.Argument(parser=_values.name, metavar="SESSION", help="The session's id.", show_default=False)
]
Task = Annotated[str, typer.Argument(parser=_values.name, metavar="TASK", help="The task's id.", show_default=False)]


def talk(
    url: str, work: Callable[[wakeq.AsyncControlPlane], Awaitable[_T]], *, service: str = "", retry_s: float = 0.0
) -> _T:
    """What ``work`` returns. Where the server refuses or can't be reached: a sentence, a hint and exit code 1.

    What a service doesn't take is a mistake of whoever typed it: code 2. ``service`` is the one that it is about: for
    one that isn't registered, the hint has the nearest name that is.
    """
    check_token("WAKEQ_CONTROL_TOKEN", "WAKEQ_TOKEN")

    async def with_client() -> _T:
        async with _client(url, retry_s) as client:
            try:
                return await work(client)
            except wakeq.ServiceNotFound as error:
                near = await _nearest(client, service)
                fail(error.detail, f"did you mean {near}? {_HINTS[error.code]}" if near else _HINTS[error.code])

    try:
        return anyio.run(with_client)
    except wakeq.ServerUnavailable as error:
        fail(error.detail, _UNREACHABLE)
    except wakeq.WakeqError as error:
        fail(error.detail, _HINTS.get(error.code, ""), code=2 if isinstance(error, _MISUSE) else 1)


def outcome(task: wakeq.TaskInfo) -> str:
    """How a task has ended, in words."""
    how = _HOW.get(task.status, task.status)
    return f"{how}: {task.error}" if task.error else how


def _client(url: str, retry_s: float) -> wakeq.AsyncControlPlane:
    try:
        return wakeq.AsyncControlPlane(url, retry_s=retry_s)
    except ValueError as error:
        fail(str(error), "--url, or WAKEQ_CONTROL_PLANE, is http://HOST:PORT", code=2)


async def _nearest(client: wakeq.AsyncControlPlane, service: str) -> str | None:
    try:
        names = [one.name for one in await client.services()]
    except wakeq.WakeqError:
        return None
    return next(iter(get_close_matches(service, names, n=1)), None)
