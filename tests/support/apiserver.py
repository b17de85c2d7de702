"""The API server in this process, in front of deployments whose control plane and services are processes of a test."""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from anyio.from_thread import start_blocking_portal

from tests.support.raw import FAIL_S
from tests.support.server import ServerProcess, start_control_plane, start_server, start_worker
from wakeq_control.apiserver.server import listen, open_apiserver
from wakeq_control.apiserver.settings import Settings
from wakeq_control.deploy.base import Deployment, ServiceStatus
from wakeq_control.deploy.config import DeploymentConfig
from wakeq_control.deploy.errors import DeploymentExists, DeploymentNotFound

FILE = """\
name: {name}
control-plane: {{}}
default-service: wf
services:
  wf: {{name: Flow, source: {{type: local, name: .}}, path: 'worker_flows:flow'}}
"""

ANSWER = {"__is_pydantic": True, "qualified_name": "workflows.events.HumanResponseEvent"}
"""An event that a human answers with, but for its value."""


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
        closing(listen(given)) as listener,
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(open_apiserver(deployments, given, listener)) as url,
    ):
        yield ApiServer(url, deployments)


def upload(http: httpx.Client, name: str, headers: dict[str, str] | None = None, **params: Any) -> httpx.Response:
    files = {"config_file": FILE.format(name=name)}
    return http.post("/deployments/create", files=files, params=params, headers=headers)


def task(service: str | None = None, field: str = "service_id", /, **arguments: Any) -> dict[str, Any]:
    """As clients send it."""
    return {"input": json.dumps(arguments), "task_id": "theirs", "session_id": None, field: service}


@dataclass(frozen=True)
class Served:
    """A deployment `echoes` on an API server."""

    server: ApiServer
    control_plane: ServerProcess
    http: httpx.Client

    def run(self, *service: str, session: str | None = None, **arguments: Any) -> httpx.Response:
        params = {} if session is None else {"session_id": session}
        return self.http.post("/deployments/echoes/tasks/run", json=task(*service, **arguments), params=params)

    def create(self, **arguments: Any) -> tuple[str, dict[str, str]]:
        made = self.http.post("/deployments/echoes/tasks/create", json=task(**arguments)).json()
        return f"/deployments/echoes/tasks/{made['task_id']}", {"session_id": made["session_id"]}

    def sessions(self) -> list[str]:
        return [one["session_id"] for one in self.http.get("/deployments/echoes/sessions").json()]


@contextmanager
def start_deployment(directory: Path) -> Iterator[Served]:
    """A queue, a control plane, a worker and an API server in front of them."""
    with (
        start_server(directory / "queue") as queue,
        start_control_plane(queue, directory / "control", durability="memory") as control_plane,
        start_worker(control_plane, "tests.e2e.worker_flows:flow"),
        start_apiserver(queue, control_plane) as server,
        httpx.Client(base_url=server.url, timeout=FAIL_S) as http,
    ):
        assert upload(http, "echoes").json() == {"name": "echoes"}
        yield Served(server, control_plane, http)
