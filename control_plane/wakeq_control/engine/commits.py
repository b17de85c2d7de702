"""Group commit: whoever waits for the disk shares one transaction, and the next gathers meanwhile.

What was decided is told, and sent to others, when it is stored; in the order in which it was decided. A store that
fails ends the server (`StorageFailed` comes out of `run`): its memory is ahead of its disk then, and a restart isn't.
"""

from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import anyio.to_thread

from wakeq_control.model import Effects
from wakeq_control.state.base import StateStore

Offload = Callable[[Callable[[], None]], Awaitable[None]]
"""Makes a call that blocks, where it blocks nobody. A test decides by itself when it ends."""


class _Batch:
    __slots__ = ("done", "effects")

    def __init__(self) -> None:
        self.effects: list[Effects] = []
        self.done = anyio.Event()


class Commits:
    """The one writer of a store."""

    def __init__(
        self, store: StateStore, stored: Callable[[Effects], None], offload: Offload = anyio.to_thread.run_sync
    ) -> None:
        """``stored`` is called with each decision's effects when its changes are durable."""
        self._store = store
        self._stored = stored
        self._offload = offload
        self._open = _Batch()
        self._writing: _Batch | None = None
        self._something = anyio.Event()

    def submit(self, effects: Effects) -> None:
        """Store this with the next commit; nobody waits."""
        self._open.effects.append(effects)
        self._something.set()

    async def settled(self) -> None:
        """Return when everything that has been decided so far is durable."""
        batch = self._open if self._open.effects else self._writing
        if batch is not None:
            await batch.done.wait()

    async def run(self) -> None:
        """Write batches, for ever. Raises StorageFailed."""
        while True:
            await self._something.wait()
            await self.flush()

    async def flush(self) -> None:
        """Write what there is."""
        batch = self._writing = self._open
        self._open = _Batch()
        self._something = anyio.Event()
        changes = [change for effects in batch.effects for change in effects.changes]
        # Not cancelled half-way: the thread would go on, and nobody would know how it ended.
        with anyio.CancelScope(shield=True):
            if changes:
                await self._offload(partial(self._store.commit, changes))
        self._writing = None
        for effects in batch.effects:
            self._stored(effects)
        batch.done.set()
