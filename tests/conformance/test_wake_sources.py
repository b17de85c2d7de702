"""Protocol, section 5: whatever makes a message deliverable wakes the consumer parked longest, and no other.

A source makes a topic, brings it to the brink, and says what happens then; the message `wanted` comes by that.
"""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.api import Queue, Request, leases
from tests.conformance.consumers import KINDS, LASTING, park

Happens = Callable[[], object]
Source = Callable[[Queue], tuple[str, Happens]]


def new(queue: Queue, **config: Any) -> str:
    return queue.topic(**{"schema": "queue_message"} | config)


def send(queue: Queue, topic: str, name: str = "wanted", **attributes: Any) -> int:
    return queue.send(topic, {"id_": name}, **attributes)


def leased(queue: Queue, topic: str, name: str = "wanted", **attributes: Any) -> str:
    """Publish a message and lease it; the lease."""
    send(queue, topic, name, **attributes)
    (lease,) = leases(queue.claim(topic, lease_s=500))
    return lease


def leased_in_front(queue: Queue, topic: str) -> str:
    """The lease of a message that holds the key of `wanted`."""
    lease = leased(queue, topic, "holder", key="k")
    send(queue, topic, key="k")
    return lease


def held_publish(queue: Queue) -> tuple[str, str]:
    """A topic that is full of one leased message, with a publish of `wanted` held before it; the lease."""
    topic = new(queue, max_messages=1)
    lease = leased(queue, topic, "in the way")
    queue.start("POST", f"/messages/{topic}", b'{"id_": "wanted"}', {"content-type": "application/json"})
    return topic, lease


def publish_behind(queue: Queue, topic: str, first: Request) -> None:
    """Publish when the consumer parked longest has hung up, which the server may see then or when it hands it over."""
    first.close()
    send(queue, topic)


def publish(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    return topic, lambda: queue.post(topic, b'{"id_": "wanted"}')


def batch(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    return topic, lambda: queue.batch(topic, b'{"id_": "wanted"}')


def envelopes(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    return topic, lambda: send(queue, topic)


def lenient_envelopes(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    return topic, lambda: queue.envelopes(topic, b"nonsense", {"body": {"id_": "wanted"}}, lenient=True)


def due_delay(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    return topic, lambda: send(queue, topic, delay_s=0.1)


def nack(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    lease = leased(queue, topic)
    return topic, lambda: queue.settle(topic, nack=[{"lease_id": lease, "delay_s": 0}])


def release(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    lease = leased(queue, topic)
    return topic, lambda: queue.settle(topic, release=[lease])


def due_nack(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    lease = leased(queue, topic)
    return topic, lambda: queue.settle(topic, nack=[{"lease_id": lease, "delay_s": 0.1}])


def due_backoff(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue, retry_backoff_s={"min": 0.1, "max": 0.1})
    lease = leased(queue, topic)
    return topic, lambda: queue.settle(topic, nack=[{"lease_id": lease}])


def expired_lease(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    lease = leased(queue, topic)
    # Shortened when everybody is parked, however long that took.
    return topic, lambda: queue.settle(topic, extend=[{"lease_id": lease, "lease_s": 1}])


def redrive(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    send(queue, topic)
    queue.die(topic, "because")
    return topic, lambda: queue.do(topic, "redrive")


def resume(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    queue.do(topic, "pause")
    send(queue, topic)
    return topic, lambda: queue.do(topic, "resume")


def hung_up_claim(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    first = queue.park(topic)
    return topic, lambda: publish_behind(queue, topic, first)


def hung_up_get(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    first = queue.start("GET", f"/messages/{topic}")
    queue.wait_until(topic, parked=1)
    return topic, lambda: publish_behind(queue, topic, first)


def closed_stream(queue: Queue, grace: float = 0) -> tuple[str, Happens]:
    topic = new(queue)
    stream = queue.stream(topic, lease=500, prefetch=1, grace=grace)
    send(queue, topic)
    stream.take(1)
    return topic, stream.close


def closed_stream_after_its_grace(queue: Queue) -> tuple[str, Happens]:
    return closed_stream(queue, 0.2)


def acked_holder(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    lease = leased_in_front(queue, topic)
    return topic, lambda: queue.settle(topic, ack=[lease])


def dead_holder(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    lease = leased_in_front(queue, topic)
    return topic, lambda: queue.settle(topic, dead=[{"lease_id": lease}])


def holder_nacked_for_the_last_time(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue, max_deliveries=1)
    lease = leased_in_front(queue, topic)
    return topic, lambda: queue.settle(topic, nack=[{"lease_id": lease, "delay_s": 500}])


def holder_expired_for_the_last_time(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue, max_deliveries=1)
    lease = leased_in_front(queue, topic)
    return topic, lambda: queue.settle(topic, extend=[{"lease_id": lease, "lease_s": 1}])


def holder_past_its_time_to_live(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    lease = leased(queue, topic, "holder", key="k", ttl_s=1.5)
    queue.settle(topic, nack=[{"lease_id": lease, "delay_s": 500}])
    send(queue, topic, key="k")
    return topic, lambda: None


def purged_holder(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    lease = leased_in_front(queue, topic)
    queue.settle(topic, nack=[{"lease_id": lease, "delay_s": 500}])
    return topic, lambda: (queue.do(topic, "purge"), send(queue, topic, key="k"))


def moved_dead_letter(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    where_it_died = new(queue, dead_letter_topic=topic)
    send(queue, where_it_died)
    return topic, lambda: queue.die(where_it_died, "because")


def room_for_a_held_publish(queue: Queue) -> tuple[str, Happens]:
    topic, lease = held_publish(queue)
    return topic, lambda: queue.settle(topic, ack=[lease])


def raised_limit(queue: Queue) -> tuple[str, Happens]:
    topic, _ = held_publish(queue)
    return topic, lambda: queue.http.put(f"/topics/{topic}", json={"schema": "queue_message", "max_messages": 2})


DELAY, KEYS = pytest.mark.capability("delay"), pytest.mark.capability("ordering_keys")
SOURCES: list[tuple[Source, list[pytest.MarkDecorator]]] = [
    *((source, []) for source in (publish, batch, envelopes, lenient_envelopes, nack, release, expired_lease)),
    *((source, []) for source in (redrive, resume)),
    *((source, []) for source in (hung_up_claim, hung_up_get, closed_stream, closed_stream_after_its_grace)),
    *((source, []) for source in (moved_dead_letter, room_for_a_held_publish, raised_limit)),
    *((source, [DELAY]) for source in (due_delay, due_nack, due_backoff)),
    *((source, [KEYS]) for source in (acked_holder, dead_holder, holder_nacked_for_the_last_time)),
    *((source, [KEYS]) for source in (holder_expired_for_the_last_time, purged_holder)),
    (holder_past_its_time_to_live, [KEYS, DELAY]),
]


def parameter(source: Source, marks: list[pytest.MarkDecorator]) -> Any:
    return pytest.param(source, marks=marks, id=getattr(source, "__name__", ""))


@pytest.mark.parametrize("source", [parameter(*source) for source in SOURCES])
def test_every_kind_of_consumer_is_woken_and_the_next_in_line_is_not(queue: Queue, source: Source) -> None:
    topics, happens, woken = {}, {}, {}
    for kind in KINDS:
        topics[kind], happens[kind] = source(queue)
        woken[kind] = park(queue, topics[kind], kind)
        queue.park(topics[kind])
    for kind in KINDS:
        happens[kind]()
    assert {kind: woken[kind]()["id_"] for kind in KINDS} == dict.fromkeys(KINDS, "wanted")
    for kind, topic in topics.items():
        queue.wait_until(topic, parked=2 if kind in LASTING else 1)


@pytest.mark.parametrize("kind", KINDS)
def test_one_message_wakes_one_the_longest_parked_first(queue: Queue, kind: str) -> None:
    topic = new(queue)
    parked = [park(queue, topic, kind) for _ in range(3)]
    for name, woken in zip("abc", parked, strict=True):
        send(queue, topic, name)
        assert woken()["id_"] == name
    queue.wait_until(topic, parked=3 if kind in LASTING else 0)


@pytest.mark.parametrize("kind", sorted(LASTING))
def test_a_stream_that_was_given_something_stands_at_the_end_of_the_line(queue: Queue, kind: str) -> None:
    topic = new(queue)
    first, second = park(queue, topic, kind), park(queue, topic, kind)
    for name, woken in zip("abcd", [first, second, first, second], strict=True):
        queue.wait_until(topic, parked=2)
        send(queue, topic, name)
        assert woken()["id_"] == name


# What makes nothing deliverable


def configuration(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    config = {"schema": "queue_message", "lease_s": 7, "max_deliveries": 1, "ttl_s": 500}
    return topic, lambda: queue.http.put(f"/topics/{topic}", json=config)


def another_group(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    return topic, lambda: queue.add_group(topic, "another")


def another_groups_messages(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    queue.add_group(topic, "another")
    send(queue, topic, "old")
    queue.die(topic, "because")
    (lease,) = leases(queue.claim(topic, group="another"))
    return topic, lambda: queue.settle(topic, nack=[{"lease_id": lease, "delay_s": 0}])


def longer_lease(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    lease = leased(queue, topic, "leased")
    return topic, lambda: queue.settle(topic, extend=[{"lease_id": lease}])


def later_message(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    return topic, lambda: send(queue, topic, "later", delay_s=500)


def later_retry(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    lease = leased(queue, topic, "nacked")
    return topic, lambda: queue.settle(topic, nack=[{"lease_id": lease, "delay_s": 500}])


def message_behind_its_key(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    leased(queue, topic, "holder", key="k")
    return topic, lambda: send(queue, topic, "behind", key="k")


def purge(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    send(queue, topic, "later", delay_s=500)
    return topic, lambda: queue.do(topic, "purge")


def dead_letter(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    lease = leased(queue, topic, "dies")
    return topic, lambda: queue.settle(topic, dead=[{"lease_id": lease}])


def duplicate(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    send(queue, topic, "first", id="same")
    queue.settle(topic, ack=leases(queue.claim(topic)))
    return topic, lambda: send(queue, topic, "first", id="same")


def refused_publish(queue: Queue) -> tuple[str, Happens]:
    topic = new(queue)
    return topic, lambda: queue.batch(topic, b'{"id_": "refused"}\nnonsense')


GROUPS = pytest.mark.capability("groups")
NO_SOURCES: list[tuple[Source, list[pytest.MarkDecorator]]] = [
    *((source, []) for source in (configuration, longer_lease, dead_letter, duplicate, refused_publish)),
    *((source, [GROUPS]) for source in (another_group, another_groups_messages)),
    *((source, [DELAY]) for source in (later_message, later_retry, purge)),
    (message_behind_its_key, [KEYS]),
]


@pytest.mark.parametrize("source", [parameter(*source) for source in NO_SOURCES])
def test_nobody_is_woken_where_nothing_becomes_deliverable(queue: Queue, source: Source) -> None:
    topics, woken = {}, {}
    for kind in KINDS:
        topics[kind], happens = source(queue)
        woken[kind] = park(queue, topics[kind], kind)
        happens()
        # Whoever is woken has left the line before the call that woke it is answered.
        assert queue.standing(topics[kind])["parked"] == 1
    for topic in topics.values():
        send(queue, topic)
    assert {kind: woken[kind]()["id_"] for kind in KINDS} == dict.fromkeys(KINDS, "wanted")


def test_nobody_is_woken_while_the_topic_is_paused(queue: Queue) -> None:
    topic = new(queue)
    woken = park(queue, topic, "claim")
    queue.do(topic, "pause")
    send(queue, topic)
    assert queue.standing(topic) == {"ready": 1, "delayed": 0, "leased": 0, "parked": 1}
    queue.do(topic, "resume")
    assert woken()["id_"] == "wanted"
