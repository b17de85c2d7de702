"""`wakeq worker`."""

import inspect
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any, Literal

import anyio
import typer
import uvloop

from wakeq._connection import control_token, is_server_url, is_token
from wakeq._serving import logs
from wakeq._serving.commands import fail
from wakeq._serving.process import tune_collector
from wakeq_control.errors import StartupError, first_of
from wakeq_control.messages import CONTROL_PLANE, SERVICE_MAX, check_name, check_replica
from wakeq_control.model import NO_RETRY, Retry
from wakeq_control.service.functions import Function
from wakeq_control.service.runnable import Runnable
from wakeq_control.service.worker import Options, serve
from wakeq_control.service.workflows import Workflow, is_workflow
from wakeq_control.tasks import MAX_ATTEMPTS

_HELP = "see wakeq worker --help"


def worker(
    target: Annotated[
        str, typer.Argument(metavar="MODULE:OBJECT", help="An async function, or an instance of a workflow.")
    ],
    service: Annotated[str, typer.Option(help="The service's name, which its tasks go to.")],
    control_plane: Annotated[
        str, typer.Option(envvar="WAKEQ_CONTROL_PLANE", metavar="URL", help="The control plane.")
    ] = "http://127.0.0.1:8000",
    queue: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The queue server, where it isn't the one that the control plane names."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="The worker's name, which tasks and the queue show; with --delivery all the replica's, of which "
            "workers with one name are one.",
            show_default="one that no other has",
        ),
    ] = None,
    delivery: Annotated[
        Literal["one", "all"],
        typer.Option(help="Whether one of the service's workers is given a task, or each of its replicas."),
    ] = "one",
    description: Annotated[str, typer.Option(help="What the service does, for people who look for it.")] = "",
    max_concurrent_tasks: Annotated[int, typer.Option(min=1, max=1_000, help="Tasks that run at a time.")] = 8,
    max_attempts: Annotated[
        int,
        typer.Option(min=1, max=MAX_ATTEMPTS, help="Attempts at a task that may fail; after one it has failed."),
    ] = NO_RETRY.max_attempts,
    retry_backoff: Annotated[
        float,
        typer.Option(min=0, max=86_400, help="Seconds from the first failure to the next attempt; then twice as long."),
    ] = NO_RETRY.backoff_s,
    max_retry_backoff: Annotated[
        float, typer.Option(min=0, max=86_400, help="Seconds that the next attempt may be away at most.")
    ] = NO_RETRY.max_backoff_s,
    lease: Annotated[
        float,
        typer.Option(min=1, max=3_600, help="Seconds for which a task is leased; it is extended while the task runs."),
    ] = 30.0,
    grace: Annotated[
        float,
        typer.Option(min=0, max=3_600, help="Seconds that tasks may go on after a signal; then they are given back."),
    ] = 30.0,
    log_format: Annotated[
        Literal["text", "json"], typer.Option(help="One line an event, for people or for programs.")
    ] = "text",
) -> None:
    """Run an async function or a workflow as a service: it works on tasks until it is told to stop.

    Tokens, where they are asked for, come from the environment: the queue's is WAKEQ_TOKEN, the control plane's is
    WAKEQ_CONTROL_TOKEN, else the same.
    """
    _check_service(service)
    _check_name(name)
    _check_tokens()
    _check_url("control-plane", control_plane)
    if queue is not None:
        _check_url("queue", queue)
    if max_retry_backoff < retry_backoff:
        fail(f"max-retry-backoff: must be at least --retry-backoff, which is {retry_backoff:g}", _HELP, code=2)
    runnable = _load(target)
    options = Options(
        service=service,
        description=description,
        control_plane=control_plane,
        queue=queue,
        queue_token=os.environ.get("WAKEQ_TOKEN"),
        control_token=control_token(),
        max_concurrent_tasks=max_concurrent_tasks,
        lease_s=lease,
        grace_s=grace,
        retry=Retry(max_attempts, retry_backoff, max_retry_backoff),
        name=name,
        delivery=delivery,
    )
    run(runnable, options, log_format)


def run(
    runnable: Runnable,
    options: Options,
    log_format: Literal["text", "json"],
    working: Callable[[], None] = lambda: None,
) -> None:
    """Work until a signal says so; ``working`` is called each time that the worker begins to take tasks."""
    logs.configure(log_format)
    tune_collector()
    try:
        anyio.run(serve, runnable, options, working, backend_options={"loop_factory": uvloop.new_event_loop})
    except* StartupError as group:
        error: Any = first_of(group)
        fail(str(error), error.hint, code=1)


def _check_service(name: str) -> None:
    try:
        check_name(name, SERVICE_MAX)
    except ValueError as error:
        fail(f"service: {error}", _HELP, code=2)
    if name == CONTROL_PLANE:
        fail(f"service: {name} is the control plane's own", "choose another name", code=2)


def _check_name(name: str | None) -> None:
    try:
        name is None or check_replica(name)
    except ValueError as error:
        fail(f"name: {error}", _HELP, code=2)


def _check_tokens() -> None:
    for name in ("WAKEQ_TOKEN", "WAKEQ_CONTROL_TOKEN"):
        if not is_token(os.environ.get(name, "")):
            # Not shown, since it may be nearly right.
            fail(f"{name} is no token", "a token is printable ASCII without spaces", code=2)


def _check_url(option: str, url: str) -> None:
    if not is_server_url(url):
        fail(f"{option}: {url!r} is no address of a server; write http://HOST:PORT", _HELP, code=2)


def _load(target: str) -> Runnable:
    """What a target names, as something that tasks can be run by."""
    module_name, _, path = target.partition(":")
    if not module_name or not path:
        fail(f"{target!r} names no object", "write MODULE:OBJECT, as in my_package.flows:workflow", code=2)
    # As `python -m` has it.
    sys.path.insert(0, "")
    try:
        found: Any = import_module(module_name)
    except ImportError as error:
        fail(f"{target}: {error}", "is it installed, or in the working directory?", code=2)
    for name in path.split("."):
        if not hasattr(found, name):
            fail(f"{target}: {found.__name__} has no {name!r}", "write MODULE:OBJECT", code=2)
        found = getattr(found, name)
    try:
        return runnable_of(found)
    except ValueError as error:
        fail(f"{target}: {error}", "its parameters must have names, and annotations that can be read", code=2)


def runnable_of(found: Any) -> Runnable:
    """What an object's tasks are run by. Raises ValueError where it can't be served."""
    runnable = _runnable_of(found)
    if runnable.schema is not None:
        # What checks arguments takes long to load: now, and not while the first task waits.
        import_module("wakeq_control.schemas")
    return runnable


def _runnable_of(found: Any) -> Runnable:
    if inspect.iscoroutinefunction(found):
        return Function(found)
    if is_workflow(found):
        return Workflow(found)
    kind = "a class" if inspect.isclass(found) else f"a {type(found).__name__}"
    raise ValueError(f"it is {kind}, and neither an async function nor an instance of a workflow")
