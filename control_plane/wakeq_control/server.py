"""The control plane on uvicorn, until it is told to stop."""

import contextlib
import signal
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import structlog
import uvicorn

from wakeq._serving import quiet
from wakeq._serving.hosts import is_loopback
from wakeq._serving.phrases import PhrasedProtocol
from wakeq._serving.quiet import BACKLOG, KEEP_ALIVE_S, QuietServer
from wakeq_control.app import open_app
from wakeq_control.errors import StartupError, StorageFailed, first_of
from wakeq_control.http.routes import App
from wakeq_control.settings import Settings

_log: Any = structlog.get_logger("wakeq.control")
_FINISH_S = 5
"""How long answers that are being written have after a signal."""


class _Server(QuietServer):
    """Runs until it is told to stop, then ends the waits."""

    def __init__(self, config: uvicorn.Config, app: App, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._app = app
        self._announce = announce

    async def main_loop(self) -> None:
        """Wait for SIGTERM or SIGINT."""
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            # Whoever reads it connects at once, and may send the signal at once.
            self._announce()
            await anext(signals)
        _log.info("stopping")
        self._app.lot.stop()


async def serve(settings: Settings, version: str) -> None:
    """Run the control plane until it is told to stop. Raises StartupError, and StorageFailed when it can't go on."""
    try:
        listener = quiet.listen(settings.host, settings.port, lambda listener: None)
    except OSError as error:
        raise StartupError(
            f"can't listen on {settings.host}:{settings.port}: {error.strerror or error}",
            "is another server running there? name another port with --port, or 0 for a free one",
        ) from error
    try:
        with contextlib.closing(listener):
            await _serve(settings, version, listener)
    except* (StartupError, StorageFailed) as group:
        raise first_of(group) from None


async def _serve(settings: Settings, version: str, listener: socket.socket) -> None:
    async with open_app(settings, listener.getsockname()[1], version) as app:
        config = uvicorn.Config(
            app, http=PhrasedProtocol, ws="none", lifespan="off", access_log=False, log_config=None,
            server_header=False, proxy_headers=False, backlog=BACKLOG, timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=_FINISH_S,
        )  # fmt: skip
        await _Server(config, app, partial(_announce, settings, listener)).serve(sockets=[listener])
    _log.info("stopped")


def _announce(settings: Settings, listener: socket.socket) -> None:
    kept = "nothing is kept" if settings.durability == "memory" else str(settings.data)
    _log.info("listening", url=quiet.shown_url(listener), queue=settings.queue, data=kept)
    host = listener.getsockname()[0]
    if not is_loopback(host):
        meaning = "anyone who reaches it can use it: it asks for no token"
        _log.warning("listening beyond this machine", address=host, meaning=meaning)
