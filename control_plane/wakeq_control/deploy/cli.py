"""`wakeq deploy`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
import platformdirs
import typer
import uvloop

from wakeq._loading import loading
from wakeq._serving import logs
from wakeq._serving.commands import fail
from wakeq_control.deploy.errors import DeploymentError, InvalidDeployment
from wakeq_control.deploy.options import Options
from wakeq_control.deploy.process import SERVERS, Process, server_job
from wakeq_control.errors import StartupError, first_of

_DATA = Path(platformdirs.user_data_dir("wakeq", appauthor=False)) / "deployments"


def deploy(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="The deployment file; without one, deployments come by `llamactl deploy`.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="The control plane's port, whatever the file says; 0 takes a free one."),
    ] = None,
    api_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Port of the API server, which llamactl asks; 0 takes a free one.",
            show_default="4501",
        ),
    ] = None,
    data: Annotated[
        Path, typer.Option(envvar="WAKEQ_DEPLOYMENTS", help="Directory of what deployments keep, by their names.")
    ] = _DATA,
    durability: Annotated[
        Literal["fsync", "memory"],
        typer.Option(help="Whether what is answered is on disk first (fsync), or nothing is kept (memory)."),
    ] = "fsync",
    reload: Annotated[
        bool, typer.Option("--reload/--no-reload", help="Replace the services when the file or their code changes.")
    ] = True,
    grace: Annotated[
        float,
        typer.Option(min=0, max=3_600, help="Seconds that running tasks have when their service is to end."),
    ] = 10.0,
    lease: Annotated[
        float,
        typer.Option(min=1, max=3_600, help="Seconds for which a task is leased; it is extended while the task runs."),
    ] = 30.0,
    log_format: Annotated[
        Literal["text", "json"], typer.Option(help="One line an event, for people or for programs.")
    ] = "text",
) -> None:
    """Run a deployment: a queue, a control plane, an API server and the services of the file, until it is told to stop.

    The file is one of llama_deploy; without a file there is the API server alone. What dies is started again; SIGTERM
    and Ctrl-C stop all of it, and a second one at once.
    """
    if file is None and port is not None:
        fail("--port is the control plane's of a deployment file", "name the file too, or leave --port out", code=2)
    logs.configure(log_format)
    try:
        anyio.run(
            _deploy, file, port, api_port, Options(data, durability, grace, lease), reload,
            backend_options={"loop_factory": uvloop.new_event_loop},
        )  # fmt: skip
    except* (DeploymentError, StartupError, typer.Exit) as group:
        error: Any = first_of(group)
        if isinstance(error, typer.Exit):
            raise typer.Exit(error.exit_code) from None
        fail(str(error), error.hint, code=2 if isinstance(error, InvalidDeployment) else 1)


async def _deploy(file: Path | None, port: int | None, api_port: int | None, options: Options, reload: bool) -> None:
    async with anyio.create_task_group() as tasks:
        if file is not None:
            # Whatever the file says, there is one of each, and they load while all else does here.
            for name in SERVERS:
                options.ahead[name] = await Process.start(server_job(name), tasks)
        with loading():
            from wakeq_control.deploy.running import serve  # noqa: PLC0415

        await serve(file, port, api_port, options, reload=reload)
        tasks.cancel_scope.cancel()
