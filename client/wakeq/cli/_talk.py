"""What every command that asks a server does: reach it, say what went wrong, ask before it destroys anything."""

import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, NoReturn, TypeVar

import anyio
import orjson
import typer

import wakeq
from wakeq._connection import DEFAULT_URL, is_server_url, is_token
from wakeq.cli import _complete, _values

_T = TypeVar("_T")

# A name is compared with so many, and looked for so long.
_LOOK_THROUGH = 2_000
_LOOK_S = 3.0
_UNREACHABLE = "is `wakeq serve` running there? --url, or WAKEQ_URL, says where to look"
_ELSEWHERE = "is --url, or WAKEQ_URL, the address of a wakeq server?"
_HINTS = {
    "": _ELSEWHERE,
    "BAD_REQUEST": "--help says what is allowed",
    "DRAINING": "the server is about to stop; try again when it is back",
    "FORBIDDEN": "the server's settings say what it allows",
    "GROUP_NOT_FOUND": "`wakeq groups list TOPIC` shows a topic's groups",
    "IDEMPOTENCY_CONFLICT": "another message needs another --idempotency-key",
    "INVALID_MESSAGE": "`wakeq topics show TOPIC` shows what the topic's schema asks for",
    "MESSAGE_TOO_LARGE": "`wakeq topics configure TOPIC --max-message-bytes …` sets the limit",
    "NOT_FOUND": _ELSEWHERE,
    "ORIGIN_REFUSED": "use a name that the server knows, or start it with --allowed-hosts",
    "REQUEST_TIMEOUT": "is the network slow? the server's log says more",
    "STORAGE_FAILED": "the server's log says more",
    "STORAGE_FULL": "make room on the server's disk",
    "TOO_MANY_PARKED": "try again when fewer consumers wait there",
    "TOO_MANY_TOPICS": "`wakeq topics delete` makes room",
    "TOPIC_FULL": "consume or purge some of its messages, or raise --max-messages or --max-bytes",
    "TOPIC_NOT_FOUND": "`wakeq topics list` shows what there is",
    "UNAUTHENTICATED": "this server wants a token; WAKEQ_TOKEN has the one that is sent",
    "UNSUPPORTED_MEDIA_TYPE": "only a topic whose schema is any takes --raw bytes",
}


def server_url(text: str) -> str:
    """A server's URL as a person writes it."""
    if not is_server_url(text):
        raise typer.BadParameter(f"{text!r} is no address of a server; write http://HOST:PORT")
    return text


Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="WAKEQ_URL",
        parser=server_url,
        metavar="URL",
        help="The queue server.",
        show_default=DEFAULT_URL,
    ),
]
Topic = Annotated[
    str,
    typer.Argument(
        parser=_values.name,
        metavar="TOPIC",
        help="The topic's name.",
        show_default=False,
        autocompletion=_complete.topics,
    ),
]
Group = Annotated[
    str,
    typer.Option(
        "--group",
        parser=_values.name,
        metavar="GROUP",
        help="The group that it is about.",
        autocompletion=_complete.groups,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the server's JSON, and nothing else.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask before something is destroyed.")]
IfNotExists = Annotated[bool, typer.Option("--if-not-exists", help="Leave it as it is where there is one.")]
DEFAULT_GROUP = "default"


def talk(url: str, work: Callable[["wakeq.AsyncClient"], Awaitable[_T]], *topics: str, retry_s: float = 0.0) -> _T:
    """What ``work`` returns. Where the server refuses or can't be reached: a sentence, a hint and exit code 1.

    ``topics`` are those that it is about: for one that doesn't exist, the hint has the nearest name that does. For
    ``retry_s`` seconds a publish or a settle is tried again; without it, whoever typed it is told at once.
    """

    check_token("WAKEQ_TOKEN")

    async def with_client() -> _T:
        async with _client(url, retry_s) as client:
            try:
                return await work(client)
            except wakeq.TopicNotFound as error:
                near = await _nearest(client, topics)
                fail(error.detail, f"did you mean {near}? {_HINTS[error.code]}" if near else _HINTS[error.code])

    try:
        return anyio.run(with_client)
    except wakeq.ServerUnavailable as error:
        fail(error.detail, _UNREACHABLE)
    except wakeq.WakeqError as error:
        fail(error.detail, _HINTS.get(error.code, ""))


def _client(url: str, retry_s: float) -> "wakeq.AsyncClient":
    try:
        return wakeq.AsyncClient(url, retry_s=retry_s)
    except ValueError as error:
        fail(str(error), "--url, or WAKEQ_URL, is http://HOST:PORT", code=2)


def check_token(*names: str) -> None:
    """Ends with exit code 2 unless the first of these that the environment has, if any, can be sent."""
    name = next((name for name in names if os.environ.get(name)), names[-1])
    if not is_token(os.environ.get(name, "")):
        # Not shown, since it may be nearly right.
        fail(f"{name} is no token", "a token is printable ASCII without spaces", code=2)


async def _nearest(client: "wakeq.AsyncClient", topics: Sequence[str]) -> str | None:
    """The existing name that is most like the first of these that isn't there, if any is."""
    names: list[str] = []
    with anyio.move_on_after(_LOOK_S):
        try:
            async for info in client.topics():
                names.append(info.name)
                if len(names) == _LOOK_THROUGH:
                    break
        except wakeq.WakeqError:
            return None
    missing = [topic for topic in topics if topic not in names]
    return next(iter(get_close_matches(missing[0], names, n=1)), None) if missing else None


def fail(message: str, hint: str, *, code: int = 1) -> NoReturn:
    """One sentence and what to do, on stderr; then the end."""
    warn(message, hint)
    raise typer.Exit(code)


def warn(message: str, hint: str) -> None:
    """One sentence and what to do, on stderr."""
    typer.echo(f"wakeq: {_values.visible(message)}", err=True)
    if hint:
        typer.echo(f"hint: {hint}", err=True)


def say(text: str) -> None:
    """What was done."""
    typer.echo(_values.visible(text))


def note(text: str) -> None:
    """What a person should know, but a program that reads stdout should not."""
    typer.echo(_values.visible(text), err=True)


def print_json(value: Any) -> None:
    """JSON for people and programs alike."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2))


def must_ask(yes: bool, what: str = "messages") -> bool:
    """Whether to ask before something is destroyed. Where there is nobody to ask: a sentence, and exit code 2."""
    if yes:
        return False
    if not sys.stdin.isatty():
        fail(f"this destroys {what}, and without a terminal there is nobody to ask", "--yes means yes", code=2)
    return True


def ask(question: str) -> None:
    """Ends with exit code 1 unless the answer is yes."""
    typer.echo(f"{_values.visible(question)} [y/N] ", nl=False, err=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        note("nothing was done")
        raise typer.Exit(1)


def counted(number: int, what: str) -> str:
    """`1 message`, `2 messages`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
