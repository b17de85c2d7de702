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

FOLD_BYTES = 4 * 1024 * 1024
"""About so much of new log is folded at a time."""
LONG_FRAMES = 16_384
"""Pages after which the writer begins the log anew: 64 MiB."""
_COMMIT_BYTES = 16 * 1024
"""What a commit writes beside its rows: the pages around them."""


class Checkpointer:
    """The thread; it ends with `close`."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self.overlong = False
        """Whether the writer should begin the log anew before its next commit."""
        self._connect = connect
        self._changed = threading.Condition()
        self._written = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
        self._thread.start()

    def committed(self, size: int) -> None:
        """A commit has written about so many bytes."""
        with self._changed:
            self._written += size + _COMMIT_BYTES
            if self._written >= FOLD_BYTES:
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
                    _, frames, folded = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                    self.overlong = frames > LONG_FRAMES and folded > frames // 2

    def _wait(self) -> bool:
        """Whether there is something to fold; False at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._written >= FOLD_BYTES)
            due = self._written >= FOLD_BYTES
            self._written = 0
            return due
