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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from wakeq_server.core.model import (
    GroupDropped,
    GroupPut,
    HistoryCleared,
    HistorySet,
    KeySeen,
    KeysForgotten,
    Message,
    MessageAdded,
    MessageRemoved,
    PushDropped,
    PushPut,
    Record,
    Run,
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

_SPECIAL = "(key IS NOT NULL OR due_at IS NOT NULL OR expires_at IS NOT NULL)"
_SCHEMA = f"""
CREATE TABLE boot (only INTEGER PRIMARY KEY CHECK (only = 1), epoch INTEGER NOT NULL, next_topic INTEGER NOT NULL);
INSERT INTO boot VALUES (1, 0, 1);
CREATE TABLE topic (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, config TEXT NOT NULL, created_at REAL NOT NULL,
    paused INTEGER NOT NULL, next_seq INTEGER NOT NULL DEFAULT 1);
CREATE TABLE grp (
    topic INTEGER NOT NULL, id INTEGER NOT NULL, name TEXT NOT NULL, start INTEGER NOT NULL, cursor INTEGER NOT NULL,
    PRIMARY KEY (topic, id)) WITHOUT ROWID;
CREATE TABLE push (
    topic INTEGER NOT NULL, name TEXT NOT NULL, id INTEGER NOT NULL, grp INTEGER NOT NULL, url TEXT NOT NULL,
    max_in_flight INTEGER NOT NULL, timeout_s REAL NOT NULL, PRIMARY KEY (topic, name)) WITHOUT ROWID;
CREATE TABLE message (
    topic INTEGER NOT NULL, seq INTEGER NOT NULL, size INTEGER NOT NULL, published_at REAL NOT NULL,
    content_type TEXT, headers TEXT, id TEXT, key TEXT, due_at REAL, expires_at REAL,
    body BLOB NOT NULL, PRIMARY KEY (topic, seq)) WITHOUT ROWID;
CREATE INDEX special ON message (topic, seq) WHERE {_SPECIAL};
CREATE TABLE history (
    topic INTEGER NOT NULL, grp INTEGER NOT NULL, seq INTEGER NOT NULL, standing TEXT NOT NULL,
    attempt INTEGER NOT NULL, due_at REAL NOT NULL, span_s REAL NOT NULL, epoch INTEGER NOT NULL,
    number INTEGER NOT NULL, reason TEXT, PRIMARY KEY (topic, grp, seq)) WITHOUT ROWID;
CREATE TABLE seen (
    topic INTEGER NOT NULL, digest TEXT NOT NULL, fingerprint TEXT NOT NULL, first_seq INTEGER NOT NULL,
    count INTEGER NOT NULL, expires_at REAL NOT NULL, PRIMARY KEY (topic, digest)) WITHOUT ROWID;
CREATE INDEX seen_until ON seen (topic, expires_at);
"""  # noqa: S608

_PUT_TOPICS = """
INSERT INTO topic (id, name, config, created_at, paused)
SELECT value->>0, value->>1, value->>2, value->>3, value->>4 FROM json_each(?) WHERE true
ON CONFLICT (id) DO UPDATE SET name = excluded.name, config = excluded.config, paused = excluded.paused
"""
_TOPICS_USED = "UPDATE boot SET next_topic = max(next_topic, ?)"
_PUT_GROUPS = """
INSERT INTO grp (topic, id, name, start, cursor)
SELECT value->>0, value->>1, value->>2, value->>3, value->>4 FROM json_each(?) WHERE true
ON CONFLICT (topic, id) DO UPDATE SET name = excluded.name, start = excluded.start, cursor = excluded.cursor
"""
_PUT_PUSHES = """
INSERT OR REPLACE INTO push (topic, name, id, grp, url, max_in_flight, timeout_s)
SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6 FROM json_each(?)
"""
_DROP_PUSHES = """
DELETE FROM push WHERE (topic, name) IN (
    SELECT push.topic, push.name FROM json_each(?) AS gone
    CROSS JOIN push ON (push.topic, push.name, push.id) = (gone.value->>0, gone.value->>1, gone.value->>2))
"""
# Of an empty blob, substr gives NULL.
_ADD_MESSAGES = """
INSERT INTO message (topic, seq, size, published_at, content_type, headers, id, key, due_at, expires_at, body)
SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7, value->>8, value->>9,
    coalesce(substr(?2, value->>10, value->>11), x'')
FROM json_each(?1)
"""
_SEQS_USED = """
UPDATE topic SET next_seq = max(next_seq, used.value->>1) FROM json_each(?) AS used WHERE topic.id = used.value->>0
"""
_SET_HISTORY = """
INSERT OR REPLACE INTO history (topic, grp, seq, standing, attempt, due_at, span_s, epoch, number, reason)
SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7, value->>8, value->>9
FROM json_each(?)
"""
_ADD_KEYS = """
INSERT OR REPLACE INTO seen (topic, digest, fingerprint, first_seq, count, expires_at)
SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5 FROM json_each(?)
"""
_CLEAR_HISTORY = """
DELETE FROM history WHERE (topic, grp, seq) IN (SELECT value->>0, value->>1, value->>2 FROM json_each(?))
"""
_REMOVE_MESSAGES = "DELETE FROM message WHERE (topic, seq) IN (SELECT value->>0, value->>1 FROM json_each(?))"
_REMOVE_HISTORY = """
DELETE FROM history WHERE (topic, grp, seq) IN (
    SELECT grp.topic, grp.id, gone.value->>1 FROM json_each(?) AS gone CROSS JOIN grp ON grp.topic = gone.value->>0)
"""
_FORGET_KEYS = """
DELETE FROM seen WHERE (topic, digest) IN (
    SELECT seen.topic, seen.digest FROM json_each(?) AS over
    CROSS JOIN seen ON seen.topic = over.value->>0 AND seen.expires_at < over.value->>1)
"""
_DROP_GROUPS = (
    "DELETE FROM grp WHERE (topic, id) IN (SELECT value->>0, value->>1 FROM json_each(?))",
    "DELETE FROM history WHERE (topic, grp) IN (SELECT value->>0, value->>1 FROM json_each(?))",
    """DELETE FROM push WHERE (topic, name) IN (
        SELECT push.topic, push.name FROM json_each(?) AS gone
        CROSS JOIN push ON push.topic = gone.value->>0 AND push.grp = gone.value->>1)""",
)
_DROP_TOPICS = (
    "DELETE FROM topic WHERE id IN (SELECT value FROM json_each(?))",
    "DELETE FROM grp WHERE topic IN (SELECT value FROM json_each(?))",
    "DELETE FROM push WHERE topic IN (SELECT value FROM json_each(?))",
    "DELETE FROM message WHERE topic IN (SELECT value FROM json_each(?))",
    "DELETE FROM history WHERE topic IN (SELECT value FROM json_each(?))",
    "DELETE FROM seen WHERE topic IN (SELECT value FROM json_each(?))",
)

# A topic that failed to be made, or was dropped while messages were on their way to it, leaves rows behind. Topics
# are found by jumping from one to the next: reading a million messages for them takes seconds.
_SWEEP_TOPICS = """
WITH RECURSIVE used(id) AS (
    SELECT min(topic) FROM message
    UNION ALL SELECT (SELECT min(topic) FROM message WHERE topic > used.id) FROM used WHERE used.id IS NOT NULL)
DELETE FROM message WHERE topic IN (SELECT id FROM used WHERE id NOT IN (SELECT id FROM topic))
"""
_WANTED = """EXISTS (
    SELECT 1 FROM grp LEFT JOIN history ON (history.topic, history.grp, history.seq) = (grp.topic, grp.id, message.seq)
    WHERE grp.topic = message.topic AND message.seq >= grp.start AND CASE
        WHEN history.seq IS NOT NULL THEN history.standing <> 'gone'
        ELSE message.seq >= grp.cursor OR key IS NOT NULL OR message.due_at IS NOT NULL OR expires_at IS NOT NULL
        END)"""
# Nobody wants a message only if every group has passed it, or one has marked it as gone: the others are not looked at.
# Only an IN of a plain SELECT is looked up in the primary key, hence the one around the UNION.
_SWEEP_DONE = f"""
DELETE FROM message WHERE (topic, seq) IN (SELECT * FROM (
    SELECT message.topic, message.seq FROM topic CROSS JOIN message ON message.topic = topic.id AND message.seq <
        (SELECT coalesce(min(max(start, cursor)), topic.next_seq) FROM grp WHERE grp.topic = topic.id)
    WHERE NOT {_WANTED}
    UNION SELECT message.topic, message.seq FROM history AS gone
    CROSS JOIN message ON (message.topic, message.seq) = (gone.topic, gone.seq)
    WHERE gone.standing = 'gone' AND NOT {_WANTED}))
"""  # noqa: S608
_SWEEP_HISTORY = """
DELETE FROM history WHERE
    NOT EXISTS (SELECT 1 FROM message WHERE (message.topic, message.seq) = (history.topic, history.seq))
    OR NOT EXISTS (SELECT 1 FROM grp WHERE (grp.topic, grp.id) = (history.topic, history.grp))
"""
_SWEEP = (
    _SWEEP_TOPICS,
    "DELETE FROM grp WHERE topic NOT IN (SELECT id FROM topic)",
    "DELETE FROM seen WHERE topic NOT IN (SELECT id FROM topic)",
    "DELETE FROM push WHERE NOT EXISTS (SELECT 1 FROM grp WHERE (grp.topic, grp.id) = (push.topic, push.grp))",
    _SWEEP_DONE,
    _SWEEP_HISTORY,
)

_READ_RUNS = f"""
SELECT topic, min(seq), max(seq), sum(size) FROM (
    SELECT topic, seq, size, seq - row_number() OVER (PARTITION BY topic ORDER BY seq) AS island
    FROM message NOT INDEXED WHERE NOT {_SPECIAL})
GROUP BY topic, island ORDER BY 1, 2
"""  # noqa: S608
_FIELDS = "seq, size, published_at, content_type, headers, id, key, due_at, expires_at"
_READ_OTHERS = f"""
SELECT topic, NULL, {_FIELDS} FROM message INDEXED BY special WHERE {_SPECIAL} ORDER BY topic, seq
"""  # noqa: S608
_READ_BODIES = f"SELECT topic, body, {_FIELDS} FROM message WHERE topic = ? AND seq BETWEEN ? AND ? ORDER BY seq"  # noqa: S608
# Oldest first: the core forgets keys from that end.
_READ_KEYS = "SELECT topic, digest, fingerprint, first_seq, count, expires_at FROM seen ORDER BY topic, expires_at"


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
        except BaseException as error:
            self._roll_back(db)
            if isinstance(error, sqlite3.Error):
                raise _storage_error(error) from error
            raise

    def read_bodies(self, topic_id: int, first: int, last: int) -> list[Message]:
        """One range of the primary key."""
        db = self._db
        assert db is not None
        try:
            return [_message(row) for row in db.execute(_READ_BODIES, (topic_id, first, last))]
        except sqlite3.Error as error:
            raise StorageFailed(f"the database can't be read: {error}") from error

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
            # Until the epoch has been raised: lease ids must not repeat, whatever else a power cut takes.
            db.execute("PRAGMA synchronous = FULL")
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
        db.execute(f"PRAGMA synchronous = {self._synchronous}")
        return _snapshot(db)

    def _roll_back(self, db: sqlite3.Connection) -> None:
        # SQLite has rolled back by itself after some errors, and then has no transaction to roll back.
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")


def _snapshot(db: sqlite3.Connection) -> Snapshot:
    epoch, next_topic = db.execute("SELECT epoch, next_topic FROM boot").fetchone()
    topics = db.execute("SELECT id, name, config, created_at, paused, next_seq FROM topic ORDER BY id").fetchall()
    histories = map(HistorySet._make, db.execute("SELECT * FROM history"))
    groups = db.execute("SELECT topic, id, name, start, cursor FROM grp ORDER BY topic, id")
    pushes = db.execute("SELECT topic, name, id, grp, url, max_in_flight, timeout_s FROM push ORDER BY topic, name")
    return Snapshot(
        epoch=epoch,
        topics=tuple(_topic(*row[:-1]) for row in topics),
        groups=tuple(GroupPut(*row) for row in groups),
        pushes=tuple(PushPut(*row) for row in pushes),
        runs=tuple(Run(*row) for row in db.execute(_READ_RUNS)),
        others=tuple(MessageAdded(row[0], _message(row)) for row in db.execute(_READ_OTHERS)),
        histories=tuple(row._replace(reason=_unpack(row.reason)) for row in histories),
        keys=tuple(_key(*row) for row in db.execute(_READ_KEYS)),
        next_topic_id=next_topic,
        next_seq={row[0]: row[5] for row in topics},
    )


def _topic(topic_id: int, name: str, config: str, created_at: float, paused: int) -> TopicPut:
    return TopicPut(topic_id, name, TopicConfig(**json.loads(config)), created_at, bool(paused))


def _message(row: tuple[Any, ...]) -> Message:
    _, body, seq, size, published_at, content_type, headers, message_id, key, due_at, expires_at = row
    return Message(
        seq,
        body,
        size,
        published_at,
        content_type,
        _unpack(headers),
        _unpack(message_id),
        _unpack(key),
        due_at,
        expires_at,
    )


def _key(topic_id: int, digest: str, fingerprint: str, first_seq: int, count: int, expires_at: float) -> KeySeen:
    return KeySeen(topic_id, bytes.fromhex(digest), bytes.fromhex(fingerprint), first_seq, count, expires_at)


# Clients' texts are kept as JSON: SQLite ends one from `json_each` at U+0000, and can't read a lone surrogate back.
def _pack(value: Any) -> str | None:
    return None if value is None else json.dumps(value)


def _unpack(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _storage_error(error: sqlite3.Error) -> StorageError:
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return StorageFull("the disk is full: nothing was stored")
    return StorageFailed(f"the database failed: {error}; nothing was stored")


def _config(config: TopicConfig) -> str:
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    if isinstance(config.schema, Mapping):
        values["schema"] = dict(config.schema)
    return json.dumps(values)


def _put_topics(db: sqlite3.Connection, records: list[TopicPut]) -> None:
    rows = [(r.topic_id, r.name, _config(r.config), r.created_at, int(r.paused)) for r in records]
    db.execute(_PUT_TOPICS, (json.dumps(rows),))
    db.execute(_TOPICS_USED, (max(r.topic_id for r in records) + 1,))


def _put_groups(db: sqlite3.Connection, records: list[GroupPut]) -> None:
    db.execute(_PUT_GROUPS, (json.dumps(records),))


def _put_pushes(db: sqlite3.Connection, records: list[PushPut]) -> None:
    db.execute(_PUT_PUSHES, (json.dumps(records),))


def _drop_pushes(db: sqlite3.Connection, records: list[PushDropped]) -> None:
    db.execute(_DROP_PUSHES, (json.dumps(records),))


def _add_messages(db: sqlite3.Connection, records: list[MessageAdded]) -> None:
    rows, bodies, start = [], [], 1
    used: dict[int, int] = {}
    for topic_id, message in records:
        body = message.body
        assert body is not None
        rows.append((topic_id, *_message_row(message), start, len(body)))
        bodies.append(body)
        start += len(body)
        used[topic_id] = max(used.get(topic_id, 0), message.seq + 1)
    db.execute(_ADD_MESSAGES, (json.dumps(rows), b"".join(bodies)))
    db.execute(_SEQS_USED, (json.dumps(list(used.items())),))


def _message_row(message: Message) -> tuple[Any, ...]:
    seq, _, size, published_at, content_type, headers, message_id, key, due_at, expires_at = message
    packed_headers = None if headers is None else _pack(dict(headers))
    return seq, size, published_at, content_type, packed_headers, _pack(message_id), _pack(key), due_at, expires_at


def _set_history(db: sqlite3.Connection, records: list[HistorySet]) -> None:
    rows = [(*record[:-1], _pack(record.reason)) for record in records]
    db.execute(_SET_HISTORY, (json.dumps(rows),))


def _add_keys(db: sqlite3.Connection, records: list[KeySeen]) -> None:
    rows = [(r.topic_id, r.digest.hex(), r.fingerprint.hex(), r.first_seq, r.count, r.expires_at) for r in records]
    db.execute(_ADD_KEYS, (json.dumps(rows),))


def _clear_history(db: sqlite3.Connection, records: list[HistoryCleared]) -> None:
    db.execute(_CLEAR_HISTORY, (json.dumps(records),))


def _remove_messages(db: sqlite3.Connection, records: list[MessageRemoved]) -> None:
    keys = json.dumps(records)
    db.execute(_REMOVE_MESSAGES, (keys,))
    db.execute(_REMOVE_HISTORY, (keys,))


def _forget_keys(db: sqlite3.Connection, records: list[KeysForgotten]) -> None:
    db.execute(_FORGET_KEYS, (json.dumps(records),))


def _drop_groups(db: sqlite3.Connection, records: list[GroupDropped]) -> None:
    keys = json.dumps(records)
    for statement in _DROP_GROUPS:
        db.execute(statement, (keys,))


def _drop_topics(db: sqlite3.Connection, records: list[TopicDropped]) -> None:
    ids = json.dumps([record.topic_id for record in records])
    for statement in _DROP_TOPICS:
        db.execute(statement, (ids,))


# In this order: what is removed may have been added in the same batch, and a history that is both set and cleared in
# one has been cleared later.
_WRITERS: dict[type[Record], Callable[[sqlite3.Connection, list[Any]], None]] = {
    TopicPut: _put_topics,
    GroupPut: _put_groups,
    PushPut: _put_pushes,
    MessageAdded: _add_messages,
    HistorySet: _set_history,
    KeySeen: _add_keys,
    HistoryCleared: _clear_history,
    MessageRemoved: _remove_messages,
    KeysForgotten: _forget_keys,
    PushDropped: _drop_pushes,
    GroupDropped: _drop_groups,
    TopicDropped: _drop_topics,
}
