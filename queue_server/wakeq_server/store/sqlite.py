"""The store in one SQLite file, in WAL mode.

A transaction is a few statements, however many rows it has: each kind of change is one statement that takes all its
rows as one JSON array (`json_each`); but messages are added by statements of up to 256 rows, and those that go in runs
go by a statement a run. sqlite3 lets go of the GIL around every step, and getting it back from a busy event loop takes
up to a switch interval; a statement a row would pay that a row.

Three connections: the writer's, one that reads bodies while the writer waits for the disk, and one that folds the log
into the database (`checkpoints`).

One process owns a data directory: it holds a lock on the file `lock` for as long as it runs. SQLite's own locks
would let a second server in between two transactions.
"""

import contextlib
import errno
import fcntl
import os
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, TypeVar

from wakeq._serving.directories import make_directory
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
    TopicDropped,
    TopicPut,
)
from wakeq_server.errors import StartupError, StorageError, StorageFailed, StorageFull
from wakeq_server.store import rows, schema
from wakeq_server.store.checkpoints import Checkpointer, begin_anew
from wakeq_server.store.reserve import RESERVE_BYTES, Reserve
from wakeq_server.store.rows import SEQ_BITS, SEQ_MASK, Damaged
from wakeq_server.store.schema import FORMAT

DATABASE = "wakeq.sqlite3"
LOCK = "lock"
RESERVE = "reserve"
REPAIRED = "repaired"
"""Where a repair makes its database."""
_CACHE_KIB = 8 * 1024
_SLOTS = 1 << 63 - SEQ_BITS

_PUT_TOPICS = f"""
INSERT INTO topic ({rows.TOPIC})
SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6 FROM json_each(?) WHERE true
ON CONFLICT (id) DO UPDATE SET
    name = excluded.name, config = excluded.config, paused = excluded.paused, crc = excluded.crc
"""
_TOPICS_USED = """
UPDATE boot SET next_topic = max(next_topic, ?1), next_topic_again = min(next_topic_again, -?1)
"""
_PUT_GROUPS = f"""
INSERT OR REPLACE INTO grp ({rows.GROUP})
SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5 FROM json_each(?)
"""
_PUT_PUSHES = f"""
INSERT OR REPLACE INTO push ({rows.PUSH})
SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7 FROM json_each(?)
"""
_DROP_PUSHES = """
DELETE FROM push WHERE (topic, name) IN (
    SELECT push.topic, push.name FROM json_each(?) AS gone
    CROSS JOIN push ON (push.topic, push.name, push.id) = (gone.value->>0, gone.value->>1, gone.value->>2))
"""
_ADD_COUNTS = (256, 128, 64, 32, 16, 8, 4, 2, 1)
"""Rows that one statement adds: so a commit has a few of them, and SQLite knows all of their texts."""


def _adding(columns: str) -> dict[int, str]:
    row = f"({','.join('?' * (columns.count(',') + 1))})"
    return {count: f"INSERT INTO message ({columns}) VALUES {','.join([row] * count)}" for count in _ADD_COUNTS}


_ADD_MESSAGES = _adding(f"{rows.MESSAGE}, body")
# To bind a None takes Python's sqlite3 half as long as all else that a row takes.
_ADD_PLAIN_MESSAGES = _adding(rows.PLAIN_MESSAGE)
_SEQS_USED = """
UPDATE topic SET next_seq = max(next_seq, used.value->>1), next_seq_again = min(next_seq_again, -(used.value->>1))
FROM json_each(?) AS used WHERE topic.id = used.value->>0
"""
_SET_HISTORY = f"""
INSERT OR REPLACE INTO history ({rows.HISTORY})
SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7, value->>8, value->>9,
    value->>10
FROM json_each(?)
"""
_ADD_KEYS = f"""
INSERT OR REPLACE INTO seen ({rows.SEEN})
SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6 FROM json_each(?)
"""
_CLEAR_HISTORY = """
DELETE FROM history WHERE (topic, grp, seq) IN (SELECT value->>0, value->>1, value->>2 FROM json_each(?))
"""
_REMOVE_RUN = "DELETE FROM message WHERE id BETWEEN ? AND ?"
_REMOVE_HISTORY_OF_RUN = """
DELETE FROM history WHERE topic = ?1 AND grp IN (SELECT id FROM grp WHERE topic = ?1) AND seq BETWEEN ?2 AND ?3
"""
_RUN_MIN = 8
"""Messages with consecutive seqs, from which on a statement of their own costs less than being named one by one."""
_REMOVE_MESSAGES = "DELETE FROM message WHERE id IN (SELECT value FROM json_each(?))"
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
    f"""DELETE FROM message WHERE id IN (
        SELECT message.id FROM json_each(?) AS gone CROSS JOIN topic ON topic.id = gone.value
        CROSS JOIN message ON message.id BETWEEN topic.slot << {SEQ_BITS} AND (topic.slot << {SEQ_BITS}) + {SEQ_MASK})
    """,
    "DELETE FROM grp WHERE topic IN (SELECT value FROM json_each(?))",
    "DELETE FROM push WHERE topic IN (SELECT value FROM json_each(?))",
    "DELETE FROM history WHERE topic IN (SELECT value FROM json_each(?))",
    "DELETE FROM seen WHERE topic IN (SELECT value FROM json_each(?))",
    "DELETE FROM topic WHERE id IN (SELECT value FROM json_each(?))",
)

_SEQ = f"(message.id & {SEQ_MASK})"
_SPECIAL = "(key IS NOT NULL OR message.due_at IS NOT NULL OR expires_at IS NOT NULL)"
# Nobody wants a message only if every group has passed it, or one has marked it as gone: the others are not looked at.
_WANTED = f"""EXISTS (
    SELECT 1 FROM grp LEFT JOIN history ON (history.topic, history.grp, history.seq) = (grp.topic, grp.id, {_SEQ})
    WHERE grp.topic = topic.id AND {_SEQ} >= grp.start AND CASE
        WHEN history.seq IS NOT NULL THEN history.standing <> 'gone'
        ELSE {_SEQ} >= grp.cursor OR {_SPECIAL}
        END)"""
_SWEEP = (
    f"""
    DELETE FROM message WHERE id IN (
        SELECT message.id FROM topic CROSS JOIN message ON message.id >= topic.slot << {SEQ_BITS}
            AND message.id < (topic.slot << {SEQ_BITS}) + (
                SELECT coalesce(min(max(start, cursor)), topic.next_seq) FROM grp WHERE grp.topic = topic.id)
        WHERE NOT {_WANTED}
        UNION SELECT message.id FROM history AS gone CROSS JOIN topic ON topic.id = gone.topic
        CROSS JOIN message ON message.id = (topic.slot << {SEQ_BITS}) + gone.seq
        WHERE gone.standing = 'gone' AND NOT {_WANTED})
    """,
    f"""
    DELETE FROM history WHERE
        NOT EXISTS (SELECT 1 FROM topic CROSS JOIN message ON message.id = (topic.slot << {SEQ_BITS}) + history.seq
            WHERE topic.id = history.topic)
        OR NOT EXISTS (SELECT 1 FROM grp WHERE (grp.topic, grp.id) = (history.topic, history.grp))
    """,
    # What was on its way into a topic that was deleted before it.
    "DELETE FROM grp WHERE topic NOT IN (SELECT id FROM topic)",
    "DELETE FROM seen WHERE topic NOT IN (SELECT id FROM topic)",
    "DELETE FROM push WHERE NOT EXISTS (SELECT 1 FROM grp WHERE (grp.topic, grp.id) = (push.topic, push.grp))",
)
# Not one more than the last alone: a backup that is put back doesn't know of the starts after it was made, and no lease
# id may recur.
_NEW_EPOCH = "UPDATE boot SET (epoch, epoch_again) = (max(epoch + 1, ?1), -max(epoch + 1, ?1))"

_READ_RUNS = f"""
SELECT min(id) >> {SEQ_BITS}, min(id) & {SEQ_MASK}, max(id) & {SEQ_MASK}, sum(size) FROM (
    SELECT id, size, id - row_number() OVER (ORDER BY id) AS island FROM message WHERE NOT {_SPECIAL})
GROUP BY island ORDER BY 1, 2
"""
_READ_OTHERS = f"SELECT {rows.MESSAGE} FROM message WHERE {_SPECIAL} ORDER BY id"
_READ_BODIES = f"SELECT body, {rows.MESSAGE} FROM message WHERE id BETWEEN ? AND ? ORDER BY id"
# Oldest first: the core forgets keys from that end.
_READ_KEYS = f"SELECT {rows.SEEN} FROM seen ORDER BY topic, expires_at"

_GROWING = frozenset({TopicPut, PushPut, MessageAdded})
"""Records that take room, and keep it; a group's does when it is a new one."""
_NEW_GROUPS = """
SELECT EXISTS (SELECT 1 FROM json_each(?) AS put
    WHERE NOT EXISTS (SELECT 1 FROM grp WHERE (topic, id) = (put.value->>0, put.value->>1)))
"""


class SqliteStore:
    """A store in a directory: `wakeq.sqlite3`, its log, a lock file, and the reserve."""

    durable = True

    def __init__(
        self, directory: Path, durability: Literal["fsync", "os"], *, reserve_bytes: int = RESERVE_BYTES
    ) -> None:
        """``fsync`` syncs every commit; ``os`` leaves that to the operating system."""
        self.full = False
        self._directory = directory
        self._path = directory / DATABASE
        self._synchronous = "FULL" if durability == "fsync" else "NORMAL"
        self._lock: int | None = None
        self._db: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._checkpointer: Checkpointer | None = None
        self._reserve = Reserve(directory / RESERVE, self._path, reserve_bytes)
        self._slots: dict[int, int] = {}
        """By topic id: what stands above the seqs in its messages' numbers."""
        self._free_slots: list[int] = []
        self._file = (0, 0)
        self._suspect = False
        """Whether the writer's connection has failed in a way that it may not have got over."""

    def load(self) -> Snapshot:
        """Take the directory, open or make the database, and read it whole."""
        try:
            self._take_directory()
            # A killed server has left its own; there may be no other room to start in.
            self._reserve.release()
            self._db = db = self._open()
            snapshot = self._read(db)
            self._reader = self._connect()
            self._checkpointer = Checkpointer(self._connect, self._reserve)
            self.full = not self._reserve.regain(db)
        except OSError as error:
            named = f"{error.filename}: " if error.filename not in (None, os.fspath(self._directory)) else ""
            raise StartupError(
                f"the data directory {self._directory} can't be used: {named}{error.strerror or error}",
                "name another one with --data, or run without one: --durability memory",
            ) from error
        except (Damaged, sqlite3.Error) as error:
            raise StartupError(f"the database {self._path} can't be used: {error}", self._hint(error)) from error
        return snapshot

    def _hint(self, error: Exception) -> str:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            return "make room on its disk: a server needs some to start, and more to take messages"
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            return "let the user that runs the server write it and its directory, or name another one with --data"
        return f"see what can be saved with `wakeq doctor --data {self._directory}`, or restore a backup"

    # Writing

    def commit(self, transactions: Sequence[Iterable[Record]]) -> None:
        """One SQLite transaction for all of them."""
        kinds: defaultdict[type[Record], list[Any]] = defaultdict(list)
        for transaction in transactions:
            for kind, records in groupby(transaction, type):
                kinds[kind] += records
        db = self._writer()
        try:
            self._look_for_room(db, kinds)
            self._write(db, kinds)
        except sqlite3.Error as error:
            failure = self._failure(db, error)
            if not isinstance(failure, StorageFull):
                raise failure from error
            # There is room now that was kept for this.
            self._write_again(db, kinds)

    def _look_for_room(self, db: sqlite3.Connection, kinds: dict[type[Record], list[Any]]) -> None:
        """Raises StorageFull where that grows and there is none. Most commits needn't be asked."""
        checkpointer = self._checkpointer
        assert checkpointer is not None
        if self.full or checkpointer.cramped or not self._reserve.held:
            checkpointer.cramped = False
            self.full = not self._reserve.regain(db)
        size = sum(record.message.size for record in kinds.get(MessageAdded, ()))
        if (self.full and self._grows(db, kinds)) or (size > checkpointer.step and not self._reserve.regain(db, size)):
            raise StorageFull

    def _grows(self, db: sqlite3.Connection, kinds: dict[type[Record], list[Any]]) -> bool:
        if not _GROWING.isdisjoint(kinds):
            return True
        return bool(db.execute(_NEW_GROUPS, (rows.keys(kinds.get(GroupPut, ())),)).fetchone()[0])

    def _write_again(self, db: sqlite3.Connection, kinds: dict[type[Record], list[Any]]) -> None:
        try:
            self._look_for_room(db, kinds)
            self._write(db, kinds)
        except sqlite3.Error as error:
            raise self._failure(db, error) from error

    def _write(self, db: sqlite3.Connection, kinds: dict[type[Record], list[Any]]) -> None:
        batch = _Batch(self._slots, self._free_slots)
        checkpointer = self._checkpointer
        assert checkpointer is not None
        if checkpointer.overlong:
            checkpointer.overlong = False
            self._begin_log_anew(db, "RESTART")
        try:
            db.execute("BEGIN IMMEDIATE")
            for kind, write in _WRITERS.items():
                if kind in kinds:
                    write(batch, db, kinds[kind])
            db.execute("COMMIT")
        except BaseException:
            _roll_back(db)
            raise
        self._slots, self._free_slots = batch.slots, batch.free_slots
        checkpointer.committed(batch.size)

    def _writer(self) -> sqlite3.Connection:
        """The writer's connection. Raises StorageFailed."""
        assert self._db is not None
        try:
            if self._suspect:
                self._db.close()
                self._db = self._connect()
                self._suspect = False
            found = self._path.stat()
        except (OSError, sqlite3.Error) as error:
            raise StorageFailed(f"the database can't be reached: {error}") from error
        if (found.st_dev, found.st_ino) != self._file:
            # What is written to a deleted file is gone when the server ends.
            raise StorageFailed(f"the database {self._path} was removed or replaced while the server ran")
        return self._db

    def _failure(self, db: sqlite3.Connection, error: sqlite3.Error) -> StorageError:
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_FULL or (
            code is not None and code & 0xFF == sqlite3.SQLITE_IOERR and self._reserve.used_up()
        ):
            self.full = True
            self._reserve.release()
            with contextlib.suppress(sqlite3.Error):
                self._begin_log_anew(db, "TRUNCATE")
            return StorageFull()
        self._suspect = True
        return StorageFailed(f"the database failed: {error}; nothing was stored")

    def _begin_log_anew(self, db: sqlite3.Connection, how: Literal["RESTART", "TRUNCATE"]) -> None:
        if self._reserve.may_fold(db):
            begin_anew(db, how)

    # Reading

    def read_bodies(self, topic_id: int, first: int, last: int) -> list[Message]:
        """One range of the primary key."""
        reader, slot = self._reader, self._slots.get(topic_id)
        assert reader is not None
        if slot is None:
            return []
        try:
            found = reader.execute(_READ_BODIES, (slot << SEQ_BITS | first, slot << SEQ_BITS | last)).fetchall()
        except sqlite3.Error as error:
            raise StorageFailed(f"the database can't be read: {error}") from error
        return [_whole(row) for row in found]

    def _read(self, db: sqlite3.Connection) -> Snapshot:
        db.execute("BEGIN IMMEDIATE")
        for statement in _SWEEP:
            db.execute(statement)
        db.execute(_NEW_EPOCH, (int(time.time()),))
        db.execute("COMMIT")
        db.execute(f"PRAGMA synchronous = {self._synchronous}")
        self._slots = dict(db.execute("SELECT id, slot FROM topic"))
        self._free_slots = sorted(set(range(1, max(self._slots.values(), default=0))) - {*self._slots.values()})
        return _snapshot(db, {slot: topic_id for topic_id, slot in self._slots.items()})

    # Opening and closing

    def close(self) -> None:
        """Close the database, which folds the log into it, and let go of the lock and the reserve."""
        if self._checkpointer is not None:
            self._checkpointer.close()
            self._checkpointer = None
        for connection in (self._reader, self._db):
            if connection is not None:
                connection.close()
        self._reader = self._db = None
        self._reserve.release()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_directory(self) -> None:
        try:
            make_directory(self._directory)
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
        self._lock = take_lock(self._directory)

    def _open(self) -> sqlite3.Connection:
        if not self._path.exists():
            refusal = missing_database(self._directory)
            if refusal is not None:
                raise refusal
            self._create()
        found = self._path.stat()
        # SQLite takes so short a file for a new database.
        if found.st_size < schema.PAGE_MIN:
            raise Damaged(f"of the file only {found.st_size} bytes are left")
        self._file = found.st_dev, found.st_ino
        db = connected(self._path)
        try:
            version = schema.checked_version(db, self._path)
            # Until the epoch has been raised: lease ids must not repeat, whatever else a power cut takes.
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA journal_mode = WAL")
            # The others read each page once.
            db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            if version < FORMAT:
                schema.upgrade(db, version)
            schema.check(db)
        except BaseException:
            db.close()
            raise
        return db

    def _create(self) -> None:
        """Under another name first, so that a database is whole or not there."""
        new = self._path.with_suffix(".new")
        new.unlink(missing_ok=True)
        with contextlib.closing(connected(new, mode="rwc")) as db:
            schema.create(db)
        new.rename(self._path)

    def _connect(self) -> sqlite3.Connection:
        db = connected(self._path)
        db.execute(f"PRAGMA synchronous = {self._synchronous}")
        return db


def missing_database(directory: Path) -> StartupError | None:
    """Why a directory without a database is not a new one: what is there only beside one must not be forgotten."""
    if (directory / REPAIRED / DATABASE).exists():
        return StartupError(
            f"a repair of the database in {directory} was interrupted",
            f"finish it with `wakeq doctor --repair --data {directory}`",
        )
    log = directory / f"{DATABASE}-wal"
    if log.exists() and log.stat().st_size:
        return StartupError(
            f"the database {directory / DATABASE} is missing, but its log {log.name} is there",
            "put the database back beside its log, or move the log away and restore a backup or start anew",
        )
    return None


def connected(path: Path, mode: str = "rw") -> sqlite3.Connection:
    """A connection to a database; ``mode`` is that of SQLite's URIs: `rwc` makes one. Raises sqlite3.Error."""
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
    )
    # On macOS fsync() alone leaves data in the drive's cache.
    db.execute("PRAGMA fullfsync = ON")
    db.execute("PRAGMA wal_autocheckpoint = 0")
    # Where it is on, as Debian has it, a delete writes as much as it frees.
    db.execute("PRAGMA secure_delete = OFF")
    return db


def take_lock(directory: Path) -> int:
    """The lock of a data directory, until it is closed. Raises StartupError, OSError."""
    path = directory / LOCK
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _sign(lock)
    except BlockingIOError:
        owner = os.pread(lock, 32, 0).decode(errors="replace").strip()
        os.close(lock)
        raise StartupError(
            f"the data directory {directory} is in use by another server (process {owner or 'unknown'})",
            "stop that one, or name another directory with --data",
        ) from None
    except OSError as error:
        os.close(lock)
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    return lock


def _sign(lock: int) -> None:
    """Say who holds it. On a full disk that can't be said, and need not be."""
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def _roll_back(db: sqlite3.Connection) -> None:
    # SQLite has rolled back by itself after some errors, and then has no transaction to roll back.
    with contextlib.suppress(sqlite3.Error):
        db.execute("ROLLBACK")


def _whole(row: rows.Row) -> Message:
    """A message with its body; without one where it is damaged."""
    try:
        return rows.message_of(row[1:], row[0])
    except Damaged:
        return Message(row[1] & SEQ_MASK, None, 0, 0.0)


def _snapshot(db: sqlite3.Connection, topic_in: dict[int, int]) -> Snapshot:
    def read(table: str, columns: str, order: str) -> Iterator[rows.Row]:
        return db.execute(f"SELECT {columns} FROM {table} ORDER BY {order}")

    epoch, next_topic = db.execute("SELECT epoch, next_topic FROM boot").fetchone()
    return Snapshot(
        epoch=epoch,
        topics=tuple(map(rows.topic_of, read("topic", rows.TOPIC, "id"))),
        groups=tuple(map(rows.group_of, read("grp", rows.GROUP, "topic, id"))),
        pushes=tuple(map(rows.push_of, read("push", rows.PUSH, "topic, name"))),
        runs=tuple(Run(topic_in[slot], *rest) for slot, *rest in db.execute(_READ_RUNS)),
        others=tuple(
            MessageAdded(topic_in[row[0] >> SEQ_BITS], rows.message_of(row, None)) for row in db.execute(_READ_OTHERS)
        ),
        histories=tuple(map(rows.history_of, read("history", rows.HISTORY, "topic, grp, seq"))),
        keys=tuple(map(rows.key_of, db.execute(_READ_KEYS))),
        next_topic_id=next_topic,
        next_seq=dict(db.execute("SELECT id, next_seq FROM topic")),
    )


_OfTopic = TypeVar("_OfTopic", MessageAdded, MessageRemoved)


class _Batch:
    """What is written in one transaction. Slots are taken and given back in it, so that they are not if it fails."""

    def __init__(self, slots: dict[int, int], free_slots: list[int]) -> None:
        self.slots = slots
        self.free_slots = free_slots
        self.size = 0
        self._copied = False

    def number(self, topic_id: int, seq: int) -> int | None:
        """A message's number; None where its topic has gone."""
        slot = self.slots.get(topic_id)
        return None if slot is None else slot << SEQ_BITS | seq

    def take_slot(self, topic_id: int) -> int:
        """The slot of a topic, another one's of before if need be."""
        if topic_id not in self.slots:
            self._copy()
            slot = self.free_slots.pop() if self.free_slots else len(self.slots) + 1
            if slot >= _SLOTS:
                raise StorageFailed(f"there can be no more than {_SLOTS - 1:,} topics")
            self.slots[topic_id] = slot
        return self.slots[topic_id]

    def free_slot(self, topic_id: int) -> None:
        """A topic goes, with its messages: its slot can be another's."""
        self._copy()
        slot = self.slots.pop(topic_id, None)
        if slot is not None:
            self.free_slots.append(slot)

    def _copy(self) -> None:
        if not self._copied:
            self.slots, self.free_slots, self._copied = dict(self.slots), list(self.free_slots), True

    # A writer a kind of record

    def put_topics(self, db: sqlite3.Connection, records: list[TopicPut]) -> None:
        sealed = rows.sealed(rows.topic_row(record, self.take_slot(record.topic_id)) for record in records)
        db.execute(_PUT_TOPICS, (sealed,))
        db.execute(_TOPICS_USED, (max(record.topic_id for record in records) + 1,))

    def put_groups(self, db: sqlite3.Connection, records: list[GroupPut]) -> None:
        db.execute(_PUT_GROUPS, (rows.sealed(map(rows.group_row, records)),))

    def put_pushes(self, db: sqlite3.Connection, records: list[PushPut]) -> None:
        db.execute(_PUT_PUSHES, (rows.sealed(map(rows.push_row, records)),))

    def add_messages(self, db: sqlite3.Connection, records: list[MessageAdded]) -> None:
        used: dict[int, int] = {}
        numbered: list[tuple[int, Message]] = []
        for topic_id, records_of_topic in _by_topic(records):
            slot = self.slots.get(topic_id)
            # Of a topic that has gone meanwhile; its publisher is told.
            if slot is None:
                continue
            messages = [record.message for record in records_of_topic]
            numbered += [(slot << SEQ_BITS | message.seq, message) for message in messages]
            self.size += sum([message.size for message in messages])
            used[topic_id] = max(message.seq for message in messages) + 1
        plain, others = rows.message_values(numbered)
        _add(db, _ADD_PLAIN_MESSAGES, plain)
        _add(db, _ADD_MESSAGES, others)
        db.execute(_SEQS_USED, (rows.keys(used.items()),))
        self.size += 200 * len(numbered)

    def set_history(self, db: sqlite3.Connection, records: list[HistorySet]) -> None:
        db.execute(_SET_HISTORY, (rows.sealed(map(rows.history_row, records)),))
        self.size += 200 * len(records)

    def add_keys(self, db: sqlite3.Connection, records: list[KeySeen]) -> None:
        db.execute(_ADD_KEYS, (rows.sealed(map(rows.key_row, records)),))
        self.size += 200 * len(records)

    def clear_history(self, db: sqlite3.Connection, records: list[HistoryCleared]) -> None:
        db.execute(_CLEAR_HISTORY, (rows.keys(records),))

    def remove_messages(self, db: sqlite3.Connection, records: list[MessageRemoved]) -> None:
        single: list[tuple[int, int]] = []
        for topic_id, records_of_topic in _by_topic(records):
            for first, last in _runs(sorted({record.seq for record in records_of_topic})):
                if last - first + 1 < _RUN_MIN:
                    single += [(topic_id, seq) for seq in range(first, last + 1)]
                    continue
                slot = self.slots.get(topic_id)
                if slot is not None:
                    db.execute(_REMOVE_RUN, (slot << SEQ_BITS | first, slot << SEQ_BITS | last))
                db.execute(_REMOVE_HISTORY_OF_RUN, (topic_id, first, last))
        if single:
            numbers = [number for topic_id, seq in single if (number := self.number(topic_id, seq)) is not None]
            db.execute(_REMOVE_MESSAGES, (rows.keys(numbers),))
            db.execute(_REMOVE_HISTORY, (rows.keys(single),))
        self.size += 200 * len(records)

    def forget_keys(self, db: sqlite3.Connection, records: list[KeysForgotten]) -> None:
        db.execute(_FORGET_KEYS, (rows.keys((record.topic_id, rows.micros(record.before)) for record in records),))

    def drop_pushes(self, db: sqlite3.Connection, records: list[PushDropped]) -> None:
        db.execute(_DROP_PUSHES, (rows.keys(records),))

    def drop_groups(self, db: sqlite3.Connection, records: list[GroupDropped]) -> None:
        gone = rows.keys(records)
        for statement in _DROP_GROUPS:
            db.execute(statement, (gone,))

    def drop_topics(self, db: sqlite3.Connection, records: list[TopicDropped]) -> None:
        ids = rows.keys(record.topic_id for record in records)
        for statement in _DROP_TOPICS:
            db.execute(statement, (ids,))
        for record in records:
            self.free_slot(record.topic_id)


def _add(db: sqlite3.Connection, statements: dict[int, str], values: list[Any]) -> None:
    start, width = 0, statements[1].count("?")
    for count, statement in statements.items():
        step = count * width
        while len(values) - start >= step:
            db.execute(statement, values[start : start + step])
            start += step


def _by_topic(records: Iterable[_OfTopic]) -> Iterable[tuple[int, list[_OfTopic]]]:
    found: defaultdict[int, list[_OfTopic]] = defaultdict(list)
    for topic_id, same in groupby(records, key=itemgetter(0)):
        found[topic_id] += same
    return found.items()


def _runs(seqs: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The first and the last of each run of consecutive seqs, of seqs in order."""
    first = last = seqs[0]
    for seq in seqs:
        if seq > last + 1:
            yield first, last
            first = seq
        last = seq
    yield first, last


# In this order: what is removed may have been added in the same batch, and a history that is both set and cleared in
# one has been cleared later.
_WRITERS: dict[type[Record], Callable[[_Batch, sqlite3.Connection, list[Any]], None]] = {
    TopicPut: _Batch.put_topics,
    GroupPut: _Batch.put_groups,
    PushPut: _Batch.put_pushes,
    MessageAdded: _Batch.add_messages,
    HistorySet: _Batch.set_history,
    KeySeen: _Batch.add_keys,
    HistoryCleared: _Batch.clear_history,
    MessageRemoved: _Batch.remove_messages,
    KeysForgotten: _Batch.forget_keys,
    PushDropped: _Batch.drop_pushes,
    GroupDropped: _Batch.drop_groups,
    TopicDropped: _Batch.drop_topics,
}
