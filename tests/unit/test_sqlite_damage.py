"""A damaged database is refused, or what it gives is what was written; never anything else."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from wakeq_server.core.model import (
    GroupPut,
    HistorySet,
    KeySeen,
    Message,
    MessageAdded,
    Record,
    Snapshot,
    TopicConfig,
    TopicPut,
)
from wakeq_server.errors import StartupError, StorageFailed
from wakeq_server.store import doctor
from wakeq_server.store.sqlite import DATABASE, SqliteStore

MESSAGES = 400
TOPIC = TopicPut(1, "jobs", TopicConfig(), 1.7e9)


def body(seq: int) -> bytes:
    return b'{"n": %d, "text": "%s"}' % (seq, b"x" * (seq * 7 % 900))


def written() -> list[Record]:
    messages = [
        MessageAdded(1, Message(seq, body(seq), len(body(seq)), 1.7e9 + seq, key="k" if seq % 5 == 0 else None))
        for seq in range(1, MESSAGES + 1)
    ]
    histories = [HistorySet(1, 0, seq, "leased", 2, 4e9, 30.0, 5, seq, "why") for seq in range(1, 40)]
    keys = [KeySeen(1, bytes([n]) * 16, bytes([n + 1]) * 16, n, 1, 4e9) for n in range(1, 40)]
    return [TOPIC, GroupPut(1, 0, "default", 1, 40), *messages, *histories, *keys]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    directory = tmp_path_factory.mktemp("sound")
    with closing(SqliteStore(directory, "os")) as store:
        store.load()
        store.commit([written()])
    return (directory / DATABASE).read_bytes()


def read(directory: Path) -> tuple[Snapshot, list[Message]]:
    with closing(SqliteStore(directory, "os")) as store:
        snapshot = store.load()
        return snapshot, store.read_bodies(1, 1, MESSAGES)


def comparable(snapshot: Snapshot) -> tuple[object, ...]:
    return snapshot[1:]


def is_refused_or_sound(directory: Path, expected: Snapshot) -> bool:
    """Whether it was refused. Asserts that what is given else is what was written, or owns to be damaged."""
    try:
        snapshot, messages = read(directory)
    except (StartupError, StorageFailed):
        return True
    assert comparable(snapshot) == comparable(expected)
    assert [message.seq for message in messages] == list(range(1, MESSAGES + 1))
    assert all(message.body in (None, body(message.seq)) for message in messages)
    return any(message.body is None for message in messages)


@pytest.fixture(scope="module")
def expected(sound: bytes, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    directory = tmp_path_factory.mktemp("expected")
    (directory / DATABASE).write_bytes(sound)
    return read(directory)[0]


def test_flipped_bits(sound: bytes, expected: Snapshot, tmp_path: Path) -> None:
    chance = random.Random(11)
    refused = 0
    for number in range(300):
        directory = tmp_path / str(number)
        directory.mkdir()
        damaged = bytearray(sound)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        (directory / DATABASE).write_bytes(damaged)
        refused += is_refused_or_sound(directory, expected)
    # What is left is room that no row uses.
    assert refused > 200


def test_truncated_at_any_length(sound: bytes, expected: Snapshot, tmp_path: Path) -> None:
    lengths = [0, 1, 15, 16, 99, 100, 511, 4095, *range(4096, len(sound), 4096 * 3 + 1), len(sound) - 1]
    for length in lengths:
        directory = tmp_path / str(length)
        directory.mkdir()
        (directory / DATABASE).write_bytes(sound[:length])
        assert is_refused_or_sound(directory, expected), length


def test_a_database_that_was_not_made_whole_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "wakeq.new").write_bytes(b"half of it")
    assert read(tmp_path)[0].topics == ()


def test_a_log_without_its_database_is_not_taken_for_nothing(sound: bytes, tmp_path: Path) -> None:
    log = tmp_path / f"{DATABASE}-wal"
    log.write_bytes(b"what was acknowledged")
    with pytest.raises(StartupError, match=f"{DATABASE} is missing, but its log {log.name} is there") as refused:
        read(tmp_path)
    assert "put the database back" in refused.value.hint
    assert not (tmp_path / DATABASE).exists()
    assert log.read_bytes() == b"what was acknowledged"


def test_an_empty_log_is_nothing(tmp_path: Path) -> None:
    (tmp_path / f"{DATABASE}-wal").touch()
    assert read(tmp_path)[0].topics == ()


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(b"no database at all, " * 1000)
    with pytest.raises(StartupError, match="not a database"):
        read(tmp_path)


def test_a_damaged_body_is_told_when_it_is_read(sound: bytes, tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(sound.replace(body(77), body(77).replace(b"77", b"78"), 1))
    _, messages = read(tmp_path)
    assert [message.seq for message in messages if message.body is None] == [77]


@pytest.mark.parametrize("table", ["boot", "topic", "grp", "history", "seen", "message"])
def test_a_damaged_value_is_told_at_the_start(sound: bytes, tmp_path: Path, table: str) -> None:
    (tmp_path / DATABASE).write_bytes(sound)
    column = {"boot": "epoch", "topic": "next_seq", "grp": "cursor", "history": "attempt", "seen": "count"}
    with closing(sqlite3.connect(tmp_path / DATABASE)) as db:
        db.execute("PRAGMA ignore_check_constraints = ON")
        where = "WHERE key IS NOT NULL" if table == "message" else ""
        db.execute(f"UPDATE {table} SET {column.get(table, 'size')} = 3 {where}")
        db.commit()
    with pytest.raises(StartupError, match=r"damaged|CHECK"):
        read(tmp_path)


def test_examined(sound: bytes, tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(sound)
    findings = doctor.examine(tmp_path)
    assert findings.problems == []
    assert findings.counts["messages"] == MESSAGES
    (tmp_path / DATABASE).write_bytes(sound.replace(body(77), body(77).replace(b"77", b"78"), 1))
    assert len(doctor.examine(tmp_path).problems) == 1


def test_repaired(sound: bytes, expected: Snapshot, tmp_path: Path) -> None:
    chance = random.Random(5)
    for number in range(40):
        directory = tmp_path / str(number)
        directory.mkdir()
        damaged = bytearray(sound)
        page = chance.randrange(1, len(damaged) // 4096) * 4096
        damaged[page : page + 200] = chance.randbytes(200)
        (directory / DATABASE).write_bytes(damaged)
        findings, aside = doctor.repair(directory)
        assert (aside / DATABASE).read_bytes()[:page] == sound[:page]
        _, messages = read(directory)
        # At most what the page held is lost, and what is behind it in a tree that can be read from both ends.
        assert len(messages) == findings.counts["messages"]
        assert all(message.body == body(message.seq) for message in messages)


def test_a_repair_of_a_sound_database_loses_nothing(sound: bytes, expected: Snapshot, tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(sound)
    findings, _ = doctor.repair(tmp_path)
    assert findings.problems == []
    assert comparable(read(tmp_path)[0]) == comparable(expected)


def test_a_copy_is_whole_and_can_be_put_back(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path, "os")) as store:
        store.load()
        store.commit([written()])
        doctor.back_up(tmp_path, tmp_path / "copy")
        store.commit([[MessageAdded(1, Message(MESSAGES + 1, b"later", 5, 1.7e9))]])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "copy").rename(elsewhere / DATABASE)
    assert [message.body for message in read(elsewhere)[1]] == [body(seq) for seq in range(1, MESSAGES + 1)]


def test_a_copy_overwrites_nothing(sound: bytes, tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(sound)
    (tmp_path / "copy").write_text("mine")
    with pytest.raises(StartupError, match="exists already"):
        doctor.back_up(tmp_path, tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "mine"


def test_a_database_that_is_removed_under_the_server_fails_commits(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path, "os")) as store:
        store.load()
        (tmp_path / DATABASE).unlink()
        with pytest.raises(StorageFailed, match="be reached"):
            store.commit([[TOPIC]])
        (tmp_path / DATABASE).touch()
        with pytest.raises(StorageFailed, match="removed or replaced"):
            store.commit([[TOPIC]])
