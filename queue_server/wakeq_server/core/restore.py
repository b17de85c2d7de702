"""The core as it was, from what a store has kept."""

from collections import defaultdict
from collections.abc import Callable, Mapping

from wakeq_server.core.dedup import Dedup, Seen
from wakeq_server.core.leases import Lease
from wakeq_server.core.lifecycle import State
from wakeq_server.core.model import HistorySet, LeaseKey, Push, PushConfig, Snapshot
from wakeq_server.core.queue import QueueCore
from wakeq_server.core.topic import Dead, Group, Topic


def restore(
    snapshot: Snapshot,
    *,
    now: float,
    wall: float,
    jitter: Callable[[], float],
    durable: bool,
    memory_budget: int = 1 << 62,
    max_topics: int = 1 << 62,
) -> QueueCore:
    """Build the core from a snapshot. Bodies stay where they are until they are wanted.

    A lease that was committed goes on until its end, under its old id; one that was not is simply not there, and
    its message is ready. Stored instants are wall-clock ones, so what is left of them is kept within what it was
    at the start: a clock that was set back does not hide a message for years.
    """
    core = QueueCore(
        epoch=snapshot.epoch, jitter=jitter, durable=durable, memory_budget=memory_budget, max_topics=max_topics
    )
    core.next_topic_id = snapshot.next_topic_id
    by_id = _restore_topics(core, snapshot)
    for run in snapshot.runs:
        _restore_run(by_id[run.topic_id], run.first, run.last, run.size)
    for topic_id, message in snapshot.others:
        core.readmit(by_id[topic_id], message)
    histories: defaultdict[tuple[int, int], dict[int, HistorySet]] = defaultdict(dict)
    for history in snapshot.histories:
        histories[history.topic_id, history.group][history.seq] = history
    for topic in by_id.values():
        _restore_positions(core, topic, histories, now, wall)
    for key in snapshot.keys:
        topic = by_id[key.topic_id]
        topic.dedup = Dedup() if topic.dedup is None else topic.dedup
        left_s = min(max(0.0, key.expires_at - wall), topic.config.dedup_window_s)
        topic.dedup.put(key.digest, Seen(key.fingerprint, key.first_seq, key.count, now + left_s, None))
    return core


def _restore_topics(core: QueueCore, snapshot: Snapshot) -> dict[int, Topic]:
    by_id = {}
    for row in snapshot.topics:
        topic = Topic(row.topic_id, row.name, row.config, row.created_at)
        topic.paused = row.paused
        topic.next_seq = topic.visible_to = snapshot.next_seq.get(row.topic_id, 1)
        core.topics[row.name] = by_id[row.topic_id] = topic
    for group_row in snapshot.groups:
        group = by_id[group_row.topic_id].add_group(group_row.name, group_row.group, group_row.start)
        group.cursor = group_row.cursor
        # A seq that was given out and failed to be stored isn't known, but a group may begin behind it.
        topic = by_id[group_row.topic_id]
        topic.next_seq = topic.visible_to = max(topic.next_seq, group.start, group.cursor)
    for push in snapshot.pushes:
        topic = by_id[push.topic_id]
        group_name = topic.group_by_id[push.group].name
        config = PushConfig(push.url, group_name, push.max_in_flight, push.timeout_s)
        topic.pushes[push.name] = Push(topic.name, push.name, push.push_id, config)
        topic.next_push_id = max(topic.next_push_id, push.push_id + 1)
    return by_id


def _restore_run(topic: Topic, first: int, last: int, size: int) -> None:
    topic.add_cold(first, last, size)
    topic.held_bytes += size
    topic.held_messages += last - first + 1
    topic.visible_count += last - first + 1


def _restore_positions(
    core: QueueCore,
    topic: Topic,
    histories: Mapping[tuple[int, int], Mapping[int, HistorySet]],
    now: float,
    wall: float,
) -> None:
    # What a group has had in hand was due, whatever the wall clock says by now.
    was_due = {
        seq
        for group in topic.groups.values()
        for seq, history in histories.get((topic.id, group.id), {}).items()
        if history.standing != "gone"
    }
    for message in topic.messages.values():
        topic.held_messages += 1
        topic.held_bytes += message.size
        core.time(topic, message._replace(due_at=None) if message.seq in was_due else message, now, wall - now)
    others = sorted(topic.messages)
    for group in topic.groups.values():
        group.exempt = topic.scheduled_before(group.start)
        own = histories.get((topic.id, group.id), {})
        overtaken = _advance_cursor(topic, group, own)
        for seq in overtaken:
            # Once the store has the cursor, only this says that they are not done with.
            core.note_change(group, seq)
        _restore_passed(topic, group, others)
        seqs = {*own, *overtaken, *(seq for seq in others if group.start <= seq < group.cursor)}
        # What is out holds its key, whatever comes before it: a redriven one may.
        out = {seq for seq in seqs if seq in own and own[seq].standing in ("leased", "delayed")}
        # Dead letters are listed as they died: the first is the next to go, and to be redriven.
        ends = {seq: _died_at(topic, own[seq], wall) for seq in seqs if seq in own}
        died = {seq: died_at for seq, died_at in ends.items() if died_at is not None}
        rest = sorted(seqs - out - died.keys())
        for seq in [*sorted(out - died.keys()), *rest, *sorted(died, key=lambda seq: (died[seq], seq))]:
            if topic.holds(seq):
                _restore_place(core, group, own.get(seq), seq, now, wall)
    for group in topic.groups.values():
        core.watch(group)
    core.free_dead(topic)


def _died_at(topic: Topic, history: HistorySet, wall: float) -> float | None:
    """When a message died, by the wall clock; None: it lives. A last attempt may have run out unattended."""
    if history.standing == "dead":
        return history.due_at
    last = 0 < topic.config.max_deliveries <= history.attempt
    return wall if last and history.standing == "leased" and not _left_s(history, wall) else None


def _left_s(history: HistorySet, wall: float) -> float:
    """What is left of a lease or a delay: never more than when it was written, wherever the wall clock is now."""
    return min(max(0.0, history.due_at - wall), history.span_s)


def _advance_cursor(topic: Topic, group: Group, own: Mapping[int, HistorySet]) -> list[int]:
    """Put the cursor behind all that was delivered; the messages that were not, and that it has passed by that.

    A settle may have been stored when the cursor that belongs to it was not.
    """
    delivered = (seq for seq, history in own.items() if history.standing != "gone" and topic.holds(seq))
    stored, group.cursor = group.cursor, max([group.cursor, *(seq + 1 for seq in delivered)])
    overtaken, seq = [], topic.next_from(stored)
    while seq < group.cursor:
        if seq not in own:
            overtaken.append(seq)
        seq = topic.next_from(seq + 1)
    return overtaken


def _restore_passed(topic: Topic, group: Group, others: list[int]) -> None:
    """Of the visible messages: those in front of the cursor."""
    group.passed = topic.cold.count_below(group.cursor) if topic.cold is not None else 0
    group.passed += sum(seq < group.cursor and not topic.is_scheduled(seq) for seq in others)


def _restore_place(
    core: QueueCore, group: Group, history: HistorySet | None, seq: int, now: float, wall: float
) -> None:
    topic = group.topic
    if seq < group.start:
        return
    if topic.is_scheduled(seq):
        if history is not None and history.standing == "gone":
            group.skip(seq)
        return
    if history is None:
        group.wait_again(seq)
        return
    left_s = _left_s(history, wall)
    if history.standing == "gone":
        if seq >= group.cursor:
            group.skipped[seq] = None
            group.passed += 1
    elif history.standing == "dead":
        died = now - max(0.0, wall - history.due_at)
        core.restore_dead(group, seq, Dead(history.reason, history.attempt, died, history.due_at))
    elif history.standing in ("leased", "delayed") and left_s:
        key = topic.key_of(seq)
        if key is not None:
            group.holders.setdefault(key, seq)
        _restore_hidden(core, group, history, now, left_s)
    elif history.standing == "leased" and _died_at(topic, history, wall) is not None:
        core.restore_dead(group, seq, Dead("lease expired", history.attempt, now, wall))
        core.note_change(group, seq)
    else:
        if history.standing != "ready":
            core.note_change(group, seq)
        if history.attempt:
            group.attempts[seq] = history.attempt
        group.wait_again(seq)


def _restore_hidden(core: QueueCore, group: Group, history: HistorySet, now: float, left_s: float) -> None:
    if history.standing == "leased":
        key = LeaseKey(group.topic.id, group.id, history.seq, history.epoch, history.number)
        core.hold(group, Lease(key, history.attempt, now, None), left_s, now)
        return
    group.attempts[history.seq] = history.attempt
    group.open[history.seq] = State.DELAYED
    group.delay(history.seq, now + left_s)
