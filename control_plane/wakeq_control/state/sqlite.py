"""State in one SQLite file: what was committed is on disk, whatever happens to the process or the machine.

A row is a key, a number and JSON. `user_version` says which format a file has; a newer one is refused. The directory is
locked: two control planes on one file would each believe its own memory.
"""

import fcntl
import sqlite3
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from wakeq._serving.directories import make_directory
from wakeq_control.errors import StartupError, StorageFailed
from wakeq_control.model import TABLES, Change, Snapshot
from wakeq_control.state.rows import snapshot

FILE = "control.sqlite3"
_FORMAT = 1
# "wkqc": what `file` can say of it.
_APPLICATION_ID = 0x776B7163


class SqliteStore:
    """A StateStore in a directory."""

    def __init__(self, directory: Path) -> None:
        """Raises StartupError."""
        try:
            make_directory(directory)
            self._lock = (directory / "lock").open("w")
        except OSError as error:
            raise StartupError(
                f"the directory {directory} can't be used: {error.strerror or error}", "name another one with --data"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._database = _open(directory / FILE)
        except OSError:
            self._lock.close()
            raise StartupError(
                f"another control plane uses {directory}", "stop it, or name another directory with --data"
            ) from None
        except StartupError:
            self._lock.close()
            raise

    def load(self) -> Snapshot:
        """See StateStore."""
        try:
            return snapshot({table: self._database.execute(_select(table)).fetchall() for table in TABLES})
        except (sqlite3.Error, ValueError, LookupError, TypeError) as error:
            raise StorageFailed(f"the state can't be read: {error!r}") from error

    def commit(self, changes: Sequence[Change]) -> None:
        """See StateStore."""
        try:
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                # One statement for many rows, in their order: a statement a row would pay for the GIL each time.
                for (table, kind), group in groupby(changes, key=lambda change: (change.table, _kind(change))):
                    self._database.executemany(_STATEMENTS[kind].format(table=table), _parameters(kind, group))
        except sqlite3.Error as error:
            raise StorageFailed(f"a change can't be stored: {error}") from error

    def close(self) -> None:
        """See StateStore."""
        self._database.close()
        self._lock.close()


_STATEMENTS = {
    # An upsert leaves a row where it is, and rows are read in the order in which they were made.
    "put": "INSERT INTO {table} (key, number, value) VALUES (?, ?, ?) "
    "ON CONFLICT (key, number) DO UPDATE SET value = excluded.value",
    "drop": "DELETE FROM {table} WHERE key = ?",
}


def _kind(change: Change) -> str:
    return "drop" if change.value is None else "put"


def _parameters(kind: str, changes: Iterable[Change]) -> list[tuple[object, ...]]:
    if kind == "drop":
        return [(change.key,) for change in changes]
    return [(change.key, change.number, change.value) for change in changes]


def _select(table: str) -> str:
    order = "key, number" if table == "event" else "rowid"
    return f"SELECT key, value FROM {table} ORDER BY {order}"


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        _prepare(database, path)
    except sqlite3.Error as error:
        database.close()
        raise StartupError(
            f"{path} can't be opened: {error}", "restore a copy of it, or name another directory with --data"
        ) from error
    except StartupError:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "fullfsync = ON"):
        database.execute(f"PRAGMA {pragma}").fetchone()
    ((found,),) = database.execute("PRAGMA user_version")
    if found > _FORMAT:
        raise StartupError(
            f"{path} was made by a later version of wakeq", "run that version, or name another directory with --data"
        )
    with database:
        database.execute("BEGIN IMMEDIATE")
        for table in TABLES:
            database.execute(
                f"CREATE TABLE IF NOT EXISTS {table} "
                "(key TEXT NOT NULL, number INTEGER NOT NULL, value BLOB NOT NULL, UNIQUE (key, number))"
            )
        database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {_FORMAT}")
