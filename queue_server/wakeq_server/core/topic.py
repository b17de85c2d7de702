"""One topic and its groups: which message is next, and where every other one stands.

Messages that were never delivered are not listed anywhere: they are those from a group's ``cursor`` on, so a
publish costs the same with one group or a hundred. Only what is out of line has an entry of its own: leased,
hidden, or returned.
"""

import heapq
from collections.abc import Iterator

from wakeq_server.core.leases import Lease, LeaseQueue
from wakeq_server.core.model import DEFAULT_GROUP, GroupInfo, Message, TopicConfig, TopicInfo


class Delays:
    """The hidden messages of a group, by the moment they become ready again."""

    def __init__(self, group: "Group") -> None:
        self.group = group
        self._heap: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def head(self) -> float | None:
        """When the next one is due."""
        return self._heap[0][0] if self._heap else None

    def add(self, seq: int, due: float) -> None:
        """Hide a message until then."""
        heapq.heappush(self._heap, (due, seq))

    def pop_due(self, now: float) -> Iterator[int]:
        """Take out what is due."""
        while self._heap and self._heap[0][0] <= now:
            yield heapq.heappop(self._heap)[1]

    def seqs(self) -> Iterator[int]:
        """All hidden messages, in no order."""
        return (seq for _, seq in self._heap)


class Group:
    """The consumers that share one copy of a topic's messages."""

    def __init__(self, topic: "Topic", group_id: int, name: str) -> None:
        self.topic = topic
        self.id = group_id
        self.name = name
        self.cursor = topic.visible_to
        # Of the messages that were ever visible: those in front of the cursor.
        self._passed = topic.visible_count
        self._returned: list[int] = []
        self.attempts: dict[int, int] = {}
        self.leases: dict[int, Lease] = {}
        self.lease_queues: dict[float, LeaseQueue] = {}
        self.delays = Delays(self)

    @property
    def ready(self) -> int:
        """How many messages could be claimed now."""
        return self.topic.visible_count - self._passed + len(self._returned)

    def take(self) -> Message | None:
        """The READY message with the lowest seq. Every returned one comes before every fresh one."""
        messages = self.topic.messages
        if self._returned:
            return messages[heapq.heappop(self._returned)]
        while self.cursor < self.topic.visible_to:
            message = messages.get(self.cursor)
            self.cursor += 1
            if message is not None:
                self._passed += 1
                return message
        return None

    def put_back(self, seq: int) -> None:
        """Make a message READY again, at its old place."""
        heapq.heappush(self._returned, seq)

    def pass_by(self, seq: int) -> None:
        """Count a message as no longer fresh, when the state is restored in order of seq."""
        self.cursor = seq + 1
        self._passed += 1

    def lease_queue(self, length_s: float) -> LeaseQueue:
        """Where leases of that length wait for their end."""
        queue = self.lease_queues.get(length_s)
        if queue is None:
            queue = self.lease_queues[length_s] = LeaseQueue(self, length_s)
        return queue

    def describe(self, wall: float) -> GroupInfo:
        """How the group stands; O(messages in flight)."""
        published = [self.topic.messages[seq].published_at for seq in self._oldest_of_each_kind()]
        age = max(0.0, wall - min(published)) if published else None
        return GroupInfo(self.name, self.ready, len(self.delays), len(self.leases), age)

    def _oldest_of_each_kind(self) -> Iterator[int]:
        if self._returned:
            yield self._returned[0]
        if self.leases:
            yield min(self.leases)
        if len(self.delays):
            yield min(self.delays.seqs())
        for seq in range(self.cursor, self.topic.visible_to):
            if seq in self.topic.messages:
                yield seq
                return


class Topic:
    """A named sequence of messages. ``id`` is its incarnation: a topic made anew under an old name has another."""

    def __init__(self, topic_id: int, name: str, config: TopicConfig, created_at: float) -> None:
        self.id = topic_id
        self.name = name
        self.config = config
        self.created_at = created_at
        self.next_seq = 1
        self.visible_to = 1
        self.visible_count = 0
        self.messages: dict[int, Message] = {}
        # Counted from the decision to publish on, so that what is being written can't overfill the topic.
        self.held_messages = 0
        self.held_bytes = 0
        self.dropping = False
        self.gone = False
        self.groups: dict[str, Group] = {}
        self._group_by_id: dict[int, Group] = {}
        self.add_group(DEFAULT_GROUP)

    def add_group(self, name: str) -> Group:
        """A group that gets every message from now on."""
        group = Group(self, len(self._group_by_id), name)
        self.groups[name] = group
        self._group_by_id[group.id] = group
        return group

    def group_by_id(self, group_id: int) -> Group | None:
        """The group that a lease id speaks of."""
        return self._group_by_id.get(group_id)

    def remove(self, seq: int) -> None:
        """Forget a message that every group is done with."""
        message = self.messages.pop(seq)
        self.held_messages -= 1
        self.held_bytes -= len(message.body)

    def describe(self, wall: float) -> TopicInfo:
        """How the topic stands."""
        groups = tuple(group.describe(wall) for group in self.groups.values())
        return TopicInfo(self.name, self.config, self.created_at, self.held_messages, self.held_bytes, groups)
