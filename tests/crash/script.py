"""Commits that a queue could make, and what a store holds after each of them."""

from contextlib import closing
from pathlib import Path
from typing import Any

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
    Snapshot,
    TopicConfig,
    TopicDropped,
    TopicPut,
)
from wakeq_server.store.base import Store
from wakeq_server.store.sqlite import SqliteStore

State = tuple[Any, ...]
Script = list[list[Record]]
AHEAD = 4e9
"""An instant that stays in the future."""


def added(seq: int, size: int = 300, topic: int = 1, **fields: Any) -> MessageAdded:
    body = b"%d/%d " % (topic, seq) * (size // 5)
    return MessageAdded(topic, Message(seq, body, len(body), 1.7e9 + seq, **fields))


def leased(seq: int, attempt: int = 1, group: int = 0) -> HistorySet:
    return HistorySet(1, group, seq, "leased", attempt, AHEAD, 30.0, 5, seq)


def key(seq: int, expires_at: float = AHEAD) -> KeySeen:
    return KeySeen(1, bytes([seq]) * 16, bytes([seq + 1]) * 16, seq, 1, expires_at)


FIRST: list[Record] = [TopicPut(1, "jobs", TopicConfig(), 1.7e9), GroupPut(1, 0, "default", 1, 1)]
SCRIPT: Script = [
    [added(1), key(1), added(2), added(3)],
    [added(seq, key="k") for seq in range(4, 9)],
    [GroupPut(1, 1, "other", 9, 9), added(9, 5_000, headers={"of": "k"}), key(9, 1.7e9)],
    [GroupPut(1, 0, "default", 1, 4), leased(1), leased(2), leased(3)],
    [MessageRemoved(1, 1), HistorySet(1, 0, 2, "ready", 1), HistorySet(1, 0, 3, "dead", 5, 1.7e9, reason="no")],
    [TopicPut(2, "graves", TopicConfig(schema="any"), 1.7e9), GroupPut(2, 0, "default", 1, 1), added(1, 5_000, 2)],
    [PushPut(1, "p", 1, 1, "http://localhost/", 1, 30.0), HistorySet(1, 0, 4, "delayed", 1, AHEAD, 3.0)],
    [added(seq, 1_000) for seq in range(10, 20)],
    [GroupPut(1, 1, "other", 9, 12), leased(9, group=1), leased(10, group=1), leased(11, group=1)],
    [HistorySet(1, 1, 9, "gone"), HistoryCleared(1, 1, 10), KeysForgotten(1, 2e9)],
    [MessageRemoved(1, seq) for seq in range(12, 18)],
    [PushDropped(1, "p", 1), GroupDropped(1, 1), TopicDropped(2)],
    [added(40, 9_000), key(40)],
    [MessageRemoved(1, 40), TopicPut(1, "jobs", TopicConfig(lease_s=9.0), 1.7e9, paused=True)],
]
FOLDED_BEFORE = {3, 8, 11}
"""Before these commits the log is folded and begun anew."""


def prepare(directory: Path) -> None:
    """A database with a topic, before the script."""
    with closing(SqliteStore(directory, "os")) as store:
        store.load()
        store.commit([FIRST])


class Model(KeepingStore):
    """What a store that has taken these commits holds."""

    def __init__(self) -> None:
        super().__init__()
        self.commit([FIRST])

    def after(self, records: list[Record]) -> State:
        """The state with one more commit, which it doesn't make."""
        other = Model()
        for name in ("topics", "groups", "pushes", "messages", "histories", "keys", "next_seq"):
            setattr(other, name, dict(getattr(self, name)))
        other.next_topic_id = self.next_topic_id
        other.commit([records])
        return other.state()

    def state(self) -> State:
        return state_of(self)


def state_of(store: Store) -> State:
    """All that a store gives when it is loaded, bodies and all, whatever the epoch and however it is cut up."""
    snapshot = store.load()
    ids = {topic.topic_id for topic in snapshot.topics}
    return (
        sorted(snapshot.topics),
        sorted(snapshot.groups),
        sorted(snapshot.pushes),
        sorted((topic, message) for topic in ids for message in _messages(store, topic, snapshot)),
        sorted(snapshot.histories),
        sorted(snapshot.keys, key=lambda row: (row.topic_id, row.digest)),
        snapshot.next_topic_id,
        {topic: seq for topic, seq in snapshot.next_seq.items() if topic in ids and seq > 1},
    )


def _messages(store: Store, topic: int, snapshot: Snapshot) -> list[tuple[object, ...]]:
    seqs = {seq for run in snapshot.runs if run.topic_id == topic for seq in range(run.first, run.last + 1)}
    seqs |= {other.message.seq for other in snapshot.others if other.topic_id == topic}
    messages = store.read_bodies(topic, 1, 100)
    assert [message.seq for message in messages] == sorted(seqs), "what is listed is not what can be read"
    return [tuple(str(field) for field in message) for message in messages]


def loaded(directory: Path) -> State:
    """What a server would find there. Raises StartupError."""
    with closing(SqliteStore(directory, "os", reserve_bytes=1 << 16)) as store:
        return state_of(store)
