"""A store for tests: keeps records in dictionaries, in the clear, and fails when told to."""

from collections.abc import Callable, Iterable, Sequence

from wakeq_server.core.model import (
    HistoryCleared,
    HistorySet,
    Message,
    MessageAdded,
    MessageRemoved,
    Record,
    Snapshot,
    TopicDropped,
    TopicPut,
)
from wakeq_server.errors import StorageError


class KeepingStore:
    """What `SqliteStore` promises, without a disk: its contents outlive it when handed on by `reopened`."""

    durable = True

    def __init__(self) -> None:
        self.epoch = 0
        self.topics: dict[int, TopicPut] = {}
        self.messages: dict[tuple[int, int], Message] = {}
        self.histories: dict[tuple[int, int, int], HistorySet] = {}
        self.next_topic_id = 1
        self.next_seq: dict[int, int] = {}
        self.commits = 0
        self.before_commit: Callable[[], StorageError | None] = lambda: None
        """Called in the writer's thread before each commit; what it returns is raised."""

    def load(self) -> Snapshot:
        self.epoch += 1
        # As the database does when it opens: rows of a topic that never came to be are swept out.
        self.messages = {key: row for key, row in self.messages.items() if key[0] in self.topics}
        self.histories = {key: row for key, row in self.histories.items() if (key[0], key[2]) in self.messages}
        return Snapshot(
            epoch=self.epoch,
            topics=tuple(self.topics.values()),
            messages=tuple(MessageAdded(topic, self.messages[topic, seq]) for topic, seq in sorted(self.messages)),
            histories=tuple(self.histories.values()),
            next_topic_id=self.next_topic_id,
            next_seq=dict(self.next_seq),
        )

    def commit(self, transactions: Sequence[Iterable[Record]]) -> None:
        error = self.before_commit()
        if error is not None:
            raise error
        for records in transactions:
            for record in records:
                self.apply(record)
        self.commits += 1

    def close(self) -> None:
        pass

    def apply(self, record: Record) -> None:
        if isinstance(record, TopicPut):
            self.topics[record.topic_id] = record
            self.next_topic_id = max(self.next_topic_id, record.topic_id + 1)
        elif isinstance(record, TopicDropped):
            self.topics.pop(record.topic_id, None)
            self.messages = {key: row for key, row in self.messages.items() if key[0] != record.topic_id}
        elif isinstance(record, MessageAdded):
            self.messages[record.topic_id, record.message.seq] = record.message
            self.next_seq[record.topic_id] = record.message.seq + 1
        elif isinstance(record, MessageRemoved):
            del self.messages[record.topic_id, record.seq]
            self.histories.pop((record.topic_id, 0, record.seq), None)
        elif isinstance(record, HistorySet):
            self.histories[record.topic_id, record.group, record.seq] = record
        elif isinstance(record, HistoryCleared):
            self.histories.pop((record.topic_id, record.group, record.seq), None)
