"""Full disks: what takes room is refused, what makes room goes on; and the log is folded beside the writer."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from wakeq_server.core.model import GroupPut, HistorySet, Message, MessageAdded, MessageRemoved, TopicConfig, TopicPut
from wakeq_server.errors import StorageFailed, StorageFull
from wakeq_server.store import checkpoints
from wakeq_server.store.sqlite import DATABASE, RESERVE, SqliteStore

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
        store.commit([[TOPIC, GROUP, *[added(seq) for seq in range(1, 3_001)]]])
        no_room(store, monkeypatch)
        with pytest.raises(StorageFull):
            store.commit([[added(3_001, 100_000)]])
        yield store


def no_room(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database can't grow, and nothing else may either."""
    assert store._db is not None
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    monkeypatch.setattr("wakeq_server.store.reserve._free", lambda _: 0)


def test_room_is_kept_from_the_start_and_given_back_at_the_end(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        assert (tmp_path / RESERVE).stat().st_blocks * 512 >= RESERVE_BYTES
        assert not store.full
    assert not (tmp_path / RESERVE).exists()


def test_without_room_for_the_reserve_publishes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wakeq_server.store.reserve._free", lambda _: 2 * RESERVE_BYTES - 1)
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


def test_where_messages_have_gone_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with filled(tmp_path, monkeypatch) as store:
        store.commit([[MessageRemoved(1, seq) for seq in range(1, 2_900)]])
        store.commit([[added(3_001, 1)]])
        assert not store.full


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
        store._checkpointer.overlong = True
        for seq in range(500, 520):
            store.commit([[added(seq)]])
        assert not store._checkpointer.overlong
        assert log.stat().st_size == long
