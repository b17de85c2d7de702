"""`wakeq run`."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import anyio
import orjson
import typer
from typer.core import TyperCommand

import wakeq
from wakeq._apiserver import ApiServer, Task
from wakeq.cli import _values
from wakeq.cli._stop import stoppable
from wakeq.cli._style import STYLE
from wakeq.cli._talk import fail, note, server_url

DEFAULT_APISERVER = "http://127.0.0.1:4501"
_UNREACHABLE = "is `wakeq deploy` running there? --api-server, or WAKEQ_APISERVER, says where to look"
_HINTS = {
    "INVALID_ARGUMENTS": "--arg KEY VALUE and --args-json FILE say what the task is given",
    "NO_DEFAULT_SERVICE": "--service says which of its services is meant",
    "NOT_FOUND": "is --api-server, or WAKEQ_APISERVER, the address of an API server?",
    "ORIGIN_REFUSED": "use a name that the server knows, or start it with --allowed-hosts",
    "SERVICE_NOT_FOUND": "without --service the deployment's default service is meant",
    "SESSION_NOT_FOUND": "without --session the task gets one of its own",
    "TASK_NOT_FOUND": "was its session deleted meanwhile?",
}
_OBJECT = 'it has the arguments by their names, as in {"user_msg": "hello"}'
_USAGE = ("INVALID_ARGUMENTS",)
_HOW = {"cancelled": "been cancelled", "timed_out": "timed out"}
_ARG = ("--arg", "-a")


class _PairsCommand(TyperCommand):
    """Typer has no option that takes two values and may be repeated: both are handed to it as one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Typer's."""
        return super().parse_args(ctx, list(_joined(args)))


def _joined(args: list[str]) -> Iterator[str]:
    rest = iter(args)
    for argument in rest:
        yield argument
        if argument in _ARG:
            pair = [value for value in (next(rest, None), next(rest, None)) if value is not None]
            if len(pair) < 2:
                fail("--arg takes a name and a value", "write --arg KEY VALUE, as in --arg user_msg 'hello'", code=2)
            yield json.dumps(pair)


def _pair(text: str) -> Any:
    try:
        key, value = json.loads(text)
    except ValueError:
        raise typer.BadParameter("write --arg KEY VALUE, with a space") from None
    return _values.utf8(key), _values.utf8(value)


class _Order(NamedTuple):
    """What is to be run, and how."""

    deployment: str
    arguments: Mapping[str, Any]
    service: str | None
    session: str | None
    follow: bool
    wait: bool


app = typer.Typer(**STYLE)


@app.command(cls=_PairsCommand)
def run(
    deployment: Annotated[
        Any, typer.Option("--deployment", "-d", parser=_values.name, metavar="NAME", help="The deployment.")
    ],
    arg: Annotated[
        list[Any] | None,
        typer.Option(*_ARG, parser=_pair, metavar="KEY VALUE", help="An argument of the task. Repeatable."),
    ] = None,
    args_json: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The arguments are the JSON object in this file, or with - that on stdin."),
    ] = None,
    service: Annotated[
        str | None, typer.Option("--service", "-s", metavar="NAME", help="One of its services.  [default: the file's]")
    ] = None,
    session: Annotated[
        str | None, typer.Option("--session", "-i", metavar="ID", help="A session that there is already.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show the task's events as they come: lines of JSON, on stderr.")
    ] = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Don't wait for the result: print the task's ids, as JSON.")
    ] = False,
    api_server: Annotated[
        str,
        typer.Option(
            envvar="WAKEQ_APISERVER", parser=server_url, metavar="URL", help="The API server.",
            show_default=DEFAULT_APISERVER,
        ),
    ] = DEFAULT_APISERVER,
) -> None:  # fmt: skip
    """Run a task of a deployment, and print its result.

    Exit codes: 0, the task has succeeded (with --no-wait: has begun); 1, it has failed, or there is no server or no
    such deployment; 2, the command or the task's arguments are wrong.
    """
    if follow and no_wait:
        fail("--follow shows what --no-wait doesn't wait for", "leave out one of them", code=2)
    arguments = {**_read(args_json), **dict(arg or ())}
    order = _Order(deployment, arguments, service, session, follow, not no_wait)
    try:
        anyio.run(_run, api_server, order)
    except wakeq.ServerUnavailable as error:
        fail(error.detail, _UNREACHABLE)
    except wakeq.WakeqError as error:
        fail(error.detail, _HINTS.get(error.code, ""), code=2 if error.code in _USAGE else 1)


def _read(file: str | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        said = orjson.loads(sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes())
    except OSError as error:
        fail(f"{file} can't be read: {error.strerror}", "--args-json names what has the arguments", code=2)
    except orjson.JSONDecodeError as error:
        fail(f"{file} is not JSON: {error.msg}, line {error.lineno}, column {error.colno}", _OBJECT, code=2)
    if not isinstance(said, dict):
        fail(f"{file} has no JSON object", _OBJECT, code=2)
    return said


async def _run(url: str, order: _Order) -> None:
    server = ApiServer(url)
    try:
        task = await _begun(server, order)
        if not order.wait:
            typer.echo(orjson.dumps(task.definition))
            return
        async with stoppable() as stop:
            ended: dict[str, Any] | None = None
            with stop.taking():
                ended = await _ended(task, follow=order.follow)
            if ended is None:
                # It may have effects that are half done, and its result is still to be had.
                note(f"the task goes on: {task.id}, in session {task.session_id}")
                raise typer.Exit(1)
            if order.session is None:
                await task.forget()
    finally:
        with anyio.CancelScope(shield=True):
            await server.aclose()
    _tell(ended, hint="" if order.follow else "--follow shows what a task does")


async def _begun(server: ApiServer, order: _Order) -> Task:
    try:
        return await server.create_task(
            order.deployment, order.arguments, service=order.service, session_id=order.session
        )
    except wakeq.WakeqError as error:
        if error.code != "DEPLOYMENT_NOT_FOUND":
            raise
        names = await server.deployments()
        there = f"there are: {', '.join(names)}" if names else "there is none"
        near = get_close_matches(order.deployment, names, n=1)
        fail(
            f"no deployment {order.deployment!r} runs there; {there}",
            f"did you mean {near[0]}?" if near else "`wakeq deploy FILE` starts one",
        )


async def _ended(task: Task, *, follow: bool) -> dict[str, Any]:
    """How it has ended. Meanwhile there is something to see."""
    if follow:
        async with aclosing(task.events()) as parts:
            async for part in parts:
                sys.stderr.buffer.write(part)
                sys.stderr.flush()
        return await task.ended()
    if not sys.stderr.isatty():
        return await task.ended()
    # Nobody else has to wait until it is loaded.
    from rich.console import Console  # noqa: PLC0415

    with Console(stderr=True).status(f"task {task.id}"):
        return await task.ended()


def _tell(ended: Mapping[str, Any], hint: str) -> None:
    if ended["status"] != "succeeded":
        fail(f"the task has {_HOW.get(ended['status'], 'failed')}: {ended['error']}", hint)
    typer.echo(ended["result"]["result"])
