"""`wakeq tasks`."""

import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, TypeVar

import orjson
import typer

import wakeq
from wakeq._connection import DEFAULT_CONTROL_URL
from wakeq.cli import _control_tables, _pipes, _values
from wakeq.cli._arguments import arguments_of, value_of
from wakeq.cli._control import RETRY_S, Service, Session, Task, Url, outcome, talk
from wakeq.cli._stop import stoppable
from wakeq.cli._style import STYLE
from wakeq.cli._talk import Json, fail, note, print_json, say

_T = TypeVar("_T")
app = typer.Typer(no_args_is_help=True, help="Give tasks to services, and look at and look after them.", **STYLE)

Arguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ARGUMENT",
        help="NAME=TEXT, NAME:=JSON, or one JSON object with all of them.",
        show_default=False,
    ),
]
InSession = Annotated[
    Any, typer.Option("--session", parser=_values.name, metavar="SESSION", help="The session; without it, a new one.")
]
Id = Annotated[
    Any,
    typer.Option("--id", parser=_values.name, metavar="TASK", help="Its id; one that comes again is the same task."),
]
Timeout = Annotated[
    Any, typer.Option("--timeout", parser=_values.seconds, metavar="DURATION", help="When it has timed out.")
]


@app.command()
def run(
    service: Service,
    arguments: Arguments = None,
    session: InSession = None,
    task_id: Id = None,
    timeout_s: Timeout = None,
    url: Url = DEFAULT_CONTROL_URL,
) -> None:
    """Give a service a task, wait for its result, and print that. An interrupt cancels the task.

    Without --session the task is in a session of its own, which goes with it.
    """
    given = arguments_of(arguments or [])

    async def work(control: wakeq.AsyncControlPlane) -> str:
        # A control plane that isn't there at all is told at once.
        await (control.services() if session is None else control.session(session))
        try:
            return await control.run(service, given, session_id=session, task_id=task_id, timeout_s=timeout_s)
        except wakeq.TaskFailed as error:
            kept = _more(error.task) if session else "with --session SESSION it is kept, and can be looked at"
            fail(f"the task {outcome(error.task)}", kept)

    _print(talk(url, _until_stopped(work), service=service, retry_s=RETRY_S))


@app.command()
def create(
    service: Service,
    arguments: Arguments = None,
    session: InSession = None,
    task_id: Id = None,
    timeout_s: Timeout = None,
    as_json: Json = False,
    url: Url = DEFAULT_CONTROL_URL,
) -> None:
    """Give a service a task, and don't wait for it."""
    given = arguments_of(arguments or [])

    async def work(control: wakeq.AsyncControlPlane) -> tuple[str, str]:
        where = session or await control.create_session()
        return where, await control.create_task(where, service, given, task_id=task_id, timeout_s=timeout_s)

    where, created = talk(url, work, service=service)
    if as_json:
        print_json({"session_id": where, "task_id": created})
    else:
        say(f"created task {created} in session {where}")


@app.command("list")
def list_(session: Session, as_json: Json = False, url: Url = DEFAULT_CONTROL_URL) -> None:
    """Show the tasks of a session, a line each, the oldest first."""
    tasks = talk(url, lambda control: control.tasks(session))
    if as_json:
        print_json({"tasks": [task.raw for task in tasks]})
    elif tasks:
        _control_tables.show_tasks(tasks)
    else:
        note(f"session {session} has no tasks")


@app.command()
def show(session: Session, task: Task, as_json: Json = False, url: Url = DEFAULT_CONTROL_URL) -> None:
    """Show where a task stands."""
    found = talk(url, lambda control: control.task(session, task))
    if as_json:
        print_json(found.raw)
    else:
        _control_tables.show_task(found)


@app.command()
def cancel(session: Session, task: Task, url: Url = DEFAULT_CONTROL_URL) -> None:
    """End a task that hasn't ended. Workers are told; services of llama_deploy can't be."""
    found = talk(url, lambda control: control.cancel(session, task))
    if found.status != "cancelled":
        fail(f"the task had ended already: it {outcome(found)}", _more(found))
    say(f"cancelled task {task}")


@app.command()
def result(
    session: Session,
    task: Task,
    wait_s: Annotated[
        Any,
        typer.Option("--wait", parser=_values.seconds, metavar="DURATION", help="Wait no longer; else it waits."),
    ] = None,
    url: Url = DEFAULT_CONTROL_URL,
) -> None:
    """Print what a task has come to, as soon as it has ended."""

    async def work(control: wakeq.AsyncControlPlane) -> wakeq.TaskInfo:
        await control.task(session, task)
        return await control.wait(session, task, wait_s=wait_s)

    found = talk(url, _until_stopped(work), retry_s=RETRY_S)
    if not found.ended:
        fail(f"the task has not ended: it is {found.status.replace('_', ' ')}", "without --wait this waits for its end")
    if found.status != "succeeded":
        fail(f"the task {outcome(found)}", _more(found))
    _print(found.result or "")


@app.command()
def events(
    session: Session,
    task: Task,
    after: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Begin behind event N.", show_default=False)
    ] = None,
    output: Annotated[
        Literal["data", "json"], typer.Option(help="A line is what an event says, or a JSON object with its index.")
    ] = "data",
    url: Url = DEFAULT_CONTROL_URL,
) -> None:
    """Print what a task shows, a line of JSON an event, as it comes; ends with the task."""

    async def work(control: wakeq.AsyncControlPlane) -> wakeq.TaskInfo | None:
        await control.task(session, task)
        async with control.events(session, task, after=after) as coming:
            async for event in coming:
                said = event.data if output == "data" else {"index": event.index, "data": event.data}
                await _pipes.write(orjson.dumps(said) + b"\n")
            return coming.end

    end = talk(url, _until_stopped(work), retry_s=RETRY_S)
    if end is not None and end.status != "succeeded":
        note(f"the task {outcome(end)}")


@app.command("send-event")
def send_event(
    session: Session,
    task: Task,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="A JSON value.", show_default=False)],
    url: Url = DEFAULT_CONTROL_URL,
) -> None:
    """Hand an event to a running task, such as an answer that it waits for."""
    value = value_of(event, "the event is", "a string needs its quotes, as in '\"yes\"'")
    found = talk(url, lambda control: control.send_event(session, task, value))
    if found.ended:
        fail(f"the task had ended already: it {outcome(found)}", "an event for a task that has ended goes nowhere")
    say(f"sent to task {task}")


def _more(task: wakeq.TaskInfo) -> str:
    return f"`wakeq tasks show {task.session_id} {task.id}` says more"


def _print(text: str) -> None:
    """A result as it is, but that it can do nothing to a terminal."""
    typer.echo("\n".join(map(_values.visible, text.split("\n"))) if sys.stdout.isatty() else text)


def _until_stopped(
    work: Callable[[wakeq.AsyncControlPlane], Awaitable[_T]],
) -> Callable[[wakeq.AsyncControlPlane], Awaitable[_T]]:
    """The same, but that a signal ends it in good order: 130 after SIGINT, 1 where SIGTERM left it undone."""

    async def stopping(control: wakeq.AsyncControlPlane) -> _T:
        async with stoppable() as stop:
            with stop.taking():
                return await work(control)
            raise typer.Exit(1)

    return stopping
