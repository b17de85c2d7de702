"""Protocol, sections 2, 3 and 7: what is too large, and what is full."""

import json
from typing import Any

import pytest

from tests.conformance.api import Queue, Request, bodies


def assert_refused(answer: Any, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(("schema", "smallest"), [("json", 2), ("any", 0)])
def test_a_message_may_be_as_large_as_its_topic_says(queue: Queue, schema: str, smallest: int) -> None:
    topic = queue.topic(schema=schema, max_message_bytes=10)
    assert queue.post(topic, b'"' + b"x" * 8 + b'"').status_code == 200
    assert_refused(queue.post(topic, b'"' + b"x" * 9 + b'"'), 413, "MESSAGE_TOO_LARGE")
    assert_refused(queue.batch(topic, b'1\n"' + b"x" * 9 + b'"\n2'), 413, "MESSAGE_TOO_LARGE")
    assert queue.standing(topic)["ready"] == 1


def test_a_queue_message_is_measured_as_it_is_kept(queue: Queue) -> None:
    topic = queue.topic(schema="queue_message", max_message_bytes=20)
    assert_refused(queue.post(topic, b"{}"), 413, "MESSAGE_TOO_LARGE")
    assert_refused(queue.batch(topic, b"{}"), 413, "MESSAGE_TOO_LARGE")
    assert queue.standing(topic)["ready"] == 0


def test_a_body_without_a_length_is_measured_too(queue: Queue) -> None:
    topic = queue.topic(max_message_bytes=100)
    pieces = iter([b"[", b"1," * 60, b"1]"])
    answer = queue.http.post(f"/messages/{topic}", content=pieces, headers={"content-type": "application/json"})
    assert_refused(answer, 413, "MESSAGE_TOO_LARGE")
    answer = queue.http.post(
        f"/messages/{topic}", content=iter([b"[", b"1]"]), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 200
    assert queue.standing(topic)["ready"] == 1


def declared(queue: Queue, topic: str, content_type: str, size: int) -> Request:
    """A publish that says how long it will be, and then waits for what the server thinks of it."""
    headers = {"content-type": content_type, "content-length": str(size)}
    return queue.start("POST", f"/messages/{topic}", None, headers)


def test_messages_and_batches_have_the_limits_that_the_server_tells(queue: Queue, about: dict[str, Any]) -> None:
    limits, topic, legacy = about["limits"], queue.topic(), queue.topic(schema="queue_message")
    for name, kind, size in [
        (topic, "application/json", limits["message_bytes"]),
        (topic, "application/x-ndjson", limits["batch_bytes"]),
        (legacy, "application/json", limits["queue_message_bytes"]),
    ]:
        answer = declared(queue, name, kind, size + 1).answer()
        assert (answer.status, answer.json()["code"]) == (413, "MESSAGE_TOO_LARGE")
        assert str(size) in answer.json()["detail"]
    assert (limits["batch_messages"], limits["batch_bytes"]) == (10_000, 16 * 1024 * 1024)
    assert (limits["message_bytes"], limits["queue_message_bytes"]) == (1024 * 1024, 64 * 1024 * 1024)


def test_a_message_of_the_largest_size_is_taken(queue: Queue, about: dict[str, Any]) -> None:
    topic = queue.topic()
    body = b'"' + b"x" * (about["limits"]["message_bytes"] - 2) + b'"'
    assert queue.post(topic, body).status_code == 200
    assert queue.http.get(f"/messages/{topic}").content == body


def test_a_batch_has_a_limit_of_messages(queue: Queue, about: dict[str, Any]) -> None:
    topic, most = queue.topic(), about["limits"]["batch_messages"]
    assert_refused(queue.batch(topic, b"1\n" * (most + 1)), 413, "MESSAGE_TOO_LARGE")
    assert queue.standing(topic)["ready"] == 0
    assert queue.batch(topic, b"1\n" * most).json()["count"] == most


def test_a_full_topic_refuses_with_retry_after(queue: Queue) -> None:
    topic = queue.topic(max_messages=2)
    queue.publish(topic, 1)
    assert_refused(queue.batch(topic, b"2\n3"), 429, "TOPIC_FULL")
    assert queue.standing(topic)["ready"] == 1
    queue.publish(topic, 2)
    answer = queue.post(topic, b"3")
    assert_refused(answer, 429, "TOPIC_FULL")
    assert int(answer.headers["retry-after"]) >= 1
    assert bodies(queue.claim(topic, max=5)) == [1, 2]


def test_leased_and_delayed_messages_fill_a_topic_until_they_are_acked(queue: Queue) -> None:
    topic = queue.topic(max_messages=2)
    queue.publish(topic, 1, 2)
    first, second = queue.claim(topic, max=2)
    queue.settle(topic, nack=[{"lease_id": second["lease_id"], "delay_s": 500}])
    assert_refused(queue.post(topic, b"3"), 429, "TOPIC_FULL")
    queue.settle(topic, ack=[first["lease_id"]])
    assert queue.post(topic, b"3").status_code == 200
    assert_refused(queue.post(topic, b"4"), 429, "TOPIC_FULL")


def test_a_topic_is_full_by_bytes_too(queue: Queue) -> None:
    topic = queue.topic(max_bytes=10)
    assert queue.post(topic, b'"123456"').status_code == 200
    assert_refused(queue.post(topic, b"123"), 429, "TOPIC_FULL")
    assert_refused(queue.batch(topic, b"1\n2\n3"), 429, "TOPIC_FULL")
    assert queue.post(topic, b"12").status_code == 200
    held = queue.claim_one(topic)
    queue.settle(topic, ack=[held["lease_id"]])
    assert queue.post(topic, b'"123456"').status_code == 200


def legacy_publish(queue: Queue, topic: str, name: str) -> Request:
    body = json.dumps({"id_": name}).encode()
    return queue.start("POST", f"/messages/{topic}", body, {"content-type": "application/json"})


def test_a_legacy_publish_is_held_until_there_is_room(queue: Queue) -> None:
    topic = queue.topic(schema="queue_message", max_messages=1)
    assert legacy_publish(queue, topic, "first").answer().status == 200
    held = legacy_publish(queue, topic, "second")
    delivery = queue.claim_one(topic)
    assert queue.settle(topic, ack=[delivery["lease_id"]]) == ["ok"]
    answer = held.answer()
    assert (answer.status, answer.content) == (200, b"null")
    assert queue.claim_one(topic)["body"]["id_"] == "second"


def test_a_raised_limit_is_room(queue: Queue) -> None:
    topic = queue.topic(schema="queue_message", max_messages=1)
    legacy_publish(queue, topic, "first").answer()
    held = [legacy_publish(queue, topic, "second"), legacy_publish(queue, topic, "third")]
    queue.http.put(f"/topics/{topic}", json={"schema": "queue_message"})
    assert [request.answer().status for request in held] == [200, 200]


@pytest.mark.slow
def test_a_legacy_publish_that_finds_no_room_is_refused_in_the_end(queue: Queue) -> None:
    topic = queue.topic(schema="queue_message", max_messages=1)
    legacy_publish(queue, topic, "first").answer()
    answer = legacy_publish(queue, topic, "second").answer()
    assert (answer.status, answer.json()["code"]) == (429, "TOPIC_FULL")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["retry-after"]
    assert queue.standing(topic)["ready"] == 1
    assert f'wakeq_refused_legacy_publishes_total{{code="TOPIC_FULL",topic="{topic}"}} 1.0' in (
        queue.http.get("/metrics").text
    )
