"""Looking at messages without taking them."""

from collections.abc import Iterator

from wakeq_server.core.leases import Lease
from wakeq_server.core.lifecycle import State
from wakeq_server.core.model import Message, Peeked
from wakeq_server.core.topic import Group

_STATES = {"ready": State.READY, "delayed": State.DELAYED, "leased": State.LEASED, "dead": State.DEAD}


def peek(group: Group, state: str, after: int, limit: int, ahead_s: float) -> list[Peeked]:
    """Messages of a group in a state, by seq, from behind ``after``; bodies may be in the store alone.

    ``ahead_s`` is what the wall clock is ahead of the core's.
    """
    wanted = _STATES[state]
    found = []
    for seq in _candidates(group, wanted, after):
        standing = group.standing(seq)
        if standing is wanted or (wanted is State.LEASED and standing is State.SETTLING):
            found.append(_peeked(group, seq, state, ahead_s))
            if len(found) == limit:
                break
    return found


def _candidates(group: Group, state: State, after: int) -> Iterator[int]:
    topic = group.topic
    scheduled = topic.scheduled.when if topic.scheduled is not None else {}
    listed = {*group.open, *(seq for seq in scheduled if seq >= group.start)}
    yield from sorted(seq for seq in listed if seq > after)
    if state is State.READY:
        seq = topic.next_from(max(group.cursor, after + 1))
        while seq < topic.visible_to:
            yield seq
            seq = topic.next_from(seq + 1)


def _peeked(group: Group, seq: int, state: str, ahead_s: float) -> Peeked:
    topic, place = group.topic, group.open.get(seq)
    message = topic.messages.get(seq) or Message(seq, None, 0, 0.0)
    attempt, reason, due = group.attempts.get(seq, 0), None, None
    if isinstance(place, Lease):
        attempt, due = place.attempt, place.deadline
    elif place is State.DEAD:
        dead = group.dead[seq]
        attempt, reason, due = dead.attempt, dead.reason, dead.died
    elif place is State.DELAYED:
        due = group.delays.when[seq]
    elif topic.scheduled is not None and seq in topic.scheduled.when:
        due = topic.scheduled.when[seq]
    return Peeked(message, state, attempt, reason, None if due is None else due + ahead_s)
