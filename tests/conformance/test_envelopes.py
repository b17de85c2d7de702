"""Protocol, section 3: envelopes, all or none, or each by itself."""

import base64
import json
from typing import Any

import pytest

from tests.conformance.api import Queue, bodies


def b64(body: bytes) -> str:
    return base64.b64encode(body).decode()


def test_envelopes_are_answered_like_a_batch(queue: Queue) -> None:
    topic = queue.topic()
    answer = queue.envelopes(topic, {"body": 1}, b"", {"body": {"two": 2}}, {"body": None})
    published = answer.json()
    assert set(published) == {"first_seq", "last_seq", "count", "duplicates"}
    assert (published["count"], published["duplicates"]) == (3, 0)
    deliveries = queue.claim(topic, max=5)
    assert bodies(deliveries) == [1, {"two": 2}, None]
    assert [d["seq"] for d in deliveries] == list(range(published["first_seq"], published["last_seq"] + 1))


@pytest.mark.parametrize("lenient", [True, False])
def test_a_json_body_is_kept_as_it_is_written(queue: Queue, lenient: bool) -> None:
    topic = queue.topic()
    body = b'{"b":1.0,  "a":[1e2, "\\u00fc/\xc3\xbc"], "a":12345678901234567890123}'
    queue.envelopes(topic, b'{"headers": {"body": "x"}, "body" : %b , "id":"i"}' % body, lenient=lenient)
    assert queue.http.get(f"/messages/{topic}").content == body


@pytest.mark.parametrize("schema", ["json", "queue_message", {"type": "object"}], ids=str)
def test_bytes_in_base64_are_json_but_on_any_topics(queue: Queue, schema: Any) -> None:
    topic = queue.topic(schema=schema)
    queue.envelopes(topic, {"body_b64": b64(b'{"id_": "x", "type": "t"}')})
    delivery = queue.claim_one(topic)
    assert (delivery["body"]["id_"], delivery["body"]["type"]) == ("x", "t")
    for body, statuses in ((b"{", {422}), (b"\xff", {400, 422})):
        # What isn't UTF-8 is a QueueMessage that the original can't parse.
        refused = queue.envelopes(topic, {"body": {}}, {"body_b64": b64(body)})
        assert refused.status_code in statuses
        assert "line 2" in refused.json()["detail"]


def test_on_any_topics_both_kinds_of_body_are_themselves(queue: Queue) -> None:
    topic = queue.topic(schema="any")
    queue.envelopes(topic, {"body": [1]}, {"body_b64": b64(b"\x00")}, {"body_b64": "", "content_type": "text/x"})
    json_body, octets, empty = queue.claim(topic, max=5)
    assert (json_body["body"], "body_b64" in json_body) == ([1], False)
    assert (octets["body_b64"], octets["content_type"]) == (b64(b"\x00"), "application/octet-stream")
    assert (empty["body_b64"], empty["content_type"]) == ("", "text/x")


def test_queue_messages_are_completed(queue: Queue) -> None:
    topic = queue.topic(schema="queue_message")
    queue.envelopes(topic, {"body": {"id_": "x"}}, {"body": {"id_": "y"}}, lenient=True)
    assert [(body["id_"], body["type"]) for body in bodies(queue.claim(topic, max=2))] == [
        ("x", "default"),
        ("y", "default"),
    ]


WRONG: list[tuple[Any, str, str]] = [
    (b"nonsense", "INVALID_MESSAGE", "JSON"),
    (b'{"body": 1', "INVALID_MESSAGE", "JSON"),
    (b'{"body": NaN}', "INVALID_MESSAGE", "JSON"),
    (b'{"body": "\xff"}', "INVALID_MESSAGE", "JSON"),
    (b"1", "BAD_REQUEST", ""),
    (b"[]", "BAD_REQUEST", ""),
    (b"null", "BAD_REQUEST", ""),
    ({}, "BAD_REQUEST", "body_b64"),
    ({"body": 1, "body_b64": "MQ=="}, "BAD_REQUEST", "body_b64"),
    ({"body_b64": None}, "BAD_REQUEST", "body_b64"),
    ({"body_b64": "?"}, "BAD_REQUEST", "body_b64"),
    ({"body_b64": "MQ"}, "BAD_REQUEST", "body_b64"),
    ({"body_b64": 1}, "BAD_REQUEST", "body_b64"),
    ({"body_b64": "MQ==", "content_type": "text/x"}, "BAD_REQUEST", "content_type"),
    ({"body": 1, "content_type": "text/x"}, "BAD_REQUEST", "content_type"),
    ({"body": 1, "more": 1}, "BAD_REQUEST", "more"),
    ({"body": 1, "id": 1}, "BAD_REQUEST", "id"),
    ({"body": 1, "key": 1}, "BAD_REQUEST", "key"),
    ({"body": 1, "delay_s": "1"}, "BAD_REQUEST", "delay_s"),
    ({"body": 1, "ttl_s": "1"}, "BAD_REQUEST", "ttl_s"),
    ({"body": 1, "headers": []}, "BAD_REQUEST", "headers"),
    ({"body": 1, "headers": {"a": 1}}, "BAD_REQUEST", "headers"),
    ({"body": "x" * 200}, "MESSAGE_TOO_LARGE", ""),
    ({"body_b64": b64(b'"' + b"x" * 200 + b'"')}, "MESSAGE_TOO_LARGE", ""),
]
STATUS = {"BAD_REQUEST": 400, "INVALID_MESSAGE": 422, "MESSAGE_TOO_LARGE": 413}


@pytest.mark.parametrize(("line", "code", "says"), WRONG, ids=lambda value: repr(value)[:40])
def test_a_wrong_envelope_refuses_the_whole_or_lenient_itself_alone(
    queue: Queue, line: Any, code: str, says: str
) -> None:
    topic = queue.topic(max_message_bytes=100)
    strict = queue.envelopes(topic, {"body": "before"}, line, {"body": "behind"})
    assert (strict.status_code, strict.json()["code"]) == (STATUS[code], code)
    assert "line 2" in strict.json()["detail"]
    assert says in strict.json()["detail"]
    assert queue.standing(topic)["ready"] == 0
    lenient = queue.envelopes(topic, {"body": "before"}, line, {"body": "behind"}, lenient=True)
    assert lenient.status_code == 200
    before, refused, behind = lenient.json()["results"]
    assert (refused["code"], set(refused)) == (code, {"code", "detail"})
    assert says in refused["detail"]
    assert [set(before), set(behind)] == [{"seq", "duplicate"}] * 2
    assert bodies(queue.claim(topic, max=5)) == ["before", "behind"]


def test_what_is_taken_whole_has_no_ids_of_its_own(queue: Queue) -> None:
    topic = queue.topic()
    answer = queue.envelopes(topic, {"body": 1, "id": "a"}, {"body": 2})
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
    assert "id" in answer.json()["detail"]
    assert queue.standing(topic)["ready"] == 0


def test_what_is_taken_line_by_line_has_no_key_for_the_whole(queue: Queue) -> None:
    topic = queue.topic()
    answer = queue.envelopes(topic, {"body": 1}, lenient=True, headers={"idempotency-key": "a"})
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
    assert "Idempotency-Key" in answer.json()["detail"]
    assert queue.standing(topic)["ready"] == 0


@pytest.mark.parametrize("lenient", [True, False])
@pytest.mark.parametrize("content", [b"", b"\n \r\n"], ids=repr)
def test_no_envelopes_are_refused(queue: Queue, content: bytes, lenient: bool) -> None:
    answer = queue.envelopes(queue.topic(), content, lenient=lenient)
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")


@pytest.mark.parametrize("prefer", ["handling=lenient", 'handling="Lenient"', "respond-async, Handling = lenient; x=1"])
def test_lenience_is_a_preference(queue: Queue, prefer: str) -> None:
    topic = queue.topic()
    answer = queue.envelopes(topic, {"body": 1}, b"{", headers={"prefer": prefer})
    assert [set(result) for result in answer.json()["results"]] == [{"seq", "duplicate"}, {"code", "detail"}]


def test_strict_handling_and_other_batches_are_taken_whole(queue: Queue) -> None:
    topic = queue.topic()
    assert queue.envelopes(topic, {"body": 1}, b"{", headers={"prefer": "handling=strict"}).status_code == 422
    assert queue.batch(topic, b"1\n{", headers={"prefer": "handling=lenient"}).status_code == 422
    assert queue.standing(topic)["ready"] == 0


def test_a_full_topic_refuses_the_whole_or_lenient_what_does_not_fit(queue: Queue) -> None:
    topic = queue.topic(max_messages=1)
    lines: list[dict[str, Any]] = [{"body": 1}, {"body": 2}]
    strict = queue.envelopes(topic, *lines)
    assert (strict.status_code, strict.json()["code"]) == (429, "TOPIC_FULL")
    assert queue.standing(topic)["ready"] == 0
    first, second = queue.envelopes(topic, *lines, lenient=True).json()["results"]
    assert (first["duplicate"], second["code"], second["retry_after_s"]) == (False, "TOPIC_FULL", 1)


def test_envelopes_have_the_limits_of_batches(queue: Queue, about: dict[str, Any]) -> None:
    topic, most = queue.topic(), about["limits"]["batch_messages"]
    line = json.dumps({"body": 1}).encode() + b"\n"
    for lenient in (True, False):
        answer = queue.envelopes(topic, line * (most + 1), lenient=lenient)
        assert (answer.status_code, answer.json()["code"]) == (413, "MESSAGE_TOO_LARGE")
    assert queue.standing(topic)["ready"] == 0
    assert len(queue.envelopes(topic, line * most, lenient=True).json()["results"]) == most
