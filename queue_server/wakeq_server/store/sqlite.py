"""The store in one SQLite file, in WAL mode.

A transaction is a fixed number of statements, however many rows it has: each kind of change is one statement
that takes all its rows as one JSON array (`json_each`), and all new bodies as one blob cut up by `substr`.
sqlite3 lets go of the GIL around every step, and getting it back from a busy event loop takes up to a switch
interval; a statement a row would pay that a row.

One process owns a data directory: it holds a lock on the file `lock` for as long as it runs. SQLite's own locks
would let a second server in between two transactions.
"""

import contextlib
import errno
import fcntl
import json
import os
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from wakeq_server.core.model import (
    HistoryCleared,
    HistorySet,
    Message,
    MessageAdded,
    MessageRemoved,
    Record,
    Snapshot,
    TopicConfig,
    TopicDropped,
    TopicPut,
)
from wakeq_server.errors import StartupError, StorageError, StorageFailed, StorageFull

FORMAT = 1
DATABASE = "wakeq.sqlite3"
LOCK = "lock"
APPLICATION_ID = 0x77616B71

_SCHEMA = """
CREATE TABLE boot (only INTEGER PRIMARY KEY CHECK (only = 1), epoch INTEGER NOT NULL, next_topic INTEGER NOT NULL);
INSERT INTO boot VALUES (1, 0, 1);
CREATE TABLE topic (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, config TEXT NOT NULL, created_at REAL NOT NULL,
    next_seq INTEGER NOT NULL DEFAULT 1);
CREATE TABLE message (
    topic INTEGER NOT NULL, seq INTEGER NOT NULL, published_at REAL NOT NULL, content_type TEXT, headers TEXT,
    body BLOB NOT NULL, PRIMARY KEY (topic, seq)) WITHOUT ROWID;
CREATE TABLE history (
    topic INTEGER NOT NULL, grp INTEGER NOT NULL, seq INTEGER NOT NULL, attempt INTEGER NOT NULL,
    epoch INTEGER NOT NULL, number INTEGER NOT NULL, due_at REAL NOT NULL, span_s REAL NOT NULL,
    PRIMARY KEY (topic, grp, seq)) WITHOUT ROWID;
"""

_PUT_TOPICS = """
INSERT INTO topic (id, name, config, created_at)
SELECT value->>0, value->>1, value->>2, value->>3 FROM json_each(?) WHERE true
ON CONFLICT (id) DO UPDATE SET config = excluded.config
"""
_TOPICS_USED = "UPDATE boot SET next_topic = max(next_topic, ?)"
# Of an empty blob, substr gives NULL.
_ADD_MESSAGES = """
INSERT INTO message (topic, seq, published_at, content_type, headers, body)
SELECT value->>0, value->>1, value->>2, value->>3, value->>4, coalesce(substr(?2, value->>5, value->>6), x'')
FROM json_each(?1)
"""
_SEQS_USED = """
UPDATE topic SET next_seq = max(next_seq, used.value->>1) FROM json_each(?) AS used WHERE topic.id = used.value->>0
"""
_SET_HISTORY = """
INSERT OR REPLACE INTO history (topic, grp, seq, attempt, epoch, number, due_at, span_s)
SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7 FROM json_each(?)
"""
_CLEAR_HISTORY = """
DELETE FROM history WHERE (topic, grp, seq) IN (SELECT value->>0, value->>1, value->>2 FROM json_each(?))
"""
_REMOVE_MESSAGES = "DELETE FROM message WHERE (topic, seq) IN (SELECT value->>0, value->>1 FROM json_each(?))"
_REMOVE_HISTORY = """
DELETE FROM history WHERE (topic, grp, seq) IN (
    SELECT history.topic, history.grp, history.seq FROM json_each(?) AS gone
    JOIN history ON history.topic = gone.value->>0 AND history.grp = 0 AND history.seq = gone.value->>1)
"""
_DROP_TOPIC = (
    "DELETE FROM topic WHERE id IN (SELECT value FROM json_each(?))",
    "DELETE FROM message WHERE topic IN (SELECT value FROM json_each(?))",
    "DELETE FROM history WHERE topic IN (SELECT value FROM json_each(?))",
)
# A topic that failed to be made, or was dropped while messages were on their way to it, leaves rows behind.
_SWEEP = (
    "DELETE FROM message WHERE topic NOT IN (SELECT id FROM topic)",
    "DELETE FROM history WHERE (topic, seq) NOT IN (SELECT topic, seq FROM message)",
)


class SqliteStore:
    """A store in a directory: `wakeq.sqlite3`, its WAL, and a lock file."""

    durable = True

    def __init__(self, directory: Path, durability: Literal["fsync", "os"]) -> None:
        """``fsync`` syncs every commit; ``os`` leaves that to the operating system."""
        self._directory = directory
        self._synchronous = "FULL" if durability == "fsync" else "NORMAL"
        self._lock: int | None = None
        self._db: sqlite3.Connection | None = None

    def load(self) -> Snapshot:
        """Take the directory, open or make the database, and read it whole."""
        try:
            self._take_directory()
            self._db = db = self._open()
            return self._read(db)
        except OSError as error:
            raise StartupError(
                f"the data directory {self._directory} can't be used: {error.strerror or error}",
                "name another one with --data, or run without one: --durability memory",
            ) from error
        except sqlite3.Error as error:
            raise StartupError(
                f"the database {self._directory / DATABASE} can't be opened: {error}",
                "restore it from a backup, or move it away to start empty",
            ) from error

    def commit(self, transactions: Sequence[Iterable[Record]]) -> None:
        """One SQLite transaction for all of them."""
        db = self._db
        assert db is not None
        rows: defaultdict[type[Record], list[Any]] = defaultdict(list)
        for transaction in transactions:
            for record in transaction:
                rows[type(record)].append(record)
        try:
            db.execute("BEGIN IMMEDIATE")
            for kind, write in _WRITERS.items():
                if kind in rows:
                    write(db, rows[kind])
            db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back(db)
            raise _storage_error(error) from error

    def close(self) -> None:
        """Close the database, which folds the WAL into it, and let go of the lock."""
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_directory(self) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
        self._lock = os.open(self._directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._lock, 32, 0).decode(errors="replace").strip()
            os.close(self._lock)
            self._lock = None
            raise StartupError(
                f"the data directory {self._directory} is in use by another server (process {owner or 'unknown'})",
                "stop that one, or name another directory with --data",
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._directory / DATABASE, isolation_level=None, check_same_thread=False)
        try:
            version = self._format(db)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"PRAGMA synchronous = {self._synchronous}")
            # On macOS fsync() alone leaves data in the drive's cache.
            db.execute("PRAGMA fullfsync = ON")
            if version == 0:
                marks = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT};"
                db.executescript(f"BEGIN; {_SCHEMA} {marks} COMMIT;")
        except BaseException:
            db.close()
            raise
        return db

    def _format(self, db: sqlite3.Connection) -> int:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if application != APPLICATION_ID and tables:
            raise StartupError(
                f"{self._directory / DATABASE} is an SQLite database, but not one of wakeq's",
                "name another directory with --data",
            )
        if version > FORMAT:
            raise StartupError(
                f"{self._directory / DATABASE} is of a newer wakeq: format {version}, and this one reads {FORMAT}",
                "upgrade wakeq, or name another directory with --data",
            )
        return int(version)

    def _read(self, db: sqlite3.Connection) -> Snapshot:
        db.execute("BEGIN IMMEDIATE")
        for statement in _SWEEP:
            db.execute(statement)
        db.execute("UPDATE boot SET epoch = epoch + 1")
        db.execute("COMMIT")
        epoch, next_topic = db.execute("SELECT epoch, next_topic FROM boot").fetchone()
        topics = db.execute("SELECT id, name, config, created_at, next_seq FROM topic").fetchall()
        return Snapshot(
            epoch=epoch,
            topics=tuple(TopicPut(row[0], row[1], TopicConfig(**json.loads(row[2])), row[3]) for row in topics),
            messages=tuple(_messages(db)),
            histories=tuple(HistorySet(*row) for row in db.execute("SELECT * FROM history")),
            next_topic_id=next_topic,
            next_seq={row[0]: row[4] for row in topics},
        )

    def _roll_back(self, db: sqlite3.Connection) -> None:
        # SQLite has rolled back by itself after some errors, and then has no transaction to roll back.
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")


def _messages(db: sqlite3.Connection) -> Iterator[MessageAdded]:
    rows = db.execute("SELECT topic, seq, body, published_at, content_type, headers FROM message ORDER BY topic, seq")
    for topic, seq, body, published_at, content_type, headers in rows:
        message = Message(seq, body, published_at, content_type, None if headers is None else json.loads(headers))
        yield MessageAdded(topic, message)


def _storage_error(error: sqlite3.Error) -> StorageError:
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return StorageFull("the disk is full: nothing was stored")
    return StorageFailed(f"the database failed: {error}; nothing was stored")


def _put_topics(db: sqlite3.Connection, records: list[TopicPut]) -> None:
    rows = [(r.topic_id, r.name, json.dumps(asdict(r.config)), r.created_at) for r in records]
    db.execute(_PUT_TOPICS, (json.dumps(rows),))
    db.execute(_TOPICS_USED, (max(r.topic_id for r in records) + 1,))


def _add_messages(db: sqlite3.Connection, records: list[MessageAdded]) -> None:
    rows, bodies, start = [], [], 1
    used: dict[int, int] = {}
    for topic_id, message in records:
        headers = None if message.headers is None else json.dumps(dict(message.headers))
        size = len(message.body)
        rows.append((topic_id, message.seq, message.published_at, message.content_type, headers, start, size))
        bodies.append(message.body)
        start += size
        used[topic_id] = message.seq + 1
    db.execute(_ADD_MESSAGES, (json.dumps(rows), b"".join(bodies)))
    db.execute(_SEQS_USED, (json.dumps(list(used.items())),))


def _set_history(db: sqlite3.Connection, records: list[HistorySet]) -> None:
    db.execute(_SET_HISTORY, (json.dumps(records),))


def _clear_history(db: sqlite3.Connection, records: list[HistoryCleared]) -> None:
    db.execute(_CLEAR_HISTORY, (json.dumps(records),))


def _remove_messages(db: sqlite3.Connection, records: list[MessageRemoved]) -> None:
    keys = json.dumps(records)
    db.execute(_REMOVE_MESSAGES, (keys,))
    db.execute(_REMOVE_HISTORY, (keys,))


def _drop_topics(db: sqlite3.Connection, records: list[TopicDropped]) -> None:
    ids = json.dumps([record.topic_id for record in records])
    for statement in _DROP_TOPIC:
        db.execute(statement, (ids,))


# In this order: what is removed may have been added in the same batch.
_WRITERS: dict[type[Record], Callable[[sqlite3.Connection, list[Any]], None]] = {
    TopicPut: _put_topics,
    MessageAdded: _add_messages,
    HistorySet: _set_history,
    HistoryCleared: _clear_history,
    MessageRemoved: _remove_messages,
    TopicDropped: _drop_topics,
}
