"""The queue server on uvicorn; what differs in its connections stands in `connection.py`."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import anyio
import structlog
import uvicorn

from wakeq._serving import quiet
from wakeq._serving.hosts import is_loopback
from wakeq._serving.process import tune_process
from wakeq._serving.quiet import KEEP_ALIVE_S, QuietServer
from wakeq._serving.sending import Turn
from wakeq._serving.stopping import Stops, signals
from wakeq_server.app import open_app
from wakeq_server.connection import Connection
from wakeq_server.engine.base import Engine
from wakeq_server.errors import StartupError
from wakeq_server.heads import Heads
from wakeq_server.http.routes import App
from wakeq_server.idle import Idle
from wakeq_server.settings import Settings
from wakeq_server.tcp import set_timeouts

_FULL_COLLECTIONS = 1_000
"""Seldom, after five million objects that stayed: with CPython's own thresholds, parking 10,000 requests is mostly
walking them. So nothing that comes and goes may be in a cycle when it goes, since no other collection finds what has
become old."""

_log = structlog.get_logger("wakeq.server")


class _Server(QuietServer):
    """Runs until it is told to stop, then drains."""

    def __init__(
        self, config: uvicorn.Config, engine: Engine, drain_s: float, stops: Stops, announce: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._engine = engine
        self._drain_s = drain_s
        self._stops = stops
        self._announce = announce

    async def main_loop(self) -> None:
        """Wait to be told, then hand out no more and wait for what is out."""
        with self._stops() as told:
            # Whoever reads it connects at once, and may send the signal at once.
            self._announce()
            await anext(told)
            _log.info("draining", seconds=self._drain_s, parked=self._engine.parked())
            self._engine.drain()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._hurry_when_told_again, told, tasks.cancel_scope)
                with anyio.move_on_after(self._drain_s):
                    await self._engine.leases_ended()
                tasks.cancel_scope.cancel()

    async def _hurry_when_told_again(self, told: AsyncIterator[object], scope: anyio.CancelScope) -> None:
        await anext(told)
        self.force_exit = True
        scope.cancel()


class _Task(asyncio.Task[Any]):
    """A task whose repr is short.

    anyio puts the canceller's into the reason of every cancellation, and to wake a parked consumer is to cancel its
    scope. asyncio's own, which looks into the coroutine's source, is a tenth of a wake.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<task {self.get_name()}>"


def _make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> _Task:
    return _Task(coroutine, loop=loop, **more)


def configure(app: App, settings: Settings) -> uvicorn.Config:
    """uvicorn's settings, for connections of ours."""
    loop = asyncio.get_running_loop()
    turn, idle = Turn(loop.call_soon), Idle(loop, KEEP_ALIVE_S)
    connect: Any = partial(Connection, settings=settings, turn=turn, idle=idle, heads=Heads())
    return quiet.configure(app, connect)


async def serve(
    settings: Settings, version: str, *, stops: Stops = signals, listening: Callable[[str], None] = lambda url: None
) -> None:
    """Run the queue server until it is told to stop and has drained. Raises StartupError.

    ``listening`` is told where it listens, as soon as it does.
    """
    asyncio.get_running_loop().set_task_factory(_make_task)
    listener = quiet.listen(settings.host, settings.port, StartupError, prepare=set_timeouts)
    with contextlib.closing(listener):
        async with open_app(settings, version) as (engine, app):
            files = tune_process(full=_FULL_COLLECTIONS)

            def announce() -> None:
                _announce(settings, listener, files, has_token=app.has_token)
                listening(quiet.shown_url(listener))

            server = _Server(configure(app, settings), engine, settings.drain, stops, announce)
            await server.serve(sockets=[listener])
    _log.info("stopped")


def _announce(settings: Settings, listener: socket.socket, files: int, *, has_token: bool) -> None:
    host = listener.getsockname()[0]
    kept = "nothing is kept" if settings.durability == "memory" else str(settings.data)
    _log.info("listening", url=quiet.shown_url(listener), durability=settings.durability, data=kept, open_files=files)
    if is_loopback(host):
        return
    if has_token:
        meaning = "whoever has the token can use it, and whoever is on the way can read it: nothing is encrypted"
        _log.info("listening beyond this machine", address=host, meaning=meaning)
    else:
        meaning = "anyone who reaches it can use it: it asks for no token"
        _log.warning(
            "listening beyond this machine", address=host, meaning=meaning, remedy="--token-file FILE, or WAKEQ_TOKEN"
        )
