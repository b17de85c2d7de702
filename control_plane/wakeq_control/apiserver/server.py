"""The API server on uvicorn, in front of deployments that run in the same process."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import structlog
import uvicorn

from wakeq._serving import quiet
from wakeq._serving.hosts import is_loopback
from wakeq._serving.phrases import phrased
from wakeq._serving.quiet import QuietServer
from wakeq_control.apiserver.deployments import DeploymentCalls
from wakeq_control.apiserver.guard import Guard
from wakeq_control.apiserver.routes import App
from wakeq_control.apiserver.sessions import SessionCalls
from wakeq_control.apiserver.settings import Settings
from wakeq_control.apiserver.tasks import TaskCalls
from wakeq_control.apiserver.upstream import ControlPlanes
from wakeq_control.deploy.base import Deployments
from wakeq_control.errors import StartupError
from wakeq_control.http.held import Lot

_log: Any = structlog.get_logger("wakeq.apiserver")


class _Server(QuietServer):
    """Runs until it is told to stop, then ends the waits."""

    def __init__(self, config: uvicorn.Config, lot: Lot, stop: anyio.Event) -> None:
        super().__init__(config)
        self._lot = lot
        self._stop = stop
        self.listening = anyio.Event()

    async def main_loop(self) -> None:
        """Wait until it is told to stop."""
        self.listening.set()
        await self._stop.wait()
        self._lot.stop()


@asynccontextmanager
async def open_app(deployments: Deployments, settings: Settings) -> AsyncIterator[App]:
    """The application; what goes on behind its answers ends with it."""
    token = None if settings.token is None else settings.token.get_secret_value()
    guard = Guard(bound_to=settings.host, allowed_hosts=settings.allowed_hosts, token=token)
    lot, planes = Lot(), ControlPlanes()
    async with anyio.create_task_group() as running:
        try:
            yield App(
                DeploymentCalls(deployments, guard, lot, running),
                SessionCalls(deployments, planes),
                TaskCalls(deployments, planes, lot, running),
                guard,
                lot,
            )
        finally:
            running.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await planes.aclose()


def listen(settings: Settings) -> socket.socket:
    """Where an API server is to answer: who comes before it does waits. Raises StartupError."""
    return quiet.listen(
        settings.host, settings.port, StartupError, host_option="WAKEQ_APISERVER_HOST", port_option="--api-port"
    )


@asynccontextmanager
async def open_apiserver(deployments: Deployments, settings: Settings, listener: socket.socket) -> AsyncIterator[str]:
    """A server that answers there as long as the block lasts, at the URL that this is.

    The deployments must outlive it: leave this block before theirs.
    """
    async with open_app(deployments, settings) as app, anyio.create_task_group() as tasks:
        stop = anyio.Event()
        server = _Server(quiet.configure(app, phrased()), app.lot, stop)
        tasks.start_soon(server.serve, [listener])
        await server.listening.wait()
        url = quiet.shown_url(listener)
        _announce(url, listener.getsockname()[0], settings)
        try:
            yield url
        finally:
            stop.set()


def _announce(url: str, host: str, settings: Settings) -> None:
    _log.info("listening", url=url, meaning="for llamactl, wakeq run and wakeq status")
    if not is_loopback(host):
        deploys = "who shows the token" if settings.token is not None else "nobody from elsewhere"
        _log.warning("listening beyond this machine", address=host, meaning="anyone can run tasks", may_deploy=deploys)
