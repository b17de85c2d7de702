"""`wakeq deploy`."""

import signal
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import anyio
import platformdirs
import structlog
import typer
import uvloop

from wakeq._serving import logs
from wakeq._serving.commands import fail
from wakeq_control.deploy.changes import open_changes
from wakeq_control.deploy.config import DeploymentConfig, read_config
from wakeq_control.deploy.deployment import Options
from wakeq_control.deploy.deployments import LocalDeployments, open_deployments
from wakeq_control.deploy.errors import DeploymentError, DeploymentFailed, InvalidDeployment
from wakeq_control.errors import first_of

_log: Any = structlog.get_logger("wakeq.deploy")
_DATA = Path(platformdirs.user_data_dir("wakeq", appauthor=False)) / "deployments"


def deploy(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The deployment file.", show_default=False)],
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="The control plane's port, whatever the file says; 0 takes a free one."),
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
    log_format: Annotated[
        Literal["text", "json"], typer.Option(help="One line an event, for people or for programs.")
    ] = "text",
) -> None:
    """Run a deployment: a queue, a control plane and the services of the file, until it is told to stop.

    The file is one of llama_deploy. What dies is started again; SIGTERM and Ctrl-C stop all of it, and a second one at
    once.
    """
    deployment, options = _File(file, port), Options(data, durability, grace)
    try:
        config = deployment.read()
        logs.configure(log_format)
        anyio.run(_serve, deployment, config, options, reload, backend_options={"loop_factory": uvloop.new_event_loop})
    except* DeploymentError as group:
        error: Any = first_of(group)
        fail(error.detail, error.hint, code=2 if isinstance(error, InvalidDeployment) else 1)


class _File(NamedTuple):
    """The deployment file, read anew whenever it has changed."""

    path: Path
    port: int | None

    def read(self) -> DeploymentConfig:
        """What it says, but for what the command line says. Raises InvalidDeployment."""
        try:
            config = read_config(self.path.read_bytes(), str(self.path))
        except OSError as error:
            hint = "name a deployment file; see wakeq deploy --help"
            raise InvalidDeployment(f"{self.path} can't be read: {error.strerror}", hint) from None
        return config if self.port is None else config.at_port(self.port)


async def _serve(file: _File, config: DeploymentConfig, options: Options, reload: bool) -> None:
    async with anyio.create_task_group() as tasks:
        running = anyio.CancelScope()
        tasks.start_soon(_watch_signals, running, tasks.cancel_scope)
        async with open_deployments(options) as deployments:
            with running:
                if reload:
                    await _follow(file, config, deployments)
                else:
                    await deployments.deploy(config, file.path.parent)
                    await anyio.sleep_forever()
        tasks.cancel_scope.cancel()
    _log.info("stopped")


async def _watch_signals(running: anyio.CancelScope, everything: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        await anext(signals)
        _log.info("stopping")
        running.cancel()
        await anext(signals)
        _log.warning("killing what has not ended")
        everything.cancel()


async def _follow(file: _File, config: DeploymentConfig, deployments: LocalDeployments) -> None:
    """Deploy it, and reload it whenever the file or its code has changed."""
    async with AsyncExitStack() as stack:
        try:
            changes = await stack.enter_async_context(open_changes())
        except OSError as error:
            raise _unwatched(error) from error

        def watch(paths: list[Path]) -> None:
            try:
                changes.watch([file.path, *paths])
            except OSError as error:
                raise _unwatched(error) from error

        deploy = partial(deployments.deploy, found=watch)
        await deploy(config, file.path.parent)
        while True:
            await changes.next()
            _log.info("reloading", deployment=config.name)
            try:
                new = file.read()
                if new.name != config.name:
                    raise new.broken("name", f"was {config.name!r}, and can't change while it runs", "start it anew")
                await deploy(new, file.path.parent, reload=True)
            except DeploymentError as error:
                _log.error("what ran before runs on", reason=error.detail, hint=error.hint)


def _unwatched(error: OSError) -> DeploymentFailed:
    hint = "raise fs.inotify.max_user_instances and max_user_watches, or give --no-reload"
    return DeploymentFailed(f"files can't be watched: {error.strerror}", hint)
