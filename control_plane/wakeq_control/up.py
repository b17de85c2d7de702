"""`wakeq up`: the queue server and the control plane in one process.

They share an event loop, a log and a data directory, and speak with each other as two processes would: each can be run
by itself on the same data later. The queue is there first and goes last, so that the control plane never waits for it.
"""

import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
import structlog
import typer
import uvloop
from anyio.abc import TaskStatus

from wakeq import __version__
from wakeq._serving import logs
from wakeq._serving.commands import fail, option
from wakeq._serving.settings import given_token
from wakeq._serving.stopping import Told, signals
from wakeq_control import cli as control_cli
from wakeq_control import errors as control_errors
from wakeq_control import server as control_server
from wakeq_control.settings import Settings as ControlSettings
from wakeq_server import cli as queue_cli
from wakeq_server import errors as queue_errors
from wakeq_server import server as queue_server
from wakeq_server.settings import Durability
from wakeq_server.settings import Settings as QueueSettings

_log: Any = structlog.get_logger("wakeq.up")
_OF_THE_CONTROL_PLANE = (
    "namespace",
    "wait_for_service",
    "keep_tasks",
    "keep_for",
    "keep_sessions_for",
    "max_sessions",
    "max_tasks",
    "max_events",
    "max_events_bytes",
    "max_state_bytes",
    "max_body_bytes",
)
_APART = ("config", "control_port", "control_token", "queue_port", "queue", *_OF_THE_CONTROL_PLANE)
"""Options that aren't the queue server's by their names."""
_BELOW = "control-plane"
"""Where the control plane's database is in the data directory, as when both run by themselves."""


def _queue(name: str, flag: str | None = None) -> Any:
    return option(QueueSettings, name, "WAKEQ_", flag)


def _control(name: str, flag: str | None = None) -> Any:
    return option(ControlSettings, name, "WAKEQ_CONTROL_", flag)


def up(
    host: Annotated[str | None, _queue("host")] = None,
    control_port: Annotated[int | None, _control("port", "--control-port")] = None,
    queue_port: Annotated[int | None, _queue("port", "--queue-port")] = None,
    data: Annotated[Path | None, _queue("data")] = None,
    durability: Annotated[Durability | None, _queue("durability")] = None,
    queue: Annotated[
        str | None,
        typer.Option(
            envvar="WAKEQ_CONTROL_QUEUE",
            help="The queue, by the URL at which services reach it; by default where it listens.",
            show_default=False,
        ),
    ] = None,
    namespace: Annotated[str | None, _control("namespace")] = None,
    wait_for_service: Annotated[float | None, _control("wait_for_service")] = None,
    keep_tasks: Annotated[int | None, _control("keep_tasks")] = None,
    keep_for: Annotated[float | None, _control("keep_for")] = None,
    keep_sessions_for: Annotated[float | None, _control("keep_sessions_for")] = None,
    max_sessions: Annotated[int | None, _control("max_sessions")] = None,
    max_tasks: Annotated[int | None, _control("max_tasks")] = None,
    max_events: Annotated[int | None, _control("max_events")] = None,
    max_events_bytes: Annotated[str | None, _control("max_events_bytes")] = None,
    max_state_bytes: Annotated[str | None, _control("max_state_bytes")] = None,
    max_body_bytes: Annotated[str | None, _control("max_body_bytes")] = None,
    legacy_wait: Annotated[float | None, _queue("legacy_wait")] = None,
    legacy_heartbeat: Annotated[float | None, _queue("legacy_heartbeat")] = None,
    auto_create_topics: Annotated[
        bool | None, _queue("auto_create_topics", "--auto-create-topics/--no-auto-create-topics")
    ] = None,
    drain: Annotated[float | None, _queue("drain")] = None,
    memory_budget: Annotated[str | None, _queue("memory_budget")] = None,
    max_topics: Annotated[int | None, _queue("max_topics")] = None,
    max_parked: Annotated[int | None, _queue("max_parked")] = None,
    head_timeout: Annotated[float | None, _queue("head_timeout")] = None,
    body_timeout: Annotated[float | None, _queue("body_timeout")] = None,
    token: Annotated[str | None, _queue("token")] = None,
    token_file: Annotated[Path | None, _queue("token_file")] = None,
    control_token: Annotated[
        str | None,
        typer.Option(
            envvar="WAKEQ_CONTROL_TOKEN",
            help="What requests to the control plane must show; by default it is the queue's.",
            show_default=False,
        ),
    ] = None,
    allowed_hosts: Annotated[str | None, _queue("allowed_hosts")] = None,
    cors_origin: Annotated[str | None, _queue("cors_origin")] = None,
    push_allow: Annotated[str | None, _queue("push_allow")] = None,
    log_format: Annotated[Literal["text", "json"] | None, _queue("log_format")] = None,
    access_log: Annotated[bool | None, _queue("access_log", "--access-log/--no-access-log")] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with any settings of the queue server.", envvar="WAKEQ_CONFIG")
    ] = None,
) -> None:
    """Run the queue server and the control plane in one process.

    The options are those of `wakeq serve` and `wakeq control-plane`; what both have is said once, for both.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    own = {name: value for name, value in given.items() if name not in _APART}
    serving = queue_cli.read_settings(config, own | _named("port", queue_port), "up")
    logs.configure(serving.log_format)
    more = {name: given[name] for name in _OF_THE_CONTROL_PLANE if name in given}
    if control_token is not None or os.environ.get("WAKEQ_CONTROL_TOKEN_FILE"):
        more["token"] = control_token
    try:
        planning = control_cli.read_settings(
            _shared(serving) | more | _named("port", control_port) | _named("queue", queue), "up"
        )
        work = partial(run, serving, planning, is_elsewhere=queue is not None)
        anyio.run(work, backend_options={"loop_factory": uvloop.new_event_loop})
    except* (control_errors.StartupError, control_errors.StorageFailed, queue_errors.StartupError) as group:
        error = control_errors.first_of(group)
        if isinstance(error, queue_errors.StartupError):
            fail(str(error), error.hint, code=1)
        assert isinstance(error, control_errors.StartupError | control_errors.StorageFailed)
        control_cli.tell(error)


def _named(name: str, value: object) -> dict[str, Any]:
    return {} if value is None else {name: value}


def _shared(queue: QueueSettings) -> dict[str, Any]:
    """What the control plane has from the queue server's settings. Raises StartupError."""
    token = given_token(queue.token, queue.token_file, queue_errors.StartupError)
    return {
        "host": queue.host,
        "data": queue.data / _BELOW,
        "durability": "memory" if queue.durability == "memory" else "fsync",
        "allowed_hosts": queue.allowed_hosts,
        "log_format": queue.log_format,
        "queue_token": token,
        "token": token,
    }


async def run(queue: QueueSettings, control: ControlSettings, *, is_elsewhere: bool) -> None:
    """Both, until a signal says so. Raises StartupError or StorageFailed of either, in a group.

    ``is_elsewhere``: services don't reach the queue where it listens, but as the control plane's settings say.
    """
    queue_told, control_told = Told(), Told()

    async def pass_on(*, task_status: TaskStatus[None]) -> None:
        with signals() as received:
            task_status.started()
            await anext(received)
            control_told.tell()
            await anext(received)
            # It waits for nobody, then.
            queue_told.tell()
            queue_told.tell()

    async def serve_queue(*, task_status: TaskStatus[str]) -> None:
        await queue_server.serve(queue, __version__, stops=queue_told, listening=task_status.started)
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        await tasks.start(pass_on)
        found: str = await tasks.start(serve_queue)
        known = control if is_elsewhere else control.model_copy(update={"queue": found})
        await control_server.serve(
            known,
            __version__,
            queue=found,
            stops=control_told,
            listening=lambda url: _log.info("up", control_plane=url, queue=found),
        )
        queue_told.tell()
