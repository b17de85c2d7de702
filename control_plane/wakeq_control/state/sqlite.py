"""State in one SQLite file: what was committed is on disk, whatever happens to the process or the machine.

A row is a key, a number and JSON. `user_version` says which format a file has: a newer one is refused, an older one is
upgraded when it is opened, in one transaction. The directory is locked: two control planes on one file would each
believe its own memory.

    1   sessions without versions
    2   rows of sessions and tasks have fields that control planes of format 1 can't read
    3   tasks have runs, whose events stand in their task's rows

A transaction is two statements a table at most, however many rows it has: several go in as one JSON array, and their
values as one blob that `substr` cuts up. sqlite3 lets go of the GIL around every step, and a statement a row would wait
for a busy event loop that often.
"""

import fcntl
import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from wakeq._serving.directories import make_directory
from wakeq_control.errors import StartupError, StorageFailed
from wakeq_control.model import TABLES, Change, Snapshot
from wakeq_control.state.rows import snapshot

FILE = "control.sqlite3"
FORMAT = 3
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
                for table, (dropped, put) in _folded(changes).items():
                    if len(dropped) == 1:
                        self._database.execute(_DROP_ONE.format(table=table), list(dropped))
                    elif dropped:
                        self._database.execute(_DROP.format(table=table), [json.dumps(list(dropped))])
                    rows = [(key, *row) for key, numbers in put.items() for row in numbers.items()]
                    if len(rows) == 1:
                        self._database.execute(_PUT_ONE.format(table=table), rows[0])
                    elif rows:
                        self._database.execute(_PUT.format(table=table), _parameters(rows))
        except sqlite3.Error as error:
            raise StorageFailed(f"a change can't be stored: {error}") from error

    def close(self) -> None:
        """See StateStore."""
        self._database.close()
        self._lock.close()


_DROP_ONE = "DELETE FROM {table} WHERE key = ?"
_DROP = "DELETE FROM {table} WHERE key IN (SELECT value FROM json_each(?))"
# An upsert leaves a row where it is, and rows are read in the order in which they were made.
_UPSERT = "INSERT INTO {table} (key, number, value) %s ON CONFLICT (key, number) DO UPDATE SET value = excluded.value"
_PUT_ONE = _UPSERT % "VALUES (?, ?, ?)"
_PUT = _UPSERT % ("SELECT value->>0, value->>1, substr(?2, value->>2, value->>3) FROM json_each(?1) WHERE true")
_Rows = dict[str, dict[int, bytes]]
"""Values by key and number."""


def _folded(changes: Iterable[Change]) -> dict[str, tuple[set[str], _Rows]]:
    """By table: the keys to be dropped first, and what is to be put then."""
    found: dict[str, tuple[set[str], _Rows]] = {}
    for change in changes:
        dropped, put = found.setdefault(change.table, (set(), {}))
        if change.value is not None:
            put.setdefault(change.key, {})[change.number] = change.value
        else:
            dropped.add(change.key)
            put.pop(change.key, None)
    return found


def _parameters(rows: Sequence[tuple[str, int, bytes]]) -> tuple[str, bytes]:
    places, at = [], 1
    for key, number, value in rows:
        places.append((key, number, at, len(value)))
        at += len(value)
    return json.dumps(places), b"".join([value for _, _, value in rows])


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
    if found > FORMAT:
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
        # What a field is that a row of an earlier format doesn't have, the model says.
        database.execute(f"PRAGMA user_version = {FORMAT}")
