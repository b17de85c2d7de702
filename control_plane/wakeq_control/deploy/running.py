"""What `wakeq deploy` does until it is told to stop."""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import structlog
from pydantic import ValidationError

from wakeq._serving.commands import fail, problem_of
from wakeq_control.apiserver.server import listen, open_apiserver
from wakeq_control.apiserver.settings import Settings as ApiSettings
from wakeq_control.deploy.changes import Changes, open_changes
from wakeq_control.deploy.config import DeploymentConfig, read_config
from wakeq_control.deploy.deployments import LocalDeployments, open_deployments
from wakeq_control.deploy.errors import DeploymentError, DeploymentFailed, InvalidDeployment
from wakeq_control.deploy.options import Options

_log: Any = structlog.get_logger("wakeq.deploy")


async def serve(file: Path | None, port: int | None, api_port: int | None, options: Options, *, reload: bool) -> None:
    """Run the file's deployment, or none, and the API server.

    Raises DeploymentError and StartupError, in a group.
    """
    run = _run_nothing if file is None else _of_file(_File(file, port), reload=reload)
    await _serve(run, options, _api_settings(api_port))


def _api_settings(port: int | None) -> ApiSettings:
    try:
        return ApiSettings() if port is None else ApiSettings(port=port)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        problem = problem_of(ApiSettings, name, first)
        fail(f"WAKEQ_APISERVER_{name.upper()}: {problem}", "see wakeq deploy --help", code=2)


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


Api = Callable[[], AbstractAsyncContextManager[object]]
"""Opens the API server."""
Run = Callable[[LocalDeployments, Api], Awaitable[None]]
"""Runs until it is cancelled."""


async def _serve(run: Run, options: Options, api: ApiSettings) -> None:
    # Taken first: a port that somebody has is told of before anything begins.
    with closing(listen(api)) as listener:
        async with anyio.create_task_group() as tasks:
            running = anyio.CancelScope()
            tasks.start_soon(_watch_signals, running, tasks.cancel_scope)
            async with open_deployments(options) as deployments:
                with running:
                    await run(deployments, partial(open_apiserver, deployments, api, listener))
            tasks.cancel_scope.cancel()
    _log.info("stopped")


async def _run_nothing(_: LocalDeployments, api: Api) -> None:
    """The API server alone: what runs comes by its calls."""
    async with api():
        await anyio.sleep_forever()


def _of_file(file: _File, *, reload: bool) -> Run:
    """Raises InvalidDeployment."""
    return partial(_run, file, file.read(), reload)


async def _run(file: _File, config: DeploymentConfig, reload: bool, deployments: LocalDeployments, api: Api) -> None:
    async with AsyncExitStack() as stack:
        changes = await stack.enter_async_context(_watching()) if reload else None
        deploy = partial(deployments.deploy, found=partial(_watch, changes, file))
        await deploy(config, file.path.parent)
        await stack.enter_async_context(api())
        if changes is None:
            await anyio.sleep_forever()
        else:
            await _follow(changes, file, config.name, deploy)


async def _watch_signals(running: anyio.CancelScope, everything: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        await anext(signals)
        _log.info("stopping")
        running.cancel()
        await anext(signals)
        _log.warning("killing what has not ended")
        everything.cancel()


async def _follow(changes: Changes, file: _File, name: str, deploy: Callable[..., Awaitable[object]]) -> None:
    """Reload the deployment whenever the file or its code has changed."""
    while True:
        await changes.next()
        _log.info("reloading", deployment=name)
        try:
            config = file.read()
            if config.name != name:
                raise config.broken("name", f"was {name!r}, and can't change while it runs", "start it anew")
            await deploy(config, file.path.parent, reload=True)
        except DeploymentError as error:
            _log.error("what ran before runs on", reason=error.detail, hint=error.hint)


@asynccontextmanager
async def _watching() -> AsyncIterator[Changes]:
    async with AsyncExitStack() as stack:
        try:
            changes = await stack.enter_async_context(open_changes())
        except OSError as error:
            raise _unwatched(error) from error
        yield changes


def _watch(changes: Changes | None, file: _File, paths: list[Path]) -> None:
    if changes is None:
        return
    try:
        changes.watch([file.path, *paths])
    except OSError as error:
        raise _unwatched(error) from error


def _unwatched(error: OSError) -> DeploymentFailed:
    hint = "raise fs.inotify.max_user_instances and max_user_watches, or give --no-reload"
    return DeploymentFailed(f"files can't be watched: {error.strerror}", hint)
