"""Protocol, section 3: publish, one message or a batch."""

import base64
import json
from typing import Any

import pytest

from tests.conformance.api import ARRIVES_S, Queue, bodies

VALUES: list[Any] = [
    None,
    True,
    0,
    -1.5,
    1e300,
    12345678901234567890123,
    "",
    'ü \U0001f600 \u2028 \x7f " \\ \n',
    [],
    {},
    {"a": [1, {"b": None}]},
]


@pytest.mark.parametrize("value", VALUES, ids=ascii)
def test_json_takes_any_value_and_gives_it_back(queue: Queue, value: Any) -> None:
    topic = queue.topic()
    answer = queue.post(topic, json.dumps(value).encode())
    assert (answer.status_code, answer.content) == (200, b"null")
    assert answer.headers["content-type"] == "application/json"
    delivery = queue.claim_one(topic)
    assert delivery["body"] == value
    assert str(delivery["seq"]) == answer.headers["wakeq-seq"]


def test_json_in_raw_utf8_and_with_white_space_is_kept(queue: Queue) -> None:
    topic = queue.topic()
    body = ' {"ü":\r\n\t[1 , 2]} '.encode()
    assert queue.post(topic, body, "Application/JSON; charset=utf-8").status_code == 200
    assert queue.http.get(f"/messages/{topic}").content == body


def test_seqs_rise_in_the_order_of_publishes(queue: Queue) -> None:
    topic = queue.topic()
    seqs = [int(queue.post(topic, b"1").headers["wakeq-seq"]) for _ in range(3)]
    seqs += [*queue.publish(topic, 2, 3), int(queue.post(topic, b"4").headers["wakeq-seq"])]
    assert seqs == sorted(set(seqs))
    assert [delivery["seq"] for delivery in queue.claim(topic, max=10)] == seqs


def test_what_has_been_answered_is_visible(queue: Queue) -> None:
    topic = queue.topic()
    for number in range(20):
        queue.post(topic, json.dumps(number).encode())
        assert bodies(queue.claim(topic)) == [number]


def test_a_batch_is_answered_with_its_seqs(queue: Queue) -> None:
    topic = queue.topic()
    answer = queue.batch(topic, b'1\n"two"\n{"three": 3}\n')
    assert answer.status_code == 200
    published = answer.json()
    assert set(published) == {"first_seq", "last_seq", "count", "duplicates"}
    assert published["last_seq"] == published["first_seq"] + 2
    assert (published["count"], published["duplicates"]) == (3, 0)
    deliveries = queue.claim(topic, max=10)
    assert bodies(deliveries) == [1, "two", {"three": 3}]
    assert [d["seq"] for d in deliveries] == list(range(published["first_seq"], published["last_seq"] + 1))


def test_a_batch_may_have_empty_lines_any_line_ends_and_no_last_one(queue: Queue) -> None:
    topic = queue.topic()
    assert queue.batch(topic, b"\n1\r\n\n  2  \n\r\n3").json()["count"] == 3
    assert bodies(queue.claim(topic, max=10)) == [1, 2, 3]


def test_a_batch_of_one_schema_validates_each_line(queue: Queue) -> None:
    topic = queue.topic(schema="queue_message")
    assert queue.batch(topic, b'{"id_": "a"}\n{"type": "t", "more": 1}').json()["count"] == 2
    first, second = bodies(queue.claim(topic, max=2))
    assert (first["id_"], first["type"], second["type"], second["more"]) == ("a", "default", "t", 1)


BAD_BATCHES = [
    ("json", b'1\n2\n{"open": \n', 3),
    ("json", b"1\n\n\nnonsense\n2", 2),
    ("json", b"1\n2 3\n", 2),
    ("json", b'1\n"\xff"\n', 2),
    ("queue_message", b'{}\n{"data": 3}\n', 2),
    ("queue_message", b"{}\n{}\n7\n", 3),
]


@pytest.mark.parametrize(("schema", "content", "line"), BAD_BATCHES, ids=repr)
def test_a_batch_is_taken_whole_or_not_at_all(queue: Queue, schema: str, content: bytes, line: int) -> None:
    topic = queue.topic(schema=schema)
    answer = queue.batch(topic, content)
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_MESSAGE")
    assert f"line {line}" in answer.json()["detail"]
    assert answer.json()["errors"][0]["loc"]
    assert queue.standing(topic)["ready"] == 0


def test_a_line_that_is_not_utf8_is_named(queue: Queue) -> None:
    topic = queue.topic(schema="queue_message")
    answer = queue.batch(topic, b'{}\n{"id_": "\xff"}')
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
    assert "line 2" in answer.json()["detail"]
    assert queue.standing(topic)["ready"] == 0


@pytest.mark.parametrize("content", [b"", b"\n", b" \r\n \n"], ids=repr)
def test_an_empty_batch_is_refused(queue: Queue, content: bytes) -> None:
    answer = queue.batch(queue.topic(), content)
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")


def test_queue_messages_are_completed_and_keep_unknown_fields(queue: Queue) -> None:
    topic = queue.topic(schema="queue_message")
    assert queue.post(topic, b'{"data": {"x": 1}, "unknown": [1], "stats": {"more": 2}}').status_code == 200
    body = queue.claim_one(topic)["body"]
    assert list(body)[:6] == ["id_", "publisher_id", "data", "action", "stats", "type"]
    assert (body["publisher_id"], body["data"], body["action"], body["type"]) == ("default", {"x": 1}, None, "default")
    assert (body["unknown"], body["stats"]["more"], body["stats"]["publish_time"]) == ([1], 2, None)
    assert len(body["id_"]) == 36


@pytest.mark.parametrize("content", [b"[]", b'{"data": 1}', b'{"action": "nope"}', b"{", b""], ids=repr)
def test_what_is_no_queue_message_is_refused(queue: Queue, content: bytes) -> None:
    topic = queue.topic(schema="queue_message")
    answer = queue.post(topic, content)
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_MESSAGE")
    assert answer.headers["content-type"] == "application/json"
    assert all({"loc", "msg"} <= set(error) for error in answer.json()["detail"])
    assert queue.standing(topic)["ready"] == 0


ANY = [
    (b"", "text/plain"),
    (b"\x00\xff\r\n", "application/octet-stream"),
    ("grüße".encode(), "text/plain; charset=utf-8"),
    (b'{"a": 1}', "application/json"),
    (b"not json", "application/json"),
]


@pytest.mark.parametrize(("body", "content_type"), ANY, ids=repr)
def test_any_keeps_bytes_and_content_type(queue: Queue, body: bytes, content_type: str) -> None:
    topic = queue.topic(schema="any")
    for _ in range(2):
        assert queue.post(topic, body, content_type).status_code == 200
    delivery = queue.claim_one(topic)
    assert "body" not in delivery
    assert (base64.b64decode(delivery["body_b64"]), delivery["content_type"]) == (body, content_type)
    plain = queue.http.get(f"/messages/{topic}")
    assert (plain.status_code, plain.content, plain.headers["content-type"]) == (200, body, content_type)


@pytest.mark.parametrize("schema", ["json", "any", "queue_message"])
def test_without_a_content_type_nothing_is_taken(queue: Queue, schema: str) -> None:
    topic = queue.topic(schema=schema)
    answer = queue.post(topic, b"{}", content_type=None)
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_MESSAGE")
    assert queue.standing(topic)["ready"] == 0


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "x-json", "text/json"])
def test_a_json_topic_takes_json_alone(queue: Queue, content_type: str) -> None:
    topic = queue.topic()
    answer = queue.post(topic, b"{}", content_type)
    assert (answer.status_code, answer.json()["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert queue.standing(topic)["ready"] == 0


@pytest.mark.parametrize("content", [b"", b"{", b"1 2", b"NaN", b'"\xff"', b'{"a":1,}'], ids=repr)
def test_a_json_topic_refuses_what_is_no_json(queue: Queue, content: bytes) -> None:
    topic = queue.topic()
    answer = queue.post(topic, content)
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_MESSAGE")
    assert queue.standing(topic)["ready"] == 0


def test_a_publisher_that_hangs_up_cancels_only_its_waiting(queue: Queue) -> None:
    topic = queue.topic()
    for number in range(10):
        body = json.dumps(number).encode()
        queue.start("POST", f"/messages/{topic}", body, {"content-type": "application/json"}).close()
        assert queue.claim_one(topic, wait_s=ARRIVES_S)["body"] == number


def test_half_a_publish_publishes_nothing(queue: Queue) -> None:
    topic = queue.topic()
    request = queue.start(
        "POST", f"/messages/{topic}", b"[1, 2, 3", {"content-type": "application/json", "content-length": "9"}
    )
    request.close()
    queue.publish(topic, "whole")
    assert bodies(queue.claim(topic, max=10)) == ["whole"]
