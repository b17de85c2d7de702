"""Whether a topic took no more than it may, and was called full only when it was: by what its messages take at the
least and at the most, as far as calls, answers and commits tell."""

from typing import TYPE_CHECKING

from tests.simulation.model import PublishCall, Room, Topic, check
from wakeq_server.core.model import Message

if TYPE_CHECKING:
    from tests.simulation.checker import Checker


def taken_at_most(checker: "Checker", name: str) -> Room:
    """Everything that may be unsettled somewhere, or may be about to come."""
    coming = Room()
    for call in checker.publishing:
        coming = coming.with_(call.messages) if call.topic == name else coming
    topic = checker.topic(name)
    stored = [] if topic is None else [topic.messages[seq] for seq in sorted(_unsettled_at_most(topic))]
    stored += _about_to_move(checker, name)
    size = sum(message.size for message in stored) + _vague(checker, topic, stored)
    return Room(coming.messages + len(stored), coming.size + size)


def _unsettled_at_most(topic: Topic) -> set[int]:
    return topic.leaving | {seq for seq in topic.unsettled() if topic.held(seq, certainly=False)}


def _about_to_move(checker: "Checker", name: str) -> list[Message]:
    """What another topic's dead letters may become here."""
    found = []
    for topic in checker.topics.values():
        for group in topic.groups.values() if topic.config.dead_letter_topic == name else ():
            for place in group.places.values():
                checker.spread(topic, place)
                found += [place.message] if "dead" in place.possible else []
    return found


def _taken_at_least(checker: "Checker", topic: Topic) -> Room:
    """Everything that certainly takes room and always did: a redrive asks for none."""
    stored = []
    for seq in sorted(topic.unsettled()):
        places = [group.places[seq] for group in topic.groups.values() if seq in group.places]
        for place in places:
            checker.spread(topic, place)
        if topic.held(seq, certainly=True) and not any(place.redriven for place in places):
            stored.append(topic.messages[seq])
    size = sum(message.size for message in stored) - _vague(checker, topic, stored)
    return Room(len(stored), size)


def _vague(checker: "Checker", topic: Topic | None, stored: list[Message]) -> int:
    """How many bytes the server may be wrong about, where it knows no single sizes."""
    if topic is None or not checker.averaged or not topic.messages:
        return 0
    sizes = [message.size for message in topic.messages.values()]
    return len(stored) * (max(sizes) - min(sizes))


def check_taken(checker: "Checker", topic: Topic | None) -> None:
    """Messages have been stored; those before them were decided before them, and took room by then."""
    if topic is None or (topic.config.max_messages, topic.config.max_bytes) == (None, None):
        return
    taken = _taken_at_least(checker, topic)
    check(taken.fits(topic.config), f"topic {topic.name} took messages beyond its limit: {taken}")


def check_refusal(checker: "Checker", call: PublishCall) -> None:
    """A publish was refused since its topic is full; one that was held asked again just now."""
    checker.counts["full"] += 1
    topic = checker.topic(call.topic)
    if topic is None or call.topic in checker.deleting:
        return
    taken = taken_at_most(checker, call.topic) if call.held else call.taken
    full = not taken.with_(call.messages).fits(topic.config)
    check(full, f"topic {call.topic} was called full for {len(call.messages)} messages, but holds at the most {taken}")
