"""The disk in simulation: keeps what was committed, and takes time, fails or crashes when told to."""

import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Protocol, TypeVar

import anyio
import anyio.lowlevel

from tests.support.stores import KeepingStore
from wakeq_server.core.model import Message, Record, Snapshot
from wakeq_server.errors import StorageError, StorageFailed
from wakeq_server.store.base import Store
from wakeq_server.store.sqlite import DATABASE, SqliteStore

T = TypeVar("T")

LOG = f"{DATABASE}-wal"
HEADER = 32
"""How long the log's header is."""
SECTOR = 512
"""What a disk writes whole or not at all."""


class Disk(Protocol):
    """What outlives a server."""

    def open(self) -> Store:
        """A store on it, for the next server."""

    def crash(self) -> None:
        """The server that has it open is dead: what it does from now on happens elsewhere."""

    def tear(self, commit: Callable[[], None]) -> bool:
        """The machine fails in the middle of a commit. Whether it is there nonetheless; else nothing of it may be."""


class MemoryDisk:
    """Committed rows in dictionaries."""

    def __init__(self) -> None:
        self._rows = KeepingStore()

    def open(self) -> Store:
        return self._rows

    def crash(self) -> None:
        pass

    def tear(self, commit: Callable[[], None]) -> bool:
        return False


class SqliteDisk:
    """A data directory. A crash is a copy of its files as they are, opened as they were found; if it came in the middle
    of a commit, some of what that had written is there, and some isn't."""

    def __init__(self, root: Path, rng: Random) -> None:
        self._root = root
        self._rng = rng
        self._number = 0
        self._torn: bytes | None = None
        """The log as the machine that failed has left it."""

    @property
    def _directory(self) -> Path:
        return self._root / str(self._number)

    def open(self) -> Store:
        return SqliteStore(self._directory, "os")

    def crash(self) -> None:
        found = self._directory
        self._number += 1
        if found.exists():
            # The -shm file is the dead server's memory.
            shutil.copytree(found, self._directory, ignore=shutil.ignore_patterns("*-shm", "lock", "reserve"))
        if self._torn is not None:
            (self._directory / LOG).write_bytes(self._torn)
            self._torn = None

    def tear(self, commit: Callable[[], None]) -> bool:
        log, database = self._directory / LOG, self._directory / DATABASE
        before, base = log.read_bytes(), database.read_bytes()
        commit()
        after = log.read_bytes()
        if after == before or database.read_bytes() != base:
            # What goes into the database is synced in the log before.
            return True
        self._torn = self._partly(before, after)
        return False

    def _partly(self, before: bytes, after: bytes) -> bytes:
        """Of the sectors that a commit has written, any but not all are on the disk, in whatever order it took them."""
        # A log that begins anew has its header synced before anything else of it is written.
        before = (after[:HEADER] + before[HEADER:]).ljust(len(after), b"\0")
        places = [at for at in range(0, len(after), SECTOR) if before[at : at + SECTOR] != after[at : at + SECTOR]]
        there = set(self._rng.sample(places, self._rng.randrange(len(places))))
        sectors = ((after if at in there else before)[at : at + SECTOR] for at in range(0, len(after), SECTOR))
        return b"".join(sectors)


class WatchedStore:
    """One server's store, whose commits end as planned, and whose successes are reported."""

    durable = True
    full = False

    def __init__(
        self,
        inner: Store,
        committed: Callable[[list[list[Record]]], None],
        tear: Callable[[Callable[[], None]], bool],
    ) -> None:
        self._inner = inner
        self._committed = committed
        self._tear = tear
        self.plan: deque[StorageError | None] = deque()
        """How the next commits end; when it is used up, well."""
        self.commits_left: int | None = None
        """How many more succeed before the server dies."""
        self.dead = False
        self.failures = 0

    def load(self) -> Snapshot:
        return self._inner.load()

    def commit(self, transactions: Sequence[Iterable[Record]]) -> None:
        rows = [list(records) for records in transactions]
        if self.commits_left == 0 and not self.dead:
            self.dead = True
            if self._tear(partial(self._inner.commit, rows)):
                self._committed(rows)
        error = StorageFailed("the server is dead") if self.dead else self.plan.popleft() if self.plan else None
        if error is not None:
            self.failures += 1
            raise error
        self._inner.commit(rows)
        if self.commits_left is not None:
            self.commits_left -= 1
        self._committed(rows)

    def read_bodies(self, topic_id: int, first: int, last: int) -> list[Message]:
        if self.plan and self.plan[0] is not None:
            raise self.plan.popleft() or StorageFailed("never")
        return self._inner.read_bodies(topic_id, first, last)

    def close(self) -> None:
        self._inner.close()


class SlowCalls:
    """An `Offload` whose calls end when the simulation says so. As in a thread: one at a time, and never half."""

    def __init__(self) -> None:
        self._one = anyio.CapacityLimiter(1)
        self._may_run: anyio.Event | None = None
        self.reads: Counter[int] = Counter()
        """Readings of bodies under way, by topic."""
        self.read: set[int] = set()
        """Topics in which there have been some since that was emptied."""
        self._at_once = False

    async def __call__(self, call: Callable[[], T]) -> T:
        # A topic's id is the first of its arguments.
        topic_id = call.args[0] if isinstance(call, partial) and call.func.__name__ == "read_bodies" else 0
        self.reads[topic_id] += 1
        try:
            return await self._in_turn(call)
        finally:
            self.reads[topic_id] -= 1
            self.read.add(topic_id)

    async def _in_turn(self, call: Callable[[], T]) -> T:
        await anyio.lowlevel.checkpoint()
        async with self._one:
            if not self._at_once:
                self._may_run = anyio.Event()
                with anyio.CancelScope(shield=True):
                    await self._may_run.wait()
            return call()

    @property
    def running(self) -> bool:
        """Whether somebody waits for the disk."""
        return self._may_run is not None

    def finish(self) -> None:
        """Let the call that runs end."""
        if self._may_run is not None:
            self._may_run.set()
            self._may_run = None

    def blurred(self, topic_id: int) -> bool:
        """Whether bodies of that topic are or were being read."""
        return topic_id in self.read or self.reads[topic_id] > 0

    def finish_all(self) -> None:
        """From now on calls take no time."""
        self._at_once = True
        self.finish()
