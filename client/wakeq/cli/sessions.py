"""`wakeq sessions`."""

import typer

import wakeq
from wakeq._connection import DEFAULT_CONTROL_URL
from wakeq.cli import _control_tables
from wakeq.cli._control import Session, Url, talk
from wakeq.cli._style import STYLE
from wakeq.cli._talk import Json, Yes, ask, counted, must_ask, note, print_json, say

app = typer.Typer(no_args_is_help=True, help="Make, show and delete the sessions of a control plane.", **STYLE)


@app.command()
def create(url: Url = DEFAULT_CONTROL_URL) -> None:
    """Make a session, and print its id."""
    say(talk(url, lambda control: control.create_session()))


@app.command("list")
def list_(as_json: Json = False, url: Url = DEFAULT_CONTROL_URL) -> None:
    """Show all sessions, a line each, the oldest first."""

    async def work(control: wakeq.AsyncControlPlane) -> list[wakeq.SessionInfo]:
        return [session async for session in control.sessions()]

    sessions = talk(url, work)
    if as_json:
        print_json({"sessions": [session.raw for session in sessions]})
    elif sessions:
        _control_tables.show_sessions(sessions)
    else:
        note("there are no sessions")


@app.command()
def show(session: Session, as_json: Json = False, url: Url = DEFAULT_CONTROL_URL) -> None:
    """Show a session: what has been put into its state, and its tasks."""

    async def work(
        control: wakeq.AsyncControlPlane,
    ) -> tuple[wakeq.SessionInfo, wakeq.SessionState, list[wakeq.TaskInfo]]:
        return await control.session(session), await control.session_state(session), await control.tasks(session)

    found, state, tasks = talk(url, work)
    if as_json:
        print_json({**found.raw, "version": state.version, "state": state.values})
    else:
        _control_tables.show_session(found, state, tasks)


@app.command()
def delete(session: Session, yes: Yes = False, url: Url = DEFAULT_CONTROL_URL) -> None:
    """Drop a session with its tasks. Those that run are cancelled."""
    asking = must_ask(yes, "a session")
    held = counted(talk(url, lambda control: control.session(session)).tasks, "task")
    if asking:
        ask(f"Delete session {session} with {held}?")
    talk(url, lambda control: control.delete_session(session))
    say(f"deleted session {session} with {held}")
