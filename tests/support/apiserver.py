"""The API server in this process, in front of deployments whose control plane and services are processes of a test."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from anyio.from_thread import start_blocking_portal

from tests.support.server import ServerProcess
from wakeq_control.apiserver.server import open_apiserver
from wakeq_control.apiserver.settings import Settings
from wakeq_control.deploy.base import Deployment, ServiceStatus
from wakeq_control.deploy.config import DeploymentConfig
from wakeq_control.deploy.errors import DeploymentExists, DeploymentNotFound


@dataclass(frozen=True)
class Standing:
    """A deployment that is there already."""

    name: str
    control_plane_url: str
    queue_url: str
    default_service: str | None = None
    names: tuple[str, ...] = ()

    def services(self) -> Sequence[ServiceStatus]:
        return [ServiceStatus(name, "running", None, 0) for name in self.names]


@dataclass
class StandingDeployments:
    """Deployments on processes that a test has started: to deploy one is to give it a name."""

    control_plane_url: str
    queue_url: str
    known: dict[str, Deployment] = field(default_factory=dict)
    deployed: list[tuple[str, Path, bool]] = field(default_factory=list)
    """What was asked for: the name, the base path, and whether to reload."""

    async def deploy(self, config: DeploymentConfig, base_path: Path, *, reload: bool = False) -> Deployment:
        if reload and config.name not in self.known:
            raise DeploymentNotFound(config.name)
        if not reload and config.name in self.known:
            raise DeploymentExists(config.name)
        self.deployed.append((config.name, base_path, reload))
        names = tuple(config.services)
        made = Standing(config.name, self.control_plane_url, self.queue_url, config.default_service, names)
        self.known[config.name] = made
        return made

    def get(self, name: str) -> Deployment:
        if name not in self.known:
            raise DeploymentNotFound(name)
        return self.known[name]

    def list(self) -> Sequence[Deployment]:
        return list(self.known.values())

    async def remove(self, name: str) -> None:
        if self.known.pop(name, None) is None:
            raise DeploymentNotFound(name)


class ApiServer:
    """A running API server."""

    def __init__(self, url: str, deployments: StandingDeployments) -> None:
        self.url = url
        self.deployments = deployments
        parts = urlsplit(url)
        self.host, self.port = str(parts.hostname), int(parts.port or 0)


@contextmanager
def start_apiserver(queue: ServerProcess, control_plane: ServerProcess, **settings: object) -> Iterator[ApiServer]:
    """An API server on a free port, in a thread of this process."""
    deployments = StandingDeployments(control_plane.url, queue.url)
    given = Settings.model_validate({"port": 0, **settings})
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(open_apiserver(deployments, given)) as url,
    ):
        yield ApiServer(url, deployments)
