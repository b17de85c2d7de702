"""The kinds of consumers, each parked on a topic of QueueMessages, and how they tell what they were woken with."""

import json
from collections.abc import Callable

from tests.conformance.api import Json, Queue

Woken = Callable[[], Json]
"""Waits for the message's body."""


def _claim(queue: Queue, topic: str) -> Woken:
    request = queue.start("POST", f"/messages/{topic}/claim", b'{"wait_s": 50}')

    def body() -> Json:
        (only,) = request.answer().bodies()
        return dict(only)

    return body


def _get(queue: Queue, topic: str) -> Woken:
    request = queue.start("GET", f"/messages/{topic}?wait=50")
    return lambda: dict(request.answer().json())


def _legacy_get(queue: Queue, topic: str) -> Woken:
    response = queue.start("GET", f"/messages/{topic}").connection.getresponse()
    assert response.read(1) == b" ", "the answer is begun by a heartbeat"
    return lambda: dict(json.loads(response.read()))


def _leased_stream(queue: Queue, topic: str) -> Woken:
    stream = queue.stream(topic, lease=500)
    return lambda: dict(stream.take(1)[0]["body"])


def _stream(queue: Queue, topic: str) -> Woken:
    stream = queue.stream(topic)
    return lambda: dict(stream.take(1)[0])


KINDS = {
    "claim": _claim,
    "get": _get,
    "legacy get": _legacy_get,
    "leased stream": _leased_stream,
    "stream": _stream,
}
LASTING = {"leased stream", "stream"}
"""Kinds that stand in line again when they have been given something."""


def park(queue: Queue, topic: str, kind: str) -> Woken:
    """A consumer that is parked when this returns."""
    waiting = queue.standing(topic)["parked"]
    woken = KINDS[kind](queue, topic)
    queue.wait_until(topic, parked=waiting + 1)
    return woken
