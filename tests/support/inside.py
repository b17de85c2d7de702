"""A real queue server in a thread of this process: real sockets, and what it holds can be looked at."""

import asyncio
import gc
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import uvicorn
import uvloop

from tests.support.raw import call, wait_until
from wakeq._serving import quiet
from wakeq_server.app import open_app
from wakeq_server.arrival import Arrival
from wakeq_server.connection import Connection
from wakeq_server.engine.base import Engine
from wakeq_server.errors import StartupError
from wakeq_server.exchange import Exchange
from wakeq_server.http.intake import Body
from wakeq_server.http.routes import App
from wakeq_server.server import configure
from wakeq_server.settings import Settings
from wakeq_server.tcp import set_timeouts

START_S = 20.0
_OF_A_REQUEST = (Connection, Exchange, Arrival, Body)

_Value = TypeVar("_Value")


class InsideServer:
    """Where it listens, and what it holds just now."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._listener = quiet.listen("127.0.0.1", 0, StartupError, prepare=set_timeouts)
        self.host, self.port = self._listener.getsockname()[:2]
        self._engine: Engine
        self._app: App
        self._server: uvicorn.Server
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(START_S)

    async def _serve(self) -> None:
        async with open_app(self._settings, "0") as (self._engine, self._app):
            config = configure(self._app, self._settings)
            self._server = uvicorn.Server(config)
            config.load()
            self._loop = asyncio.get_running_loop()
            self._ready.set()
            await self._server.serve(sockets=[self._listener])

    def stop(self) -> None:
        """End it, and its thread."""
        self._server.should_exit = True
        self._thread.join(START_S)
        assert not self._thread.is_alive()
        self._listener.close()

    def look(self, question: Callable[[], _Value]) -> _Value:
        """Ask something between two turns of the server's loop."""
        answer: Future[_Value] = Future()
        self._loop.call_soon_threadsafe(lambda: answer.set_result(question()))
        return answer.result(START_S)

    def of_each(self, question: Callable[[Connection], _Value]) -> list[_Value]:
        """Ask something of each open connection."""
        return self.look(lambda: [question(one) for one in self._server.server_state.connections])  # type: ignore[arg-type]

    def wait_quiet(self) -> None:
        """Wait until all connections and requests have ended, and see that nothing of them is left."""
        # Connections are accepted in their order, so all that were made before have been when this one is answered.
        call(self, "GET", "/healthz")
        wait_until(lambda: not self.look(self._is_busy))
        held = self.held()
        assert not held, f"still there: {held}"

    def _is_busy(self) -> bool:
        state = self._server.server_state
        return bool(state.connections or state.tasks or self._engine.parked())

    def held(self) -> dict[str, int]:
        """What of requests there is that is not 0: parked, in flight, and objects that nobody has let go."""

        def count() -> dict[str, int]:
            # Without collecting garbage: a server hardly ever does, of what is old, so there mustn't be any.
            found = Counter(type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, _OF_A_REQUEST))
            found["parked"] = self._engine.parked()
            found["body bytes"] = self._app._intake.bytes
            found["tasks"] = len(self._server.server_state.tasks)
            return {name: number for name, number in found.items() if number}

        return self.look(count)


@contextmanager
def start_inside(data: Path, **settings: object) -> Iterator[InsideServer]:
    """A server on a free port, ended on the way out."""
    given = {"data": data, "durability": "memory", "legacy_heartbeat": 0.0} | settings
    server = InsideServer(Settings(**given))  # type: ignore[arg-type]
    try:
        yield server
    finally:
        server.stop()
