"""All deployments of one process, which end with it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import structlog

from wakeq_control.deploy.config import DeploymentConfig
from wakeq_control.deploy.deployment import Found, RunningDeployment
from wakeq_control.deploy.errors import DeploymentExists, DeploymentNotFound
from wakeq_control.deploy.options import Options

_log: Any = structlog.get_logger("wakeq.deploy")


class LocalDeployments:
    """`wakeq_control.deploy.base.Deployments`, on this machine; made by `open_deployments`."""

    def __init__(self, options: Options, tasks: anyio.abc.TaskGroup) -> None:
        self._options = options
        self._tasks = tasks
        self._running: dict[str, RunningDeployment] = {}
        self._changing = anyio.Lock()

    async def deploy(
        self, config: DeploymentConfig, base_path: Path, *, reload: bool = False, found: Found = lambda paths: None
    ) -> RunningDeployment:
        """Start a deployment, or replace the services of the one that runs by that name."""
        for note in config.notes:
            _log.warning(note)
        async with self._changing:
            if reload:
                deployment = self.get(config.name)
                await deployment.reload(config, base_path, found)
            else:
                if config.name in self._running:
                    raise DeploymentExists(config.name)
                deployment = RunningDeployment(config.name, self._options, self._tasks)
                await deployment.start(config, base_path, found)
                self._running[config.name] = deployment
        _log.info(
            "reloaded" if reload else "deployed",
            deployment=config.name,
            control_plane=deployment.control_plane_url,
            queue=deployment.queue_url,
            services=[service.name for service in deployment.services()],
        )
        return deployment

    def get(self, name: str) -> RunningDeployment:
        """The one of that name. Raises DeploymentNotFound."""
        try:
            return self._running[name]
        except KeyError:
            raise DeploymentNotFound(name) from None

    def list(self) -> Sequence[RunningDeployment]:
        """All of them, the oldest first."""
        return [*self._running.values()]

    async def remove(self, name: str) -> None:
        """Stop one. Raises DeploymentNotFound."""
        async with self._changing:
            await self.get(name).stop(self._options.grace_s)
            del self._running[name]
        _log.info("removed", deployment=name)

    async def stop(self) -> None:
        """Stop all of them; returns when no process is left."""
        async with self._changing, anyio.create_task_group() as tasks:
            for deployment in self._running.values():
                tasks.start_soon(deployment.stop, self._options.grace_s)
            self._running.clear()


@asynccontextmanager
async def open_deployments(options: Options) -> AsyncIterator[LocalDeployments]:
    """An empty set of deployments. They are stopped on the way out; a cancellation kills them."""
    async with anyio.create_task_group() as tasks:
        deployments = LocalDeployments(options, tasks)
        yield deployments
        await deployments.stop()
        tasks.cancel_scope.cancel()
