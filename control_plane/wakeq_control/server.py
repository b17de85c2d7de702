"""The control plane on uvicorn, until it is told to stop."""

import contextlib
import socket
from collections.abc import Callable
from typing import Any

import structlog
import uvicorn

from wakeq._serving import quiet
from wakeq._serving.hosts import is_loopback
from wakeq._serving.phrases import phrased
from wakeq._serving.process import tune_process
from wakeq._serving.quiet import QuietServer
from wakeq._serving.stopping import Stops, signals
from wakeq_control.app import open_app
from wakeq_control.errors import StartupError, StorageFailed, first_of
from wakeq_control.http.routes import App
from wakeq_control.settings import Settings

_log: Any = structlog.get_logger("wakeq.control")


class _Server(QuietServer):
    """Runs until it is told to stop, then ends the waits."""

    def __init__(self, config: uvicorn.Config, app: App, stops: Stops, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._app = app
        self._stops = stops
        self._announce = announce

    async def main_loop(self) -> None:
        """Wait to be told."""
        with self._stops() as told:
            # Whoever reads it connects at once, and may send the signal at once.
            self._announce()
            await anext(told)
        _log.info("stopping")
        self._app.lot.stop()


async def serve(
    settings: Settings,
    version: str,
    *,
    queue: str | None = None,
    stops: Stops = signals,
    listening: Callable[[str], None] = lambda url: None,
) -> None:
    """Run the control plane until it is told to stop. Raises StartupError, and StorageFailed when it can't go on.

    ``queue``: where the queue is reached from here, None: where services reach it. ``listening`` is told where the
    control plane listens, as soon as it does.
    """
    listener = quiet.listen(settings.host, settings.port, StartupError)
    try:
        with contextlib.closing(listener):
            port = listener.getsockname()[1]
            async with open_app(settings, port, version, queue or settings.queue) as app:
                tune_process()

                def announce() -> None:
                    _announce(settings, listener)
                    listening(quiet.shown_url(listener))

                config = quiet.configure(app, phrased())
                await _Server(config, app, stops, announce).serve(sockets=[listener])
            _log.info("stopped")
    except* (StartupError, StorageFailed) as group:
        raise first_of(group) from None


def _announce(settings: Settings, listener: socket.socket) -> None:
    kept = "nothing is kept" if settings.durability == "memory" else str(settings.data)
    _log.info("listening", url=quiet.shown_url(listener), queue=settings.queue, data=kept)
    host = listener.getsockname()[0]
    if is_loopback(host):
        return
    if settings.token is not None or settings.token_file is not None:
        meaning = "whoever has the token can use it, and whoever is on the way can read it: nothing is encrypted"
        _log.info("listening beyond this machine", address=host, meaning=meaning)
    else:
        meaning = "anyone who reaches it can use it: it asks for no token"
        remedy = "--token-file FILE, or WAKEQ_CONTROL_TOKEN"
        _log.warning("listening beyond this machine", address=host, meaning=meaning, remedy=remedy)
