"""Deployments themselves: what runs, and what is to run."""

from functools import partial
from pathlib import Path
from typing import Any

import structlog
from anyio.abc import TaskGroup
from pydantic import TypeAdapter, ValidationError

from wakeq import __version__
from wakeq_control.apiserver.errors import DeploymentRefused
from wakeq_control.apiserver.forms import file_of
from wakeq_control.apiserver.guard import Guard
from wakeq_control.apiserver.outcome import Outcome
from wakeq_control.deploy.base import Deployment, Deployments
from wakeq_control.deploy.config import DeploymentConfig, read_config
from wakeq_control.deploy.errors import DeploymentError
from wakeq_control.errors import InvalidBody
from wakeq_control.http.held import Lot
from wakeq_control.http.wire import Request, Response, answer

FIELD = "config_file"
"""The form's field that has the deployment file."""
_FILE = "the deployment file"
_BOOL = TypeAdapter(bool)
_log: Any = structlog.get_logger("wakeq.apiserver")


class DeploymentCalls:
    """The calls about deployments."""

    def __init__(self, deployments: Deployments, guard: Guard, lot: Lot, running: TaskGroup) -> None:
        """``running``: where a deploy goes on that its client doesn't wait for."""
        self._deployments = deployments
        self._guard = guard
        self._lot = lot
        self._running = running

    async def home(self, request: Request) -> Response:
        """Where to look further."""
        host = request.headers.get(b"host", b"").decode("latin-1")
        return answer({"status": f"http://{host}/status"})

    async def status(self, request: Request) -> Response:
        """How the server is, in llama_deploy's words."""
        names = [deployment.name for deployment in self._deployments.list()]
        return answer({"status": "Healthy", "status_message": "", "max_deployments": None, "deployments": names})

    async def health(self, request: Request) -> Response:
        """Whether the process runs."""
        return answer({"status": "ok", "version": __version__})

    async def list(self, request: Request) -> Response:
        """All deployments."""
        return answer([{"name": deployment.name} for deployment in self._deployments.list()])

    async def get(self, request: Request, name: str) -> Response:
        """One, and how its services are."""
        return answer(_shown(self._deployments.get(name)))

    async def create(self, request: Request) -> Response:
        """Start what an uploaded file describes, or with `reload` replace its services.

        It goes on when the client gives up: what was begun is not left half done.
        """
        self._guard.check_deploy(request.headers, request.client)
        body = await request.body()
        reload = _flag(request, "reload")
        # Sources are always used where they are.
        _flag(request, "local")
        content = file_of(request.headers.get(b"content-type", b""), body, FIELD)
        config = read_config(content, _FILE)
        base_path = Path(request.parameter("base_path") or ".")
        outcome = Outcome[None]()
        self._running.start_soon(outcome.by, partial(self._deploy, config, base_path, reload))
        await self._lot.attend(request, outcome.wait)
        return answer({"name": config.name})

    async def _deploy(self, config: DeploymentConfig, base_path: Path, reload: bool) -> None:
        try:
            await self._deployments.deploy(config, base_path, reload=reload)
        except DeploymentError as error:
            # Its client may have given up.
            _log.warning("not deployed", deployment=config.name, reason=error.detail)
            raise DeploymentRefused(error) from error


def _flag(request: Request, name: str) -> bool:
    try:
        return _BOOL.validate_python(request.parameter(name) or False)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False)
        raise InvalidBody([{**one, "loc": ["query", name]} for one in wrong]) from None


def _shown(deployment: Deployment) -> dict[str, object]:
    return {
        "name": deployment.name,
        "default_service": deployment.default_service,
        "control_plane_url": deployment.control_plane_url,
        "queue_url": deployment.queue_url,
        "services": [service._asdict() for service in deployment.services()],
    }
