"""Room on the disk that is kept for what makes room: settles, when publishes are refused.

A database doesn't shrink: where messages have gone it has free pages, which are room as good as the disk's. On the
other hand the log can hold pages that the database has no place for yet; what they need is as good as used.
"""

import contextlib
import os
import sqlite3
from pathlib import Path

RESERVE_BYTES = 16 * 1024 * 1024


class Reserve:
    """A file that occupies its size and is deleted when the disk is full; and what there is besides."""

    def __init__(self, path: Path, database: Path, size: int = RESERVE_BYTES) -> None:
        """``size`` is in bytes; of a small disk no more than an eighth is kept."""
        self.held = False
        self._path = path
        self._database = database
        self._log = database.with_name(f"{database.name}-wal")
        self._most = size

    @property
    def size(self) -> int:
        """Bytes that are kept. Raises OSError."""
        return min(self._most, self.disk // 8)

    @property
    def disk(self) -> int:
        """Bytes that the disk has in all. Raises OSError."""
        return _total(self._path.parent)

    def regain(self, db: sqlite3.Connection, needed: int = 0) -> bool:
        """Whether there is room for so many bytes that stay, beyond the reserve, which is occupied if it can be."""
        try:
            size, free = self.size, self._free(db)
            enough = size + size // 8
            if free >= enough and not self.held:
                self._occupy(size)
            # They go through the log, which begins anew in the room that it has and finds no other in the database.
            for_log = free + self._log_bytes() - needed
            return for_log >= size // 2 and for_log + _bytes(db, "freelist_count") - needed >= enough
        except (OSError, sqlite3.Error):
            return False

    def may_fold(self, db: sqlite3.Connection) -> bool:
        """Whether folding the log leaves enough of the disk; when it fails half-way it has used up all there is."""
        try:
            growth = self._growth(db)
            return not growth or _free(self._path.parent) - growth >= (0 if self.held else self.size // 16)
        except (OSError, sqlite3.Error):
            return False

    def used_up(self) -> bool:
        """Whether next to nothing is free on the disk."""
        try:
            return _free(self._path.parent) < self.size // 16
        except OSError:
            return False

    def release(self) -> None:
        """Let go of the room."""
        self.held = False
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _free(self, db: sqlite3.Connection) -> int:
        """Bytes of the disk, the reserve included, without those that folding takes."""
        return (self.size if self.held else 0) + _free(self._path.parent) - self._growth(db)

    def _growth(self, db: sqlite3.Connection) -> int:
        """Bytes by which folding the log makes the database larger."""
        return max(0, _bytes(db, "page_count") - self._database.stat().st_size)

    def _log_bytes(self) -> int:
        try:
            return self._log.stat().st_size
        except FileNotFoundError:
            return 0

    def _occupy(self, size: int) -> None:
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file, 0, size)
                else:
                    os.write(file, bytes(size))
            finally:
                os.close(file)
            self.held = True
        except OSError:
            self.release()


def _bytes(db: sqlite3.Connection, pages: str) -> int:
    (count,) = db.execute(f"PRAGMA {pages}").fetchone()
    (size,) = db.execute("PRAGMA page_size").fetchone()
    return int(count * size)


def _free(directory: Path) -> int:
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def _total(directory: Path) -> int:
    found = os.statvfs(directory)
    return found.f_blocks * found.f_frsize
