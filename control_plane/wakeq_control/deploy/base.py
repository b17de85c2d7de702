"""What running deployments are to whoever serves them: `wakeq deploy` and the API server.

    async with open_deployments(...) as deployments:
        config = read_config(content, "quick_start.yml")
        deployment = await deployments.deploy(config, Path("."))

Sessions and tasks of a deployment go through its own control plane, at ``control_plane_url``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from wakeq_control.deploy.config import DeploymentConfig

ServiceState = Literal["starting", "running", "restarting"]


class ServiceStatus(NamedTuple):
    """How a service is doing."""

    name: str
    state: ServiceState
    """``running`` from the moment it takes tasks; ``restarting`` while its next start is waited for."""
    pid: int | None
    restarts: int
    """How often it has died and was started again, since it was deployed or reloaded."""


class Deployment(Protocol):
    """One that runs. What it says is true at the moment it is read."""

    @property
    def name(self) -> str:
        """As its file has it."""

    @property
    def default_service(self) -> str | None:
        """Where tasks go that name no service."""

    @property
    def control_plane_url(self) -> str:
        """Where its sessions and tasks are."""

    @property
    def queue_url(self) -> str:
        """Where its messages are."""

    def services(self) -> Sequence[ServiceStatus]:
        """Its services, as the file orders them."""


class Deployments(Protocol):
    """All that run, by name. Calls that change them happen one after the other."""

    async def deploy(self, config: DeploymentConfig, base_path: Path, *, reload: bool = False) -> Deployment:
        """Start a deployment, or with ``reload`` replace the services of the one that runs by that name.

        Returns when all services take tasks. Relative paths of ``config`` start at ``base_path``. Raises
        InvalidDeployment, DeploymentFailed, DeploymentExists, and with ``reload`` DeploymentNotFound.
        """

    def get(self, name: str) -> Deployment:
        """The one of that name. Raises DeploymentNotFound."""

    def list(self) -> Sequence[Deployment]:
        """All of them, the oldest first."""

    async def remove(self, name: str) -> None:
        """Stop one; returns when none of its processes is left. Raises DeploymentNotFound."""
