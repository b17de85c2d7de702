"""Folding the write-ahead log into the database beside the writer, so that no commit waits for it.

SQLite's own way is to do that in the commit that makes the log too long, which then takes as long as writing every page
that has changed since. Here a thread with a connection of its own does it while commits go on. It can't begin the log
anew while there are commits all the time; so when the log has grown very long all the same, the writer is told to do
that, and finds most of it done.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Callable
from typing import Literal

from wakeq_server.store.reserve import Reserve

FOLD_BYTES = 4 * 1024 * 1024
"""The most of new log that waits to be folded."""
LONG_BYTES = 64 * 1024 * 1024
"""So much of log that the writer begins it anew; on a small disk less."""
_COMMIT_BYTES = 16 * 1024
"""What a commit writes beside its rows: the pages around them."""


class Checkpointer:
    """The thread; it ends with `close`."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], reserve: Reserve) -> None:
        """``reserve`` knows whether the disk has the room that folding needs. Raises OSError."""
        self.overlong = False
        """Whether the writer should begin the log anew before its next commit."""
        self.cramped = False
        """Whether the disk has no room for what is in the log."""
        self._connect = connect
        self._reserve = reserve
        self.step = min(FOLD_BYTES, reserve.size // 4)
        """About so many bytes of new log are folded at a time: few beside what is kept, which must do for them."""
        self._long = min(LONG_BYTES, reserve.disk // 16)
        self._changed = threading.Condition()
        self._written = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
        self._thread.start()

    def committed(self, size: int) -> None:
        """A commit has written about so many bytes."""
        with self._changed:
            self._written += size + _COMMIT_BYTES
            if self._written >= self.step:
                self._changed.notify()

    def close(self) -> None:
        """End the thread, when it has done what is due."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        with contextlib.closing(self._connect()) as db:
            while self._wait():
                # Where the disk fails, the writer finds that out, and tells.
                with contextlib.suppress(sqlite3.Error):
                    self._fold(db)

    def _fold(self, db: sqlite3.Connection) -> None:
        self.cramped = not self._reserve.may_fold(db)
        if not self.cramped:
            _, frames, folded = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            (page,) = db.execute("PRAGMA page_size").fetchone()
            self.overlong = frames * page > self._long and folded > frames // 2

    def _wait(self) -> bool:
        """Whether there is something to fold; False at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._written >= self.step)
            due = self._written >= self.step
            self._written = 0
            return due


def begin_anew(db: sqlite3.Connection, how: Literal["RESTART", "TRUNCATE"]) -> None:
    """Fold all of the log, so that it begins anew or is empty; not while somebody reads it, which isn't waited for."""
    (patience_ms,) = db.execute("PRAGMA busy_timeout").fetchone()
    db.execute("PRAGMA busy_timeout = 0")
    try:
        db.execute(f"PRAGMA wal_checkpoint({how})").fetchone()
    finally:
        db.execute(f"PRAGMA busy_timeout = {patience_ms}")
