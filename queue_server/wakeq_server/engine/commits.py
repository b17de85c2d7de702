"""Group commit: everybody who waits for the disk shares one transaction.

Transactions gather in the open batch. The writer closes it, has one thread write it as one store transaction, and
tells everybody; meanwhile the next batch fills. So the disk is never waited for twice, and the busier it gets, the
more share a sync.

What nobody waits for (legacy acks, records of leases) rides along, and makes a commit of its own only when no
other has come within `RIDE_S`.
"""

from collections.abc import Callable
from functools import partial

import anyio

from wakeq._serving.offload import Offload
from wakeq_server.core.model import Record
from wakeq_server.core.queue import QueueCore
from wakeq_server.core.transactions import Decided, Transaction, WriteHistory
from wakeq_server.engine.clocks import Clocks
from wakeq_server.errors import StorageError, StorageFailed, StorageFull, fresh
from wakeq_server.store.base import Store

RIDE_S = 0.025
YOUNG_S = 0.025
"""Leases so young are mostly settled before they need be written: a fast consumer's then never are."""
RETRY_S = 0.25
"""After so long what rides along is tried again where it was refused, and a full disk is looked at again."""


class Batch:
    """Transactions that will be durable together."""

    __slots__ = ("done", "transactions")

    def __init__(self) -> None:
        self.transactions: list[Transaction] = []
        self.done = anyio.Event()


class GroupCommit:
    """The one writer of a store."""

    def __init__(
        self, store: Store, core: QueueCore, clocks: Clocks, offload: Offload, applied: Callable[[bool], None]
    ) -> None:
        """``applied`` is called when the core knows the outcome of a batch; True: storage works again."""
        self._store = store
        self._core = core
        self._clocks = clocks
        self._offload = offload
        self._applied = applied
        self._open = Batch()
        self._writing: Batch | None = None
        self._something = anyio.Event()
        self._urgent = anyio.Event()
        self.failure: StorageError | None = StorageFull() if store.full else None
        """What the store refused last, or would, and has not been seen to take since."""
        self._ride_s = RIDE_S
        self.took_s = 0.0
        """How long the last write took, sync included."""

    def submit(self, transaction: Transaction) -> None:
        """Write this with the next commit; nobody waits."""
        self._open.transactions.append(transaction)
        self._something.set()

    def ride(self) -> None:
        """There is something about leases to be written, soon."""
        self._something.set()

    async def write(self, transaction: Transaction) -> None:
        """Write this, and wait for it. Raises what the store raised for this transaction."""
        batch = self._open
        self.submit(transaction)
        self._urgent.set()
        await batch.done.wait()
        if transaction.error is not None:
            raise fresh(transaction.error)

    async def written(self) -> None:
        """Wait for everything that has been submitted so far."""
        if self._open.transactions:
            self._urgent.set()
            await self._open.done.wait()
        elif self._writing is not None:
            await self._writing.done.wait()

    async def run(self) -> None:
        """Write batches, for ever."""
        while True:
            await self._wait_for_something()
            if not self._urgent.is_set():
                with anyio.move_on_after(self._ride_s):
                    await self._urgent.wait()
            await self.flush(urgent=self._urgent.is_set())

    async def _wait_for_something(self) -> None:
        if isinstance(self.failure, StorageFull):
            with anyio.move_on_after(RETRY_S):
                await self._something.wait()
            if not self._something.is_set():
                # Whoever waits for room, or looks at the health, must not depend on somebody else's writing.
                self.submit(Decided())
        await self._something.wait()

    async def flush(self, *, urgent: bool = False) -> None:
        """Write what there is; ``urgent``: of leases only what nobody is likely to end in a moment."""
        batch = self._writing = self._open
        self._open = Batch()
        self._something = anyio.Event()
        self._urgent = anyio.Event()
        self._add_history(batch, young=urgent)
        # Not cancelled half-way: the thread would go on and its outcome be lost.
        errors: list[StorageError | None] = []
        with anyio.CancelScope(shield=True):
            if batch.transactions:
                # As they are meant now, not when the thread comes to it.
                rows = [list(transaction.records()) for transaction in batch.transactions]
                errors = await self._offload(partial(self._write, batch.transactions, rows))
        self._tell(batch, errors)
        before, self.failure = self.failure, self._failure(errors)
        refused = any(isinstance(one, WriteHistory) and one.error is not None for one in batch.transactions)
        self._ride_s = RETRY_S if refused else RIDE_S
        self._writing = None
        batch.done.set()
        self._applied(before is not None and self.failure is None)

    def _add_history(self, batch: Batch, *, young: bool) -> None:
        """What the store doesn't know of leases goes first in the batch; ``young`` ones may wait for another."""
        if any(transaction.needs_history for transaction in batch.transactions):
            young = False
        now = self._clocks.now()
        history = self._core.write_history(now, self._clocks.wall(), since=now - YOUNG_S if young else None)
        if history is not None:
            batch.transactions.insert(0, history)
        if self._core.changed:
            self._something.set()

    def _failure(self, errors: list[StorageError | None]) -> StorageError | None:
        refused = next((error for error in errors if error is not None), None)
        if refused is not None:
            return refused
        # Settles are taken on a full disk; that says nothing of publishes.
        still_full = self._store.full and isinstance(self.failure, StorageFull)
        return self.failure if still_full or not errors else None

    def _tell(self, batch: Batch, errors: list[StorageError | None]) -> None:
        now = self._clocks.now()
        for transaction, error in zip(batch.transactions, errors, strict=True):
            if error is None:
                transaction.commit(now)
            else:
                transaction.abort(error, now)

    def _write(self, transactions: list[Transaction], rows: list[list[Record]]) -> list[StorageError | None]:
        """In the thread: all at once, and if that fails, each by itself, so that one bad row fails one request."""
        started = self._clocks.timer()
        error = self._try(rows)
        self.took_s = self._clocks.timer() - started
        if error is None or len(transactions) == 1:
            return [error] * len(transactions)
        return self._each(transactions, rows)

    def _each(self, transactions: list[Transaction], rows: list[list[Record]]) -> list[StorageError | None]:
        errors: list[StorageError | None] = []
        without_history: StorageError | None = None
        for transaction, records in zip(transactions, rows, strict=True):
            if without_history is not None and transaction.needs_history:
                errors.append(without_history)
                continue
            errors.append(self._try([records]))
            if isinstance(transaction, WriteHistory):
                without_history = errors[-1]
        return errors

    def _try(self, rows: list[list[Record]]) -> StorageError | None:
        try:
            self._store.commit(rows)
        except StorageError as error:
            return error
        except Exception as error:
            return StorageFailed(f"a change can't be stored: {error!r}")
        return None
