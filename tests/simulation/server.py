"""One run of the server, from its start on what the disk has to its end, clean or not."""

import asyncio
from collections.abc import Callable
from random import Random

import anyio

from tests.simulation.disk import Disk, SlowCalls, WatchedStore
from tests.simulation.loop import VirtualLoop
from tests.simulation.model import Violated
from wakeq_server.core.model import Record
from wakeq_server.engine.clocks import Clocks
from wakeq_server.engine.embedded import EmbeddedEngine, open_engine

RESTS_WITHIN = 5_000


class Server:
    """An engine in a task of its own."""

    engine: EmbeddedEngine

    def __init__(
        self,
        loop: VirtualLoop,
        disk: Disk,
        rng: Random,
        committed: Callable[[list[list[Record]]], None],
        *,
        ahead: float,
        memory_budget: int,
    ) -> None:
        self.store = WatchedStore(disk.open(), committed, disk.tear)
        self.calls = SlowCalls()
        self._loop = loop
        self._disk = disk
        self._clocks = Clocks(lambda: loop.time() + ahead, loop.time, loop.time)
        self._jitter = lambda: rng.randrange(64) / 64
        self._memory_budget = memory_budget
        self._scope = anyio.CancelScope()
        self._stop = anyio.Event()
        self._started = False
        self._task = loop.create_task(self._serve())

    async def _serve(self) -> None:
        with self._scope:
            opened = open_engine(
                self.store, self._clocks, self._jitter, self._memory_budget, writing=self.calls, reading=self.calls
            )
            async with opened as engine:
                self.engine, self._started = engine, True
                await self._stop.wait()

    def check_alive(self) -> None:
        """Raises what has ended the engine."""
        if self._task.done() and not self._task.cancelled() and self._task.exception() is not None:
            raise Violated(f"the engine ended by {self._task.exception()!r}") from self._task.exception()

    async def rest(self) -> None:
        """Run until nobody can, before time moves."""
        for _ in range(RESTS_WITHIN):
            await asyncio.sleep(0)
            if self._loop.idle():
                self.check_alive()
                return
        raise Violated("the engine never comes to rest")

    async def start(self) -> None:
        """Load what the disk has."""
        while not self._started:
            await self.rest()
            if not self._started:
                self.calls.finish()
        await self.rest()

    @property
    def full(self) -> bool:
        """Whether nothing waits for the disk."""
        return not self.calls.running and not self.engine._commits._open.transactions

    @property
    def failing(self) -> bool:
        """Whether the engine knows that its disk fails, or did when it was last asked."""
        return self.engine.trouble is not None

    async def stop(self) -> None:
        """Write what is left, and close."""
        self._stop.set()
        while not self._task.done():
            await self.rest()
            self.calls.finish()
        self.check_alive()

    async def crash(self, commits_left: int) -> None:
        """End without another word; ``commits_left``: how many commits still reach the disk."""
        self.store.commits_left = commits_left
        self.calls.finish()
        await self.rest()
        self.store.dead = True
        self._disk.crash()
        self.calls.finish_all()
        self._scope.cancel()
        while not self._task.done():
            await self.rest()
