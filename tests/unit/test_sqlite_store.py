"""The store on disk against the one in the clear: the same records, the same snapshot and bodies."""

import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.stores import KeepingStore
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
    Standing,
    TopicConfig,
    TopicDropped,
    TopicPut,
)
from wakeq_server.errors import StorageFailed, StorageFull
from wakeq_server.store.sqlite import DATABASE, SqliteStore

TOPIC = TopicPut(1, "t", TopicConfig(), 1.0)
GROUP = GroupPut(1, 0, "default", 1, 1)
NASTY = ["", "plain", "żółć 🐦", 'quo"te', "nul\0inside", "\ud800 alone"]
TEXTS = st.none() | st.sampled_from(NASTY)
INSTANTS = st.integers(0, 1 << 20).map(lambda ticks: 1.7e9 + ticks / 1e6)
STANDINGS: list[Standing] = ["ready", "delayed", "leased", "dead", "gone"]


@contextmanager
def opened(directory: Path) -> Iterator[tuple[SqliteStore, Snapshot]]:
    with closing(SqliteStore(directory, "os")) as store:
        yield store, store.load()


def reopened(directory: Path) -> Snapshot:
    with opened(directory) as (_, snapshot):
        return snapshot


def test_directories_that_are_made_survive_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[int, int]] = []
    sync = os.fsync

    def fsync(fd: int) -> None:
        about = os.fstat(fd)
        synced.append((about.st_dev, about.st_ino))
        sync(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    data = tmp_path / "new" / "data"
    for expected in ([tmp_path / "new", tmp_path], []):
        with opened(data):
            abouts = [directory.stat() for directory in expected]
        assert synced == [(about.st_dev, about.st_ino) for about in abouts]
        synced.clear()


def added(seq: int, body: bytes = b"x", topic: int = 1, **fields: Any) -> MessageAdded:
    return MessageAdded(topic, Message(seq, body, len(body), 1.5, **fields))


class Scenario:
    """Draws records that a core could write: numbers only rise, and nothing is said about what is gone."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        self.draw = draw
        self.topics: dict[int, TopicPut] = {}
        self.groups: dict[tuple[int, int], GroupPut] = {}
        self.next_seq: dict[int, int] = {}
        self.last_topic = 0
        self.last_group = -1
        self.last_push = 0
        self.now = 1.7e9

    def batch(self) -> list[list[Record]]:
        """Transactions of one commit, written in the order that the database keeps to."""
        records: list[Record] = []
        steps = [self.put_topic, self.put_group, self.put_push, self.add, self.history, self.key, self.clear]
        for step in [*steps, self.remove, self.forget, self.drop_push, self.drop_group, self.drop_topic]:
            for _ in range(self.draw(st.integers(0, 1 if step in (self.drop_group, self.drop_topic) else 4))):
                records += step() if self.topics or step == self.put_topic else []
        cuts = sorted(self.draw(st.lists(st.integers(0, len(records)), max_size=3)))
        return [records[start:end] for start, end in zip([0, *cuts], [*cuts, len(records)], strict=True)]

    def topic(self) -> int:
        return int(self.draw(st.sampled_from(sorted(self.topics))))

    def group(self, topic: int) -> int:
        known = [group for known_topic, group in self.groups if known_topic == topic]
        return int(self.draw(st.sampled_from([*known, 99])))

    def seq(self, topic: int) -> int:
        return int(self.draw(st.integers(1, max(1, self.next_seq[topic] - 1))))

    def put_topic(self) -> list[Record]:
        known = self.draw(st.sampled_from([None, *sorted(self.topics)]))
        schema = self.draw(st.sampled_from(["any", MappingProxyType({"type": "object", "ż": [1, None]})]))
        config = TopicConfig(schema=schema, ttl_s=self.draw(st.none() | st.just(2.5)))
        name, paused = self.draw(st.sampled_from(["t", "żółć 🐦"])), self.draw(st.booleans())
        if known is not None:
            self.topics[known] = self.topics[known]._replace(name=name, config=config, paused=paused)
            return [self.topics[known]]
        self.last_topic += 1
        self.next_seq[self.last_topic] = 1
        self.topics[self.last_topic] = TopicPut(self.last_topic, name, config, self.draw(INSTANTS), paused)
        return [self.topics[self.last_topic]]

    def put_group(self) -> list[Record]:
        topic = self.topic()
        end = self.next_seq[topic] + 3
        known = self.group(topic)
        if known == 99:
            self.last_group = known = self.last_group + 1
        row = GroupPut(topic, known, "gruppe ü", self.draw(st.integers(1, end)), self.draw(st.integers(1, end)))
        self.groups[topic, known] = row
        return [row]

    def put_push(self) -> list[Record]:
        topic = self.topic()
        self.last_push += 1
        name, numbers = self.draw(st.sampled_from(["p", "żółć 🐦"])), self.draw(st.tuples(st.integers(1, 9), INSTANTS))
        return [PushPut(topic, name, self.last_push, self.group(topic), "http://x/?a=%2F", *numbers)]

    def drop_push(self) -> list[Record]:
        return [PushDropped(self.topic(), "p", self.draw(st.integers(0, self.last_push)))]

    def add(self) -> list[Record]:
        topic = self.topic()
        self.next_seq[topic] += self.draw(st.sampled_from([0, 0, 0, 2]))
        rows: list[Record] = []
        for _ in range(self.draw(st.integers(1, 4))):
            rows.append(MessageAdded(topic, self.message(self.next_seq[topic])))
            self.next_seq[topic] += 1
        return rows

    def message(self, seq: int) -> Message:
        body = self.draw(st.binary(max_size=3))
        if self.draw(st.booleans()):
            return Message(seq, body, len(body), self.draw(INSTANTS))
        headers = self.draw(st.none() | st.dictionaries(st.sampled_from(NASTY), st.sampled_from(NASTY), max_size=2))
        texts = self.draw(st.tuples(TEXTS, TEXTS))
        instants = self.draw(st.tuples(st.none() | INSTANTS, st.none() | INSTANTS))
        return Message(seq, body, len(body), self.draw(INSTANTS), "text/plain", headers, *texts, *instants)

    def history(self) -> list[Record]:
        topic = self.topic()
        standing, due_at = self.draw(st.sampled_from(STANDINGS)), self.draw(INSTANTS)
        rest = (self.draw(st.integers(0, 9)), due_at, 0.5, 7, self.draw(st.integers(0, 1 << 40)), self.draw(TEXTS))
        return [HistorySet(topic, self.group(topic), self.seq(topic), standing, *rest)]

    def key(self) -> list[Record]:
        self.now += 1
        digest = self.draw(st.binary(min_size=1, max_size=1)) * 16
        return [KeySeen(self.topic(), digest, b"\0\xff" * 8, self.draw(st.integers(1, 9)), 1, self.now)]

    def clear(self) -> list[Record]:
        topic = self.topic()
        return [HistoryCleared(topic, self.group(topic), self.seq(topic))]

    def remove(self) -> list[Record]:
        topic, count = self.topic(), self.draw(st.sampled_from([1, 1, 1, 9]))
        first = self.seq(topic)
        return [MessageRemoved(topic, seq) for seq in range(first, min(first + count, self.next_seq[topic]))]

    def forget(self) -> list[Record]:
        return [KeysForgotten(self.topic(), self.now - self.draw(st.integers(0, 4)))]

    def drop_group(self) -> list[Record]:
        topic = self.topic()
        group = self.group(topic)
        self.groups.pop((topic, group), None)
        return [GroupDropped(topic, group)]

    def drop_topic(self) -> list[Record]:
        topic = self.topic()
        del self.topics[topic]
        self.groups = {key: row for key, row in self.groups.items() if key[0] != topic}
        return [TopicDropped(topic)]


@st.composite
def scenarios(draw: Callable[[st.SearchStrategy[Any]], Any]) -> list[list[list[Record]]]:
    scenario = Scenario(draw)
    return [scenario.batch() for _ in range(draw(st.integers(1, 4)))]


class Reference(KeepingStore):
    """Forgets keys too."""

    def apply(self, record: Record) -> None:
        super().apply(record)
        if isinstance(record, KeysForgotten):
            topic, before = record
            self.keys = {k: row for k, row in self.keys.items() if k[0] != topic or row.expires_at >= before}
        elif isinstance(record, TopicDropped):
            self.keys = {k: row for k, row in self.keys.items() if k[0] != record.topic_id}


def merged(runs: Sequence[Run]) -> list[Run]:
    whole: list[Run] = []
    for run in sorted(runs):
        if whole and (whole[-1].topic_id, whole[-1].last + 1) == run[:2]:
            run = Run(run.topic_id, whole[-1].first, run.last, whole.pop().size + run.size)
        whole.append(run)
    return whole


def comparable(snapshot: Snapshot) -> dict[str, Any]:
    topics = {row.topic_id: (row, snapshot.next_seq.get(row.topic_id, 1)) for row in snapshot.topics}
    return {
        "topics": topics,
        "groups": {row[:2]: row for row in snapshot.groups},
        "pushes": {row[:2]: row for row in snapshot.pushes},
        "runs": merged(snapshot.runs),
        "others": sorted(snapshot.others, key=lambda row: (row.topic_id, row.message.seq)),
        "histories": {row[:3]: row for row in snapshot.histories},
        "keys": {(row.topic_id, row.digest): row for row in snapshot.keys},
        "next_topic_id": snapshot.next_topic_id,
    }


@settings(max_examples=50, deadline=None)
@given(scenarios())
def test_what_is_kept_is_what_was_written(batches: list[list[list[Record]]]) -> None:
    reference = Reference()
    with tempfile.TemporaryDirectory() as name:
        for batch in batches:
            with opened(Path(name)) as (store, snapshot):
                assert comparable(snapshot) == comparable(reference.load())
                store.commit(batch)
                reference.commit(batch)
        with opened(Path(name)) as (store, snapshot):
            expected = reference.load()
            assert comparable(snapshot) == comparable(expected)
            for topic in expected.topics:
                assert store.read_bodies(topic.topic_id, 2, 99) == reference.read_bodies(topic.topic_id, 2, 99)


def test_many_in_one_batch_are_kept_as_few_are(tmp_path: Path) -> None:
    rows = [added(seq, b"%d" % seq, id=None if seq % 7 else f"k{seq}") for seq in range(1, 700)]
    kept = HistorySet(1, 0, 650, "ready", 1)
    gone = [HistorySet(1, 0, seq, "ready", 1) for seq in (3, 500)]
    removed = [MessageRemoved(1, seq) for seq in (*range(600, 1, -1), 602, 604)]
    with opened(tmp_path) as (store, _):
        store.commit([[TOPIC, GroupPut(1, 0, "default", 1, 1)], rows, [kept, *gone]])
        assert store.read_bodies(1, 1, 999) == [row.message for row in rows]
        store.commit([removed[:300], removed[300:]])
        assert [message.seq for message in store.read_bodies(1, 1, 999)] == [1, 601, 603, *range(605, 700)]
    with opened(tmp_path) as (_, snapshot):
        assert snapshot.histories == (kept,)


def test_neighbours_are_one_run(tmp_path: Path) -> None:
    with opened(tmp_path) as (store, _):
        rows = [added(seq, b"abc") for seq in (1, 2, 3, 5, 6)]
        store.commit([[TOPIC, GROUP, *rows, added(4, key="k"), added(9)]])
    snapshot = reopened(tmp_path)
    assert snapshot.runs == (Run(1, 1, 3, 9), Run(1, 5, 6, 6), Run(1, 9, 9, 1))
    assert snapshot.others == (MessageAdded(1, Message(4, None, 1, 1.5, key="k")),)
    assert snapshot.next_seq == {1: 10}


def test_bodies_are_read_by_range_and_whole(tmp_path: Path) -> None:
    rows = [
        added(1, b""),
        added(2, bytes(range(256)), headers={"ü": "żółć"}, id="🐦", key="\0", due_at=2.5),
        added(4, "ü".encode(), content_type="text/plain"),
    ]
    with opened(tmp_path) as (store, _):
        store.commit([[TOPIC, GROUP, TopicPut(2, "u", TopicConfig(), 1.0), added(3, topic=2)], rows])
        assert store.read_bodies(1, 1, 4) == [row.message for row in rows]
        assert store.read_bodies(1, 2, 3) == [rows[1].message]
        assert store.read_bodies(3, 1, 4) == []


def test_a_history_set_and_cleared_at_once_is_cleared(tmp_path: Path) -> None:
    leased = HistorySet(1, 0, 1, "leased", 1)
    with opened(tmp_path) as (store, _):
        store.commit([[TOPIC, GROUP, added(1), added(2)], [HistoryCleared(1, 0, 1)]])
        store.commit([[HistoryCleared(1, 0, 1)], [leased, leased._replace(seq=2), leased._replace(seq=2, attempt=2)]])
    assert reopened(tmp_path).histories == (leased._replace(seq=2, attempt=2),)


def test_a_removed_message_takes_its_history_in_every_group(tmp_path: Path) -> None:
    groups = [GROUP, GroupPut(1, 5, "other", 1, 1)]
    with opened(tmp_path) as (store, _):
        histories = [HistorySet(1, group.group, seq, "ready", 1) for group in groups for seq in (1, 2)]
        store.commit([[TOPIC, *groups, added(1), added(2), *histories, MessageRemoved(1, 1)]])
    with closing(sqlite3.connect(tmp_path / DATABASE)) as db:
        assert db.execute("SELECT grp, seq FROM history").fetchall() == [(0, 2), (5, 2)]


def test_what_every_group_is_done_with_is_swept(tmp_path: Path) -> None:
    messages = [added(seq) for seq in (1, 2, 3, 7)] + [added(seq, key="k") for seq in (4, 5, 6, 8)]
    groups = [GroupPut(1, 0, "default", 1, 7), GroupPut(1, 1, "late", 4, 7)]
    kept = HistorySet(1, 0, 3, "leased", 1), HistorySet(1, 1, 5, "gone"), HistorySet(1, 0, 8, "gone")
    gone = [HistorySet(1, group, seq, "gone") for group in (0, 1) for seq in (6, 7)]
    with opened(tmp_path) as (store, _):
        store.commit([[TOPIC, *groups, *messages, *kept, *gone, added(1, topic=9)]])
    snapshot = reopened(tmp_path)
    assert snapshot.runs == (Run(1, 3, 3, 1),)
    assert [row.message.seq for row in snapshot.others] == [4, 5, 8]
    assert sorted(snapshot.histories) == sorted(kept)


def test_what_came_to_a_topic_after_its_end_is_swept(tmp_path: Path) -> None:
    late: list[Record] = [
        GroupPut(1, 1, "late", 1, 1),
        KeySeen(1, b"k" * 16, b"f" * 16, 1, 1, 9e9),
        added(1),
        HistorySet(1, 0, 1, "ready"),
    ]
    with opened(tmp_path) as (store, _):
        store.commit([[TOPIC, GROUP]])
        store.commit([[TopicDropped(1)]])
        store.commit([late])
    snapshot = reopened(tmp_path)
    assert (snapshot.groups, snapshot.keys, snapshot.runs, snapshot.histories) == ((), (), (), ())


def test_a_push_that_took_the_place_of_a_dropped_one_in_one_commit_stays(tmp_path: Path) -> None:
    first, second = (PushPut(1, "p", number, 0, "http://x", 1, 30.0) for number in (1, 2))
    with opened(tmp_path) as (store, _):
        store.commit([[TOPIC, GROUP, first]])
        store.commit([[PushDropped(1, "p", 1)], [second]])
    assert reopened(tmp_path).pushes == (second,)
    with opened(tmp_path) as (store, _):
        store.commit([[PushDropped(1, "p", 1)]])
    assert reopened(tmp_path).pushes == (second,)


def test_the_oldest_key_comes_first(tmp_path: Path) -> None:
    keys = [KeySeen(1, bytes([9 - n]) * 16, b"\0" * 16, n, 1, float(n)) for n in range(1, 5)]
    with opened(tmp_path) as (store, _):
        store.commit([[TOPIC, *reversed(keys), KeysForgotten(1, 2.0)]])
    assert reopened(tmp_path).keys == tuple(keys[1:])


def test_the_epoch_rises_with_every_load(tmp_path: Path) -> None:
    first, second, third = (reopened(tmp_path).epoch for _ in range(3))
    assert time.time() - 60 < first < second < third


def test_the_epoch_of_an_old_copy_was_never_used(tmp_path: Path) -> None:
    reopened(tmp_path)
    with closing(sqlite3.connect(tmp_path / DATABASE)) as db:
        db.execute("UPDATE boot SET epoch = 7, epoch_again = -7")
        db.commit()
    assert reopened(tmp_path).epoch > time.time() - 60


BAD: list[tuple[Record, type[Exception]]] = [
    (added(1), StorageFailed),
    (TopicPut(3, "u", TopicConfig(), float("nan")), ValueError),
    (MessageAdded(1, Message(7, None, 1, 1.0)), AssertionError),
    (added(7, headers={"x": object()}), TypeError),
]


@pytest.mark.parametrize(("bad", "error"), BAD)
def test_a_failed_commit_changes_nothing(tmp_path: Path, bad: Record, error: type[Exception]) -> None:
    with opened(tmp_path) as (store, _):
        store.commit([[TOPIC, GROUP, added(1)]])
    before = comparable(reopened(tmp_path))
    with opened(tmp_path) as (store, _):
        with pytest.raises(error):
            store.commit([[TopicPut(2, "new", TopicConfig(), 1.0), added(8), KeysForgotten(1, 9.0)], [bad]])
        assert store.read_bodies(1, 1, 9) == [added(1).message]
    assert comparable(reopened(tmp_path)) == before


def test_a_store_goes_on_after_a_failed_commit(tmp_path: Path) -> None:
    with opened(tmp_path) as (store, _):
        store.commit([[TOPIC, GROUP]])
        for bad, error in BAD[2:]:
            with pytest.raises(error):
                store.commit([[bad]])
        store.commit([[added(1)]])
    assert reopened(tmp_path).runs == (Run(1, 1, 1, 1),)


def test_a_full_disk_is_told_apart(tmp_path: Path) -> None:
    with opened(tmp_path) as (store, _):
        store.commit([[TOPIC, GROUP]])
        assert store._db is not None
        (pages,) = store._db.execute("PRAGMA page_count").fetchone()
        store._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StorageFull):
            store.commit([[added(1, b"x" * 100_000)]])
        store.commit([[added(2)]])


def every_kind() -> list[Record]:
    put: list[Record] = [TOPIC, GROUP, HistorySet(1, 0, 1, "ready"), KeySeen(1, b"d", b"f", 1, 1, 1.0)]
    gone: list[Record] = [HistoryCleared(1, 0, 1), MessageRemoved(1, 1), KeysForgotten(1, 1.0)]
    pushes: list[Record] = [PushPut(1, "p", 1, 0, "http://x", 1, 30.0), PushDropped(1, "p", 1)]
    return [*put, *pushes, added(1), added(2, key="k"), *gone, GroupDropped(1, 0), TopicDropped(1)]


def plans(
    directory: Path, act: Callable[[SqliteStore], object], *, put: Sequence[Record] = (), of: str = "_db"
) -> list[str]:
    """How SQLite goes about every statement of an act on one of the store's connections."""
    statements: list[str] = []
    with opened(directory) as (store, _):
        store.commit([put])
        db = getattr(store, of)
        assert db is not None
        db.set_trace_callback(statements.append)
        act(store)
        db.set_trace_callback(None)
        queries = [text for text in statements if not text.startswith(("BEGIN", "COMMIT", "PRAGMA"))]
        return [row[3] for text in queries for row in db.execute(f"EXPLAIN QUERY PLAN {text}")]


def load_again(store: SqliteStore) -> Snapshot:
    assert store._db is not None
    return store._read(store._db)


def test_a_commit_reads_no_table_from_end_to_end(tmp_path: Path) -> None:
    steps = plans(tmp_path, lambda store: store.commit([every_kind()]))
    scans = {step for step in steps if step.startswith("SCAN") and "VIRTUAL TABLE" not in step}
    assert scans <= {"SCAN boot"}
    assert any(step.startswith("SEARCH message USING INTEGER PRIMARY KEY (rowid=?)") for step in steps)
    assert any(step.startswith("SEARCH history USING PRIMARY KEY (topic=? AND grp=? AND seq=?)") for step in steps)
    assert any("INDEX seen_until (topic=? AND expires_at<?)" in step for step in steps)


def test_bodies_are_found_by_the_primary_key(tmp_path: Path) -> None:
    steps = plans(tmp_path, lambda store: store.read_bodies(1, 1, 2), put=[TOPIC], of="_reader")
    assert steps == ["SEARCH message USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"]


def test_a_load_goes_through_all_messages_twice(tmp_path: Path) -> None:
    steps = plans(tmp_path, load_again)
    scans = [step for step in steps if step.startswith("SCAN message")]
    assert scans == ["SCAN message", "SCAN message"]


def test_the_number_of_statements_hardly_grows_with_the_rows(tmp_path: Path) -> None:
    counts = []
    with opened(tmp_path) as (store, _):
        assert store._db is not None
        for first, rows in ((1, 1), (2, 511)):
            statements: list[str] = []
            store._db.set_trace_callback(statements.append)
            store.commit([[TOPIC, *[added(first + n) for n in range(rows)], *[MessageRemoved(1, 1)] * rows]])
            counts.append(len(statements))
    assert counts[1] == counts[0] + 8
