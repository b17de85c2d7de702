"""Protocol, section 4.2: leased messages, as soon as there is one."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conformance.api import Queue, bodies, leases

FIELDS = {"seq", "id", "lease_id", "lease_expires_at", "attempt", "published_at", "key", "headers", "body"}


def instant(text: str) -> datetime:
    """RFC 3339 in UTC."""
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


def test_a_delivery_has_these_fields(queue: Queue) -> None:
    topic = queue.topic(lease_s=100)
    (seq,) = queue.publish(topic, {"a": 1})
    answer = queue.http.post(f"/messages/{topic}/claim", json={})
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"messages"}
    (delivery,) = answer.json()["messages"]
    assert set(delivery) == FIELDS
    assert (delivery["seq"], delivery["attempt"], delivery["body"]) == (seq, 1, {"a": 1})
    assert (delivery["id"][:6], delivery["key"], delivery["headers"]) == ("wakeq-", None, {})


def test_a_message_without_a_key_has_an_id_of_its_own_at_each_delivery(queue: Queue) -> None:
    topics = [queue.topic(), queue.topic()]
    for topic in topics:
        queue.publish(topic, 1, 2)
    first = [delivery for topic in topics for delivery in queue.claim(topic, max=2)]
    for topic in topics:
        queue.settle(topic, release=[one["lease_id"] for one in first])
    again = [queue.claim_one(topic) for topic in topics for _ in range(2)]
    assert [delivery["id"] for delivery in again] == [delivery["id"] for delivery in first]
    assert len({delivery["id"] for delivery in first}) == 4


def test_instants_are_utc_and_tell_the_lease(queue: Queue) -> None:
    topic = queue.topic(lease_s=100)
    queue.publish(topic, 1, 2)
    for ask, length_s in [({}, 100), ({"lease_s": 2_000.5}, 2_000.5)]:
        (delivery,) = queue.claim(topic, **ask)
        published, expires = instant(delivery["published_at"]), instant(delivery["lease_expires_at"])
        assert timedelta(0) <= expires - published - timedelta(seconds=length_s) < timedelta(seconds=20)
        assert published.tzinfo == UTC


def test_the_empty_body_claims_one(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, 1, 2)
    answer = queue.http.post(f"/messages/{topic}/claim")
    assert [d["body"] for d in answer.json()["messages"]] == [1]


def test_max_bounds_a_claim_and_less_is_answered_at_once(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, *range(5))
    assert bodies(queue.claim(topic, max=3, wait_s=60)) == [0, 1, 2]
    assert bodies(queue.claim(topic, max=3, wait_s=60)) == [3, 4]
    assert queue.claim(topic, max=3) == []


def test_a_thousand_at_once(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, *range(1_001))
    assert bodies(queue.claim(topic, max=1_000)) == list(range(1_000))


def test_nothing_is_answered_after_the_wait(queue: Queue) -> None:
    topic = queue.topic()
    request = queue.start("POST", f"/messages/{topic}/claim", b'{"wait_s": 0.05}')
    answer = request.answer()
    assert (answer.status, answer.json()) == (200, {"messages": []})
    assert queue.standing(topic)["parked"] == 0


def test_a_leased_message_is_nobody_elses(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, 1)
    assert bodies(queue.claim(topic)) == [1]
    assert queue.claim(topic) == []
    assert queue.http.get(f"/messages/{topic}").status_code == 204


def test_lease_ids_are_short_and_never_the_same(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, *range(100))
    seen = set()
    for _ in range(3):
        deliveries = queue.claim(topic, max=100)
        seen |= set(leases(deliveries))
        queue.settle(topic, nack=[{"lease_id": lease, "delay_s": 0} for lease in leases(deliveries)])
    assert len(seen) == 300
    assert max(len(lease.encode()) for lease in seen) <= 512


def test_the_group_default_is_what_no_group_means(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, 1)
    assert bodies(queue.claim(topic, group="default")) == [1]


def test_a_missing_group_is_not_found(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, 1)
    answer = queue.http.post(f"/messages/{topic}/claim", json={"group": "nobody"})
    assert (answer.status_code, answer.json()["code"]) == (404, "GROUP_NOT_FOUND")
    assert queue.standing(topic)["ready"] == 1


def test_a_long_lease_counts_to_twelve_hours(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, 1, 2)
    assert len(queue.claim(topic, lease_s=43_200)) == 1
    assert len(queue.claim(topic, lease_s=1, wait_s=0, max=1)) == 1


WRONG: list[tuple[str, Any, str]] = [
    ("max", 0, "1000"),
    ("max", 1_001, "1000"),
    ("max", "1", "integer"),
    ("max", 1.5, "integer"),
    ("wait_s", -0.1, "60"),
    ("wait_s", 60.1, "60"),
    ("wait_s", "1", "number"),
    ("lease_s", 0.9, "43200"),
    ("lease_s", 43_200.1, "43200"),
    ("group", "", "1 character"),
    ("group", 1, "string"),
    ("no_such_field", 1, "unknown"),
]


@pytest.mark.parametrize(("field", "value", "says"), WRONG, ids=lambda value: repr(value)[:20])
def test_a_wrong_claim_is_refused_by_field_and_range(queue: Queue, field: str, value: Any, says: str) -> None:
    topic = queue.topic()
    queue.publish(topic, 1)
    answer = queue.http.post(f"/messages/{topic}/claim", json={field: value})
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
    assert field in answer.json()["detail"]
    assert says in answer.json()["detail"].replace(",", "")
    assert queue.standing(topic)["ready"] == 1


@pytest.mark.parametrize("body", [b"{", b"[]", b"null", b'{"wait_s": NaN}', b'{"wait_s": 1e999}', b"\xff"], ids=repr)
def test_a_claim_that_is_no_json_object_is_refused(queue: Queue, body: bytes) -> None:
    topic = queue.topic()
    queue.publish(topic, 1)
    answer = queue.http.post(f"/messages/{topic}/claim", content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
    assert queue.standing(topic)["ready"] == 1


def test_a_nacked_message_has_one_attempt_more(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, 1)
    for attempt in (1, 2, 3):
        (delivery,) = queue.claim(topic)
        assert delivery["attempt"] == attempt
        assert queue.settle(topic, nack=[{"lease_id": delivery["lease_id"], "delay_s": 0}]) == ["ok"]


def test_an_expired_lease_counts_as_an_attempt_and_its_id_is_stale(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, 1, 2)
    old = queue.claim_one(topic, lease_s=1)
    parked = queue.claim(topic, max=2)
    assert bodies(parked) == [2]
    again = queue.claim_one(topic)
    assert (again["body"], again["attempt"]) == (1, 2)
    assert queue.settle(topic, ack=[old["lease_id"]]) == ["stale"]
    assert queue.settle(topic, extend=[{"lease_id": old["lease_id"]}]) == ["stale"]
    assert queue.standing(topic)["leased"] == 2


def test_a_claim_that_hung_up_has_counted_no_attempt(queue: Queue) -> None:
    topic = queue.topic()
    for number in range(10):
        # The server may see the hang-up before the message, or find out when it hands it over.
        queue.park(topic).close()
        queue.publish(topic, number)
        delivery = queue.claim_one(topic)
        assert (delivery["body"], delivery["attempt"]) == (number, 1)
        queue.settle(topic, ack=[delivery["lease_id"]])
