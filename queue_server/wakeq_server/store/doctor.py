"""Looking after a database: a copy while the server runs, a search for damage, and saving what damage has left."""

import contextlib
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wakeq_server.core.model import DEFAULT_GROUP, GroupPut, MessageAdded, Record, TopicConfig, TopicPut
from wakeq_server.errors import StartupError, StorageError
from wakeq_server.store import rows, schema
from wakeq_server.store.rows import SEQ_BITS, Damaged
from wakeq_server.store.sqlite import DATABASE, REPAIRED, SqliteStore, connected, missing_database, take_lock

PROBLEMS_MAX = 20
_BATCH = 1_000


@dataclass(frozen=True)
class _Table:
    """A table, the key that its rows stand in order of, and what makes a record of a row."""

    name: str
    what: str
    columns: str
    key: str
    record: Callable[[rows.Row], Any]


def _message(row: rows.Row) -> tuple[int, Any]:
    *rest, body = row
    return row[0], rows.message_of(tuple(rest), body)


_TOPICS = _Table("topic", "topics", rows.TOPIC, "id", lambda row: (row[1], rows.topic_of(row)))
_GROUPS = _Table("grp", "groups", rows.GROUP, "topic, id", rows.group_of)
_PUSHES = _Table("push", "pushes", rows.PUSH, "topic, name", rows.push_of)
_MESSAGES = _Table("message", "messages", f"{rows.MESSAGE}, body", "id", _message)
_HISTORIES = _Table("history", "histories", rows.HISTORY, "topic, grp, seq", rows.history_of)
_KEYS = _Table("seen", "idempotency keys", rows.SEEN, "topic, digest", rows.key_of)
_ALL = (_TOPICS, _GROUPS, _PUSHES, _MESSAGES, _HISTORIES, _KEYS)


@dataclass
class Findings:
    """What an examination has found."""

    problems: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def note(self, problem: str) -> None:
        """One more, unless there are very many."""
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(problem)


def back_up(directory: Path, target: Path) -> int:
    """Copy the database to a file, as it stands at this moment, and return its size; a server may run meanwhile.

    The file appears when it is whole. Raises StartupError where there is no database or the file exists, and OSError.
    """
    if target.exists():
        raise StartupError(f"{target} exists already", "name another file")
    if not target.parent.is_dir():
        raise StartupError(f"{target.parent} is no directory", "make it, or name a file in another one")
    partial = target.with_name(f"{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        with contextlib.closing(_opened(directory)) as db:
            schema.checked_version(db, directory / DATABASE)
            db.execute("VACUUM INTO ?", (str(partial),))
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.rename(target)
    except sqlite3.Error as error:
        full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        hint = f"make room for {target}" if full else f"see `wakeq doctor --data {directory}`"
        raise StartupError(f"the database in {directory} can't be copied: {error}", hint) from error
    finally:
        partial.unlink(missing_ok=True)
    return target.stat().st_size


def examine(directory: Path) -> Findings:
    """Read every page and every row. A server may run meanwhile. Raises StartupError where there is no database."""
    findings = Findings()
    try:
        with contextlib.closing(_opened(directory)) as db:
            if schema.checked_version(db, directory / DATABASE) != schema.FORMAT:
                raise StartupError(
                    f"the database in {directory} is of an older format", "start the server once: it upgrades it"
                )
            for (problem,) in db.execute(f"PRAGMA integrity_check({PROBLEMS_MAX})"):
                if problem != "ok":
                    findings.note(problem)
            for table in _ALL:
                for _ in _salvaged(db, table, findings):
                    findings.counts[table.what] += 1
    except sqlite3.Error as error:
        findings.note(str(error))
    return findings


def repair(directory: Path) -> tuple[Findings, Path]:
    """Save what can be read into a new database, and put the damaged one aside: what was saved, and where that is.

    What can't be told for sure is decided for delivering: a group that is lost gets its messages again. Raises
    StartupError where there is no database, or a server runs, and OSError.
    """
    if not directory.is_dir():
        raise _no_database(directory)
    lock = take_lock(directory)
    try:
        fresh = directory / REPAIRED
        # Once the damaged one is being put aside, the new one is whole, and may be all there is.
        interrupted = not (directory / DATABASE).exists() and (fresh / DATABASE).exists()
        findings = Findings() if interrupted else _make_anew(directory, fresh)
        aside = _put_aside(directory)
        (fresh / DATABASE).rename(directory / DATABASE)
        shutil.rmtree(fresh, ignore_errors=True)
        return (examine(directory) if interrupted else findings), aside
    finally:
        os.close(lock)


def _make_anew(directory: Path, fresh: Path) -> Findings:
    findings = Findings()
    with contextlib.closing(_opened(directory)) as db:
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            with contextlib.closing(SqliteStore(fresh, "fsync")) as store:
                store.load()
                _save(db, store, findings)
        except StorageError as error:
            shutil.rmtree(fresh, ignore_errors=True)
            raise StartupError(f"nothing was repaired: {error.detail}", "make room for a second database") from error
    return findings


def _opened(directory: Path) -> sqlite3.Connection:
    path = directory / DATABASE
    if not path.is_file():
        raise _no_database(directory)
    return connected(path)


def _no_database(directory: Path) -> StartupError:
    return missing_database(directory) or StartupError(
        f"there is no database in {directory}", "name its directory with --data"
    )


def _salvaged(db: sqlite3.Connection, table: _Table, findings: Findings) -> Iterator[Any]:
    """The records of a table's sound rows: from the front up to damage that can't be read over, then from the back."""
    width = len(table.key.split(","))
    last: tuple[Any, ...] | None = None
    for order in ("ASC", "DESC"):
        by = ", ".join(f"{column} {order}" for column in table.key.split(", "))
        query = f"SELECT {table.key}, {table.columns} FROM {table.name} NOT INDEXED ORDER BY {by}"
        try:
            for row in db.execute(query):
                if order == "DESC" and last is not None and row[:width] <= last:
                    return
                if order == "ASC":
                    last = row[:width]
                yield from _record(table, row[width:], findings)
        except sqlite3.Error as error:
            findings.note(f"{table.what}: {error}")
        else:
            return


def _record(table: _Table, row: rows.Row, findings: Findings) -> Iterator[Any]:
    try:
        yield table.record(row)
    except (Damaged, ValueError, TypeError):
        findings.note(f"a row of {table.what} is damaged: {', '.join(map(str, row[:3]))}")


def _save(db: sqlite3.Connection, store: SqliteStore, findings: Findings) -> None:
    saving = _Saving(store, findings)
    topic_in = {}
    for slot, topic in _salvaged(db, _TOPICS, findings):
        topic_in[slot] = topic.topic_id
        saving.keep(topic, "topics")
    next_id = max(topic_in.values(), default=0) + 1
    known, with_groups = set(topic_in.values()), set()
    for group in _salvaged(db, _GROUPS, findings):
        if group.topic_id in known:
            with_groups.add(group.topic_id)
            saving.keep(group, "groups")
    for number, message in _salvaged(db, _MESSAGES, findings):
        slot = number >> SEQ_BITS
        if slot not in topic_in:
            topic_in[slot], next_id = next_id, next_id + 1
            saving.keep(TopicPut(topic_in[slot], f"recovered-{slot}", TopicConfig(schema="any"), 0.0), "topics")
        saving.keep(MessageAdded(topic_in[slot], message), "messages")
    known = set(topic_in.values())
    for topic_id in sorted(known - with_groups):
        saving.keep(GroupPut(topic_id, 0, DEFAULT_GROUP, 1, 1), "groups")
    for table in (_PUSHES, _HISTORIES, _KEYS):
        for record in _salvaged(db, table, findings):
            if record.topic_id in known:
                saving.keep(record, table.what)
    saving.finish()


class _Saving:
    """Puts records into a store, many in each transaction: every one is synced."""

    def __init__(self, store: SqliteStore, findings: Findings) -> None:
        self._store = store
        self._counts = findings.counts
        self._waiting: list[Record] = []

    def keep(self, record: Record, what: str) -> None:
        """One more, which the findings call ``what``."""
        self._counts[what] += 1
        self._waiting.append(record)
        if len(self._waiting) == _BATCH:
            self.finish()

    def finish(self) -> None:
        """Write what waits."""
        self._store.commit([self._waiting])
        self._waiting = []


def _put_aside(directory: Path) -> Path:
    """Rename the database, and its log with it: one without the other is another database."""
    number = 1
    while (directory / f"damaged-{number}").exists():
        number += 1
    if not (directory / DATABASE).exists():
        # It was interrupted between the two.
        number -= 1
    aside = directory / f"damaged-{number}"
    aside.mkdir(exist_ok=True)
    for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm"):
        with contextlib.suppress(FileNotFoundError):
            (directory / name).rename(aside / name)
    return aside
