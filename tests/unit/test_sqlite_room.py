"""Full disks: what takes room is refused, what makes room goes on; and the log is folded beside the writer."""

import errno
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from wakeq_server.core.model import GroupPut, HistorySet, Message, MessageAdded, MessageRemoved, TopicConfig, TopicPut
from wakeq_server.errors import StartupError, StorageFailed, StorageFull
from wakeq_server.store import checkpoints
from wakeq_server.store.sqlite import DATABASE, LOCK, RESERVE, SqliteStore, take_lock

TOPIC = TopicPut(1, "t", TopicConfig(), 1.0)
GROUP = GroupPut(1, 0, "default", 1, 1)
RESERVE_BYTES = 1 << 20


def added(seq: int, size: int = 1_000) -> MessageAdded:
    return MessageAdded(1, Message(seq, b"x" * size, size, 1.5))


@contextmanager
def opened(directory: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(directory, "os", reserve_bytes=RESERVE_BYTES)) as store:
        store.load()
        yield store


@contextmanager
def filled(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteStore]:
    """A store whose disk has just become full, with messages 1 to 3,000 in it."""
    with opened(directory) as store:
        assert store._checkpointer is not None
        store._checkpointer.close()
        store.commit([[TOPIC, GROUP, *[added(seq) for seq in range(1, 3_001)]]])
        no_room(store, monkeypatch)
        with pytest.raises(StorageFull):
            store.commit([[added(3_001, 100_000)]])
        yield store


def no_room(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database can't grow, and nothing is free but what was kept."""
    assert store._db is not None
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    disk(monkeypatch, 0)


def disk(monkeypatch: pytest.MonkeyPatch, free: int, total: int = 1 << 40) -> None:
    """A disk with so many bytes free beside the reserve, and what the log takes more or less from now on."""
    logs: list[int] = []

    def left(directory: Path) -> int:
        log = directory / f"{DATABASE}-wal"
        logs.append(log.stat().st_size if log.exists() else 0)
        kept = 0 if (directory / RESERVE).exists() else min(RESERVE_BYTES, total // 8)
        return free + kept + logs[0] - logs[-1]

    monkeypatch.setattr("wakeq_server.store.reserve._free", left)
    monkeypatch.setattr("wakeq_server.store.reserve._total", lambda _: total)


def page_bytes(store: SqliteStore) -> int:
    assert store._db is not None
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    return int(pages) * 4096


def test_room_is_kept_from_the_start_and_given_back_at_the_end(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        assert (tmp_path / RESERVE).stat().st_blocks * 512 >= RESERVE_BYTES
        assert not store.full
    assert not (tmp_path / RESERVE).exists()


def refuse_to_sign(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def pwrite(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("wakeq_server.store.sqlite.os.pwrite", pwrite)


def test_a_full_disk_has_no_room_for_who_holds_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_to_sign(monkeypatch, errno.ENOSPC)
    with opened(tmp_path), pytest.raises(StartupError, match="another server \\(process unknown\\)"):
        take_lock(tmp_path)


def test_a_lock_that_can_not_be_written_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_to_sign(monkeypatch, errno.EIO)
    with closing(SqliteStore(tmp_path, "os")) as store, pytest.raises(StartupError, match=f"{LOCK}: {os.strerror(5)}"):
        store.load()
    monkeypatch.undo()
    os.close(take_lock(tmp_path))


def test_without_room_for_the_reserve_publishes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk(monkeypatch, RESERVE_BYTES // 8 - 100_000)
    with opened(tmp_path) as store:
        assert store.full
        with pytest.raises(StorageFull):
            store.commit([[TOPIC]])
        monkeypatch.undo()
        store.commit([[TOPIC]])
        assert not store.full


def test_a_full_disk_takes_settles_and_refuses_publishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with filled(tmp_path, monkeypatch) as store:
        assert store.full
        assert not (tmp_path / RESERVE).exists()
        with pytest.raises(StorageFull, match="settles go on"):
            store.commit([[added(3_001, 1)]])
        store.commit([[MessageRemoved(1, 1), HistorySet(1, 0, 2, "ready", 1)]])
        assert [message.seq for message in store.read_bodies(1, 1, 3)] == [2, 3]


def test_a_full_disk_takes_settles_of_several_groups_but_no_new_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filled(tmp_path, monkeypatch) as store:
        store.commit([[GROUP._replace(cursor=9), HistorySet(1, 0, 8, "leased", 1)]])
        with pytest.raises(StorageFull):
            store.commit([[GROUP._replace(cursor=10), GroupPut(1, 1, "new", 9, 9)]])
        assert store._db is not None
        assert store._db.execute("SELECT id, cursor FROM grp").fetchall() == [(0, 9)]


def test_a_settle_that_finds_the_disk_full_goes_by_the_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as store:
        store.commit([[TOPIC, GROUP, added(1)]])
        failing = FailingOnce(store, monkeypatch)
        disk(monkeypatch, 0)
        store.commit([[GROUP._replace(cursor=2), MessageRemoved(1, 1)]])
        assert failing.failed
        assert not (tmp_path / RESERVE).exists()
        assert store.read_bodies(1, 1, 1) == []


class FailingOnce:
    """Has the disk be full for the next transaction, until the reserve is there no more."""

    def __init__(self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failed = False
        self._write = store._write
        monkeypatch.setattr(store, "_write", self)

    def __call__(self, *arguments: Any) -> None:
        if not self.failed:
            self.failed = True
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        self._write(*arguments)


def test_a_log_that_needs_more_room_than_there_is_stays_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with filled(tmp_path, monkeypatch) as store:
        database = tmp_path / DATABASE
        assert page_bytes(store) - database.stat().st_size > RESERVE_BYTES
        before = database.stat().st_size
        store.commit([[MessageRemoved(1, 1)]])
        assert database.stat().st_size == before


def test_a_log_that_finds_its_room_is_emptied_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / f"{DATABASE}-wal"
    with opened(tmp_path) as store:
        store.commit([[TOPIC, GROUP, added(1)]])
        assert log.stat().st_size
        no_room(store, monkeypatch)
        with pytest.raises(StorageFull):
            store.commit([[added(2, 100_000)]])
        assert log.stat().st_size == 0


def test_a_log_that_finds_no_room_stops_publishes_before_the_reserve_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        store.commit([[TOPIC, GROUP, *[added(seq) for seq in range(1, 100)]]])
        disk(monkeypatch, 10_000)
        assert store._checkpointer is not None
        assert store._db is not None
        store._checkpointer._fold(store._db)
        with pytest.raises(StorageFull):
            store.commit([[added(100)]])
        assert (tmp_path / RESERVE).exists()
        disk(monkeypatch, 10_000_000)
        store.commit([[added(100)]])


def test_what_is_read_for_long_keeps_no_commit_waiting(tmp_path: Path) -> None:
    with opened(tmp_path) as store, closing(sqlite3.connect(tmp_path / DATABASE)) as reader:
        store.commit([[TOPIC, GROUP, added(1)]])
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM message").fetchone()
        store.commit([[added(2)]])
        assert store._checkpointer is not None
        assert store._db is not None
        store._checkpointer.overlong = True
        store._db.execute("PRAGMA busy_timeout = 600000")
        commit = threading.Thread(target=store.commit, args=([[added(3)]],))
        commit.start()
        commit.join(20)
        held_up = commit.is_alive()
        reader.execute("ROLLBACK")
        commit.join()
        assert not held_up
        assert store._db.execute("PRAGMA busy_timeout").fetchone() == (600_000,)


@pytest.mark.parametrize("total", [1 << 40, 4 << 20])
def test_room_comes_back_where_messages_have_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int) -> None:
    size = min(RESERVE_BYTES, total // 8)
    with opened(tmp_path) as store:
        # It would fold the log at a moment of its own, and so make room.
        assert store._checkpointer is not None
        store._checkpointer.close()
        store.commit([[TOPIC, GROUP, *[added(seq) for seq in range(1, 201)]]])
        no_room(store, monkeypatch)
        assert store._db is not None
        checkpoints.begin_anew(store._db, "TRUNCATE")
        disk(monkeypatch, 0, total)
        with pytest.raises(StorageFull):
            store.commit([[added(201, 100_000)]])
        drained = 0
        for seq in range(1, 201):
            store.commit([[MessageRemoved(1, seq)]])
            drained += 1_000
            if not store.full:
                break
        # About an eighth of what is kept, so that a message more or less isn't the difference each time.
        assert size // 16 < drained < size // 4
        store.commit([[added(201, 10)]])


def test_a_publish_that_would_use_up_the_reserve_is_refused_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        store.commit([[TOPIC, GROUP]])
        disk(monkeypatch, 5_000_000)
        with pytest.raises(StorageFull):
            store.commit([[added(1, 3_000_000)]])
        assert (tmp_path / RESERVE).exists()
        store.commit([[added(2, 1_000)]])
        assert not store.full


def test_what_is_kept_of_a_small_disk_is_an_eighth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk(monkeypatch, 1 << 20, total=1 << 20)
    with opened(tmp_path) as store:
        assert (tmp_path / RESERVE).stat().st_size == 1 << 17
        assert not store.full


def test_what_a_killed_server_has_kept_is_there_for_the_next_to_start_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        store.commit([[TOPIC, GROUP]])
    (tmp_path / RESERVE).write_bytes(bytes(RESERVE_BYTES))
    disk(monkeypatch, 0)
    created = SqliteStore._open

    def open_without(store: SqliteStore) -> sqlite3.Connection:
        assert not (tmp_path / RESERVE).exists()
        return created(store)

    monkeypatch.setattr(SqliteStore, "_open", open_without)
    with opened(tmp_path) as store:
        assert store.full


def test_a_disk_with_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with filled(tmp_path, monkeypatch) as store:
        monkeypatch.undo()
        assert store._db is not None
        store._db.execute("PRAGMA max_page_count = 1000000")
        store.commit([[added(3_001, 100_000)]])
        assert not store.full
        assert (tmp_path / RESERVE).exists()


def test_a_connection_that_failed_is_made_anew(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.commit([[TOPIC, GROUP]])
        first = store._db
        assert first is not None
        first.execute("PRAGMA query_only = ON")
        with pytest.raises(StorageFailed, match="readonly"):
            store.commit([[added(1)]])
        store.commit([[added(1)]])
        assert store._db is not first


def test_the_log_is_folded_beside_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "FOLD_BYTES", 1)
    with opened(tmp_path) as store:
        store.commit([[TOPIC, GROUP, added(1)]])
        assert store._checkpointer is not None
        # Its end waits for what it does.
        store._checkpointer.close()
        with closing(sqlite3.connect(f"{(tmp_path / DATABASE).as_uri()}?immutable=1", uri=True)) as db:
            assert db.execute("SELECT count(*) FROM message").fetchone() == (1,)


def test_an_overlong_log_is_begun_anew_by_the_writer(tmp_path: Path) -> None:
    log = tmp_path / f"{DATABASE}-wal"
    with opened(tmp_path) as store:
        store.commit([[TOPIC, GROUP, *[added(seq) for seq in range(1, 500)]]])
        long = log.stat().st_size
        assert store._checkpointer is not None
        store._checkpointer.close()
        store._checkpointer.overlong = True
        for seq in range(500, 520):
            store.commit([[added(seq)]])
        assert not store._checkpointer.overlong
        assert log.stat().st_size == long
