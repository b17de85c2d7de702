"""The core as it was, from what a store has kept."""

from collections import defaultdict
from collections.abc import Callable, Mapping

from wakeq_server.core.leases import Lease
from wakeq_server.core.model import HistorySet, LeaseKey, Snapshot, TopicPut
from wakeq_server.core.queue import QueueCore
from wakeq_server.core.topic import Group, Topic


def restore(
    snapshot: Snapshot, *, now: float, wall: float, jitter: Callable[[], float], keep_history: bool
) -> QueueCore:
    """Build the core from a snapshot.

    A lease that was committed goes on until its end, under its old id; one that was not is simply not there, and
    its message is ready. Stored instants are wall-clock ones, so what is left of them is kept within what it was
    at the start: a clock that was set back does not hide a message for years.
    """
    core = QueueCore(epoch=snapshot.epoch, jitter=jitter, keep_history=keep_history)
    core.next_topic_id = snapshot.next_topic_id
    histories: dict[int, dict[tuple[int, int], HistorySet]] = defaultdict(dict)
    for history in snapshot.histories:
        histories[history.topic_id][history.group, history.seq] = history
    by_id = {row.topic_id: _restore_topic(core, row, snapshot.next_seq) for row in snapshot.topics}
    for topic_id, message in snapshot.messages:
        topic = by_id[topic_id]
        topic.messages[message.seq] = message
        topic.held_bytes += len(message.body)
    for topic in by_id.values():
        _restore_places(core, topic, histories[topic.id], now, wall)
    return core


def _restore_topic(core: QueueCore, row: TopicPut, next_seq: Mapping[int, int]) -> Topic:
    topic = Topic(row.topic_id, row.name, row.config, row.created_at)
    topic.next_seq = next_seq.get(row.topic_id, 1)
    core.topics[row.name] = topic
    return topic


def _restore_places(
    core: QueueCore, topic: Topic, histories: Mapping[tuple[int, int], HistorySet], now: float, wall: float
) -> None:
    if topic.messages:
        topic.next_seq = max(topic.next_seq, max(topic.messages) + 1)
    topic.visible_to = topic.next_seq
    topic.visible_count = topic.held_messages = len(topic.messages)
    for group in topic.groups.values():
        own = {seq: history for (group_id, seq), history in histories.items() if group_id == group.id}
        _restore_group(core, group, own, now, wall)


def _restore_group(core: QueueCore, group: Group, histories: Mapping[int, HistorySet], now: float, wall: float) -> None:
    # Everything up to the last message that was ever delivered is in front of the cursor.
    last = max(histories, default=0)
    leased: list[tuple[float, Lease]] = []
    for seq in sorted(seq for seq in group.topic.messages if seq <= last):
        history = histories.get(seq)
        left_s = 0.0 if history is None else min(max(0.0, history.due_at - wall), history.span_s)
        group.pass_by(seq)
        if history is not None and history.attempt and not (history.number and left_s):
            group.attempts[seq] = history.attempt
        if history is not None and history.number and left_s:
            key = LeaseKey(group.topic.id, group.id, seq, history.epoch, history.number)
            leased.append((left_s, Lease(key, history.attempt, now, None)))
        elif left_s:
            group.delays.add(seq, now + left_s)
        else:
            group.put_back(seq)
    core.resume_leases(group, sorted(leased, key=lambda pair: pair[0]), now)
