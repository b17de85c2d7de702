"""Databases of older formats, kept as they were written, become ones of this."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.core import claim
from wakeq_server.core.model import GroupPut, HistorySet, Message, Run, TopicConfig, TopicPut
from wakeq_server.core.restore import restore
from wakeq_server.errors import StartupError
from wakeq_server.store.schema import FORMAT
from wakeq_server.store.sqlite import DATABASE, SqliteStore

KEPT = Path(__file__).parent / "stores"


@pytest.fixture
def format_1(tmp_path: Path) -> Path:
    shutil.copy(KEPT / "format-1.sqlite3", tmp_path / DATABASE)
    return tmp_path


def test_format_1(format_1: Path) -> None:
    with closing(SqliteStore(format_1, "os")) as store:
        snapshot = store.load()
        image, text = store.read_bodies(3, 1, 9)
        jobs = store.read_bodies(1, 1, 9)
    assert snapshot.epoch > 1
    assert snapshot.next_topic_id == 4
    assert snapshot.topics[0] == TopicPut(1, "jobs", TopicConfig(lease_s=45.0), 1_760_000_000.25)
    assert [topic.name for topic in snapshot.topics] == ["jobs", "empty", "fichiers é"]
    assert snapshot.groups == (
        GroupPut(1, 0, "default", 1, 7),
        GroupPut(2, 0, "default", 1, 1),
        GroupPut(3, 0, "default", 1, 1),
    )
    assert snapshot.next_seq == {1: 9, 2: 1, 3: 3}
    assert snapshot.runs == (Run(1, 2, 8, 7 * 8), Run(3, 1, 2, 5003))
    assert snapshot.histories == (
        HistorySet(1, 0, 2, "ready", 2),
        HistorySet(1, 0, 3, "ready"),
        HistorySet(1, 0, 4, "leased", 1, 4e9, 45.0, 1, 9),
        HistorySet(1, 0, 5, "ready"),
        HistorySet(1, 0, 6, "delayed", 3, 4e9, 60.0),
    )
    assert image == Message(1, b"\x00\xff\x00", 3, 1_760_000_001.5, "image/png", {"traceparent": "00-ab"})
    assert text.content_type == "text/plain"
    assert [message.body for message in jobs] == [b'{"n": %d}' % n for n in range(2, 9)]


def test_format_1_is_delivered_in_its_order(format_1: Path) -> None:
    with closing(SqliteStore(format_1, "os")) as store:
        core = restore(store.load(), now=0.0, wall=3.9e9, jitter=lambda: 0.5, durable=True)
    (group,) = core.topics["jobs"].groups.values()
    leases = iter(lambda: claim(core, group, 0.0), None)
    assert [(lease.key.seq, lease.attempt) for lease in leases] == [(2, 3), (3, 1), (5, 1), (7, 1), (8, 1)]
    assert group.leased == 6


def test_an_upgrade_that_fails_leaves_the_database_as_it_was(format_1: Path) -> None:
    with closing(sqlite3.connect(format_1 / DATABASE)) as db:
        db.execute("CREATE TABLE old_boot (x)")
        before = list(db.iterdump())
    with closing(SqliteStore(format_1, "os")) as store, pytest.raises(StartupError, match="old_boot"):
        store.load()
    with closing(sqlite3.connect(format_1 / DATABASE)) as db:
        assert list(db.iterdump()) == before


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path, "os")) as store:
        store.load()
    with closing(sqlite3.connect(tmp_path / DATABASE)) as db:
        db.execute(f"PRAGMA user_version = {FORMAT + 1}")
    with closing(SqliteStore(tmp_path, "os")) as store, pytest.raises(StartupError, match="newer wakeq"):
        store.load()
