"""Protocol, sections 2, 4.4, 5 and 6: how messages die, where they go, and how long they are kept."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.conformance.api import Queue, bodies, leases


def nack(queue: Queue, topic: str, **line: Any) -> None:
    """Claim the next message and nack it."""
    lease = queue.claim_one(topic)["lease_id"]
    assert queue.settle(topic, nack=[{"lease_id": lease, "delay_s": 0, **line}]) == ["ok"]


@pytest.mark.parametrize("most", [1, 3])
def test_a_message_is_dead_after_its_last_delivery(queue: Queue, most: int) -> None:
    topic = queue.topic(max_deliveries=most)
    queue.publish(topic, "a")
    for _ in range(most):
        assert queue.group(topic)["dead"] == 0
        nack(queue, topic, reason="why not")
    assert queue.claim(topic) == []
    (dead,) = queue.peek(topic, state="dead")
    assert (dead["body"], dead["attempt"], dead["reason"]) == ("a", most, "why not")


def test_a_last_lease_that_expires_is_its_end_too(queue: Queue) -> None:
    topic = queue.topic(max_deliveries=1)
    queue.publish(topic, "a")
    lease = queue.claim_one(topic, lease_s=1)["lease_id"]
    queue.wait_until(topic, dead=1)
    (dead,) = queue.peek(topic, state="dead")
    assert (dead["attempt"], bool(dead["reason"])) == (1, True)
    assert queue.settle(topic, ack=[lease]) == ["stale"]


def test_a_reason_is_always_there(queue: Queue) -> None:
    topic = queue.topic(max_deliveries=1)
    queue.publish(topic, "a")
    nack(queue, topic)
    (dead,) = queue.peek(topic, state="dead")
    assert dead["reason"]


def test_without_a_limit_nothing_dies_of_deliveries(queue: Queue) -> None:
    topic = queue.topic(max_deliveries=0, retry_backoff_s={"min": 0, "max": 0})
    queue.publish(topic, "a")
    for attempt in range(1, 12):
        delivery = queue.claim_one(topic)
        assert delivery["attempt"] == attempt
        queue.settle(topic, nack=[{"lease_id": delivery["lease_id"]}])
    assert queue.group(topic)["dead"] == 0


@pytest.mark.capability("delay")
def test_without_a_limit_the_backoff_is_a_floor_from_the_third_attempt_on(queue: Queue) -> None:
    topic = queue.topic(max_deliveries=0, retry_backoff_s={"min": 500, "max": 500})
    queue.publish(topic, "poisoned", "behind")
    for _ in range(2):
        nack(queue, topic)
        assert queue.standing(topic)["ready"] == 2
    nack(queue, topic)
    assert queue.standing(topic) == {"ready": 1, "delayed": 1, "leased": 0, "parked": 0}
    assert bodies(queue.claim(topic)) == ["behind"]


@pytest.mark.capability("delay")
def test_with_a_limit_it_is_none(queue: Queue) -> None:
    topic = queue.topic(max_deliveries=5, retry_backoff_s={"min": 500, "max": 500})
    queue.publish(topic, "a")
    for _ in range(4):
        nack(queue, topic)
        assert queue.standing(topic)["ready"] == 1


def retry_hidden_s(queue: Queue, topic: str) -> float:
    """Nack the next message without a delay; how long it is hidden, within the time that the calls take."""
    nack(queue, topic, delay_s=None)
    (peeked,) = queue.peek(topic, state="delayed")
    return (datetime.fromisoformat(peeked["due_at"]) - datetime.now(UTC)).total_seconds()


@pytest.mark.capability("delay")
@pytest.mark.parametrize(("attempt", "longest_s"), [(1, 10_000), (2, 20_000), (3, 40_000), (4, 50_000), (5, 50_000)])
def test_the_backoff_doubles_with_each_attempt_up_to_its_bound(queue: Queue, attempt: int, longest_s: float) -> None:
    topic = queue.topic(max_deliveries=100, retry_backoff_s={"min": 10_000, "max": 50_000})
    queue.publish(topic, "a")
    for _ in range(attempt - 1):
        nack(queue, topic)
    # Up to half of it is jitter.
    assert longest_s / 2 - 60 < retry_hidden_s(queue, topic) < longest_s + 1


def test_dead_settles_kill_at_once_whatever_the_limit(queue: Queue) -> None:
    topic = queue.topic(max_deliveries=0)
    queue.publish(topic, "a", "b")
    a, b = leases(queue.claim(topic, max=2))
    assert queue.settle(topic, dead=[{"lease_id": a, "reason": "r"}, {"lease_id": b}]) == ["ok", "ok"]
    assert queue.settle(topic, dead=[{"lease_id": a}]) == ["ok"]
    assert queue.settle(topic, ack=[a], nack=[{"lease_id": a}]) == ["stale", "stale"]
    assert [(d["body"], d["reason"]) for d in queue.peek(topic, state="dead")] == [("a", "r"), ("b", None)]
    assert queue.claim(topic) == []


@pytest.mark.parametrize("way", ["dead", "nack"])
def test_a_reason_is_kept_to_its_thousandth_character(queue: Queue, way: str) -> None:
    topic = queue.topic(max_deliveries=1)
    queue.publish(topic, "a")
    (lease,) = leases(queue.claim(topic))
    assert queue.settle(topic, **{way: [{"lease_id": lease, "reason": "ü" * 1_000 + "x"}]}) == ["ok"]
    assert queue.peek(topic, state="dead")[0]["reason"] == "ü" * 1_000


def test_dead_letters_take_no_room(queue: Queue) -> None:
    topic = queue.topic(max_messages=1, max_bytes=3)
    queue.publish(topic, "a")
    queue.die(topic, None)
    assert (queue.info(topic)["messages"], queue.info(topic)["bytes"]) == (0, 0)
    assert queue.post(topic, b"123").status_code == 200


def test_dead_letters_are_kept_for_their_time(queue: Queue) -> None:
    topic, other = queue.topic(dead_ttl_s=1), queue.topic()
    for name in (topic, other):
        queue.publish(name, "a")
        queue.die(name, None)
    queue.wait_until(topic, dead=0)
    assert queue.do(topic, "redrive") == {"moved": 0, "remaining": 0}
    assert queue.group(other)["dead"] == 1


# Dead letter topics


def test_a_dead_letter_goes_where_its_topic_says(queue: Queue) -> None:
    letters = queue.topic()
    topic = queue.topic(dead_letter_topic=letters, max_deliveries=2)
    queue.send(topic, {"a": 1}, id="i", key="k", headers={"kept": "yes"})
    nack(queue, topic)
    nack(queue, topic, reason="why not")
    delivery = queue.claim_one(letters)
    assert (delivery["body"], delivery["attempt"]) == ({"a": 1}, 1)
    assert delivery["headers"] == {
        "kept": "yes",
        "dead-topic": topic,
        "dead-group": "default",
        "dead-attempts": "2",
        "dead-reason": "why not",
    }
    queue.wait_until(topic, dead=0)
    assert queue.info(topic)["messages"] == 0


def test_bytes_keep_their_content_type_on_the_way(queue: Queue) -> None:
    letters = queue.topic(schema="any")
    topic = queue.topic(schema="any", dead_letter_topic=letters)
    queue.post(topic, b"\xff", "image/x")
    queue.die(topic, None)
    delivery = queue.claim_one(letters)
    assert (delivery["body_b64"], delivery["content_type"]) == ("/w==", "image/x")


def test_where_that_topic_is_missing_they_stay(queue: Queue) -> None:
    letters = queue.new_name()
    topic = queue.topic(dead_letter_topic=letters)
    queue.publish(topic, "a")
    queue.die(topic, "because")
    (dead,) = queue.peek(topic, state="dead")
    assert (dead["body"], dead["reason"]) == ("a", "because")
    assert queue.http.get(f"/topics/{letters}").status_code == 404
    assert queue.do(topic, "redrive") == {"moved": 1, "remaining": 0}


@pytest.mark.parametrize("limit", [{"max_messages": 1}, {"max_bytes": 3}], ids=str)
def test_where_it_is_full_they_stay(queue: Queue, limit: dict[str, int]) -> None:
    letters = queue.topic(**limit)
    topic = queue.topic(dead_letter_topic=letters)
    queue.publish(letters, "x")
    queue.publish(topic, "a", "b")
    queue.die(topic, "because")
    assert bodies(queue.peek(topic, state="dead")) == ["a"]
    queue.do(letters, "purge")
    queue.die(topic, "because")
    assert queue.claim_one(letters)["body"] == "b"
    assert bodies(queue.peek(topic, state="dead")) == ["a"]


@pytest.mark.capability("groups")
def test_each_group_has_its_own_dead_letters_moved(queue: Queue) -> None:
    letters = queue.topic()
    topic = queue.topic(dead_letter_topic=letters)
    queue.add_group(topic, "g")
    queue.publish(topic, "a")
    queue.die(topic, "because", group="g")
    assert queue.claim_one(letters)["headers"]["dead-group"] == "g"
    assert bodies(queue.claim(topic, max=5)) == ["a"]
