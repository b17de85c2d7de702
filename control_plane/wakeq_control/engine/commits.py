"""Group commit: whoever waits for the disk shares one transaction, and the next gathers meanwhile.

What was decided is told, and sent to others, when it is stored; in the order in which it was decided. What nobody waits
for rides along, and makes a commit of its own only when no other has come within `RIDE_S`. A store that fails ends the
server (`StorageFailed` comes out of `run`): its memory is ahead of its disk then, and a restart isn't.
"""

from collections.abc import Callable
from functools import partial

import anyio
from anyio.lowlevel import checkpoint

from wakeq._serving.offload import Offload
from wakeq_control.model import Effects
from wakeq_control.state.base import StateStore

RIDE_S = 0.025


class _Batch:
    __slots__ = ("done", "effects", "urgent")

    def __init__(self) -> None:
        self.effects: list[Effects] = []
        self.urgent = False
        """Whether somebody may wait for some of it."""
        self.done = anyio.Event()


class Commits:
    """The one writer of a store."""

    def __init__(self, store: StateStore, stored: Callable[[Effects], None], offload: Offload) -> None:
        """``stored`` is called with each decision's effects when its changes are durable."""
        self._store = store
        self._stored = stored
        self._offload = offload
        self._open = _Batch()
        self._writing: _Batch | None = None
        self._news: anyio.Event | None = None
        """What `run` sleeps by."""

    def submit(self, effects: Effects) -> None:
        """Store this with the next commit."""
        self._open.effects.append(effects)
        self._open.urgent = True
        self._wake()

    def ride(self, effects: Effects) -> None:
        """Store this soon, with what others submit; nobody will ever wait for it, or be told of it."""
        self._open.effects.append(effects)
        self._wake()

    async def settled(self) -> None:
        """Return when everything that has been decided so far, and may be waited for, is durable."""
        if self._open.urgent:
            await self._open.done.wait()
        elif self._writing is not None and self._writing.urgent:
            await self._writing.done.wait()

    async def finished(self) -> None:
        """Return when all of it is durable, what rides along too."""
        if self._open.effects:
            self._open.urgent = True
            self._wake()
        await self.settled()

    async def run(self) -> None:
        """Write batches, for ever. Raises StorageFailed."""
        while True:
            if self._open.effects:
                # Who was told of the last commit may have something for this one.
                await checkpoint()
            while not self._open.effects:
                await self._sleep()
            if not self._open.urgent:
                with anyio.move_on_after(RIDE_S):
                    while not self._open.urgent:
                        await self._sleep()
            await self.flush()

    async def _sleep(self) -> None:
        self._news = anyio.Event()
        await self._news.wait()

    def _wake(self) -> None:
        news, self._news = self._news, None
        if news is not None:
            news.set()

    async def flush(self) -> None:
        """Write what there is."""
        batch = self._writing = self._open
        self._open = _Batch()
        changes = [change for effects in batch.effects for change in effects.changes]
        if changes:
            # Which is not cancelled half-way.
            await self._offload(partial(self._store.commit, changes))
        self._writing = None
        for effects in batch.effects:
            self._stored(effects)
        batch.done.set()
