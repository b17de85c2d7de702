"""A store for tests: keeps records in dictionaries, in the clear, and fails when told to."""

from collections.abc import Callable, Iterable, Sequence

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
from wakeq_server.errors import StorageError
from wakeq_server.store.sqlite import _WRITERS

ORDER = tuple(_WRITERS)


class KeepingStore:
    """What `SqliteStore` promises, without a disk."""

    durable = True
    full = False

    def __init__(self) -> None:
        self.epoch = 0
        self.topics: dict[int, TopicPut] = {}
        self.groups: dict[tuple[int, int], GroupPut] = {}
        self.pushes: dict[tuple[int, str], PushPut] = {}
        self.messages: dict[tuple[int, int], Message] = {}
        self.histories: dict[tuple[int, int, int], HistorySet] = {}
        self.keys: dict[tuple[int, bytes], KeySeen] = {}
        self.next_topic_id = 1
        self.next_seq: dict[int, int] = {}
        self.commits = 0
        self.before_commit: Callable[[], StorageError | None] = lambda: None
        """Called in the writer's thread before each commit; what it returns is raised."""

    def load(self) -> Snapshot:
        self.epoch += 1
        self._sweep()
        rows = [(topic, self.messages[topic, seq]) for topic, seq in sorted(self.messages)]
        return Snapshot(
            epoch=self.epoch,
            topics=tuple(self.topics.values()),
            groups=tuple(self.groups.values()),
            pushes=tuple(row for row in self.pushes.values() if (row.topic_id, row.group) in self.groups),
            runs=tuple(Run(topic, row.seq, row.seq, row.size) for topic, row in rows if row.plain),
            others=tuple(MessageAdded(topic, row._replace(body=None)) for topic, row in rows if not row.plain),
            histories=tuple(self.histories.values()),
            keys=tuple(sorted(self.keys.values(), key=lambda row: (row.topic_id, row.expires_at))),
            next_topic_id=self.next_topic_id,
            next_seq=dict(self.next_seq),
        )

    def commit(self, transactions: Sequence[Iterable[Record]]) -> None:
        error = self.before_commit()
        if error is not None:
            raise error
        batch = [record for records in transactions for record in records]
        # One statement a kind, as the database has it.
        for record in sorted(batch, key=lambda record: ORDER.index(type(record))):
            self.apply(record)
        self.commits += 1

    def read_bodies(self, topic_id: int, first: int, last: int) -> list[Message]:
        return [self.messages[topic_id, seq] for seq in range(first, last + 1) if (topic_id, seq) in self.messages]

    def close(self) -> None:
        pass

    def _sweep(self) -> None:
        """As the database does when it opens: what belongs to nothing, and what every group is done with."""
        self._drop(lambda key: key[0] not in self.topics)
        self.messages = {key: row for key, row in self.messages.items() if not self._everybody_done(*key)}
        self.histories = {
            key: row
            for key, row in self.histories.items()
            if (key[0], key[2]) in self.messages and (key[0], key[1]) in self.groups
        }

    def _everybody_done(self, topic_id: int, seq: int) -> bool:
        groups = [group for (topic, _), group in self.groups.items() if topic == topic_id]
        return all(self._done(group, self.messages[topic_id, seq]) for group in groups)

    def _done(self, group: GroupPut, message: Message) -> bool:
        history = self.histories.get((group.topic_id, group.group, message.seq))
        if message.seq < group.start:
            return True
        if history is not None:
            return history.standing == "gone"
        return message.plain and message.seq < group.cursor

    def apply(self, record: Record) -> None:
        if isinstance(record, TopicPut):
            self.topics[record.topic_id] = record
            self.next_topic_id = max(self.next_topic_id, record.topic_id + 1)
        elif isinstance(record, TopicDropped):
            self._drop(lambda key: key[0] == record.topic_id)
            self.topics.pop(record.topic_id, None)
        elif isinstance(record, GroupPut):
            self.groups[record.topic_id, record.group] = record
        elif isinstance(record, GroupDropped):
            self.groups.pop((record.topic_id, record.group), None)
            self.pushes = {key: row for key, row in self.pushes.items() if (key[0], row.group) != record}
        elif isinstance(record, PushPut):
            self.pushes[record.topic_id, record.name] = record
        elif isinstance(record, PushDropped):
            known = self.pushes.get((record.topic_id, record.name))
            if known is not None and known.push_id == record.push_id:
                del self.pushes[record.topic_id, record.name]
        elif isinstance(record, MessageAdded):
            self.messages[record.topic_id, record.message.seq] = record.message
            self.next_seq[record.topic_id] = max(self.next_seq.get(record.topic_id, 1), record.message.seq + 1)
        elif isinstance(record, MessageRemoved):
            self.messages.pop((record.topic_id, record.seq), None)
        elif isinstance(record, HistorySet):
            self.histories[record.topic_id, record.group, record.seq] = record
        elif isinstance(record, HistoryCleared):
            self.histories.pop((record.topic_id, record.group, record.seq), None)
        elif isinstance(record, KeySeen):
            self.keys[record.topic_id, record.digest] = record
        elif isinstance(record, KeysForgotten):
            over = {
                key for key, row in self.keys.items() if key[0] == record.topic_id and row.expires_at < record.before
            }
            self.keys = {key: row for key, row in self.keys.items() if key not in over}

    def _drop(self, unwanted: Callable[[tuple[int | bytes, ...]], bool]) -> None:
        self.messages = {key: row for key, row in self.messages.items() if not unwanted(key)}
        self.groups = {key: row for key, row in self.groups.items() if not unwanted(key)}
        self.pushes = {key: row for key, row in self.pushes.items() if not unwanted((key[0],))}
        self.keys = {key: row for key, row in self.keys.items() if not unwanted(key)}
