"""Protocol, sections 2 and 3: topics whose messages must be what a JSON Schema of their own says."""

from typing import Any

import pytest

from tests.conformance.api import Queue, bodies

ORDER = {
    "type": "object",
    "required": ["sku"],
    "properties": {"sku": {"type": "string"}, "count": {"$ref": "#/$defs/count"}},
    "additionalProperties": False,
    "$defs": {"count": {"type": "integer", "minimum": 1}},
}


@pytest.mark.parametrize("body", [b'{"sku": "a"}', b' {"count": 1.0, "sku": ""} '], ids=repr)
def test_what_the_schema_takes_is_taken_and_kept(queue: Queue, body: bytes) -> None:
    topic = queue.topic(schema=ORDER)
    assert queue.post(topic, body).status_code == 200
    assert queue.http.get(f"/messages/{topic}").content == body


REFUSED: list[tuple[bytes, list[list[Any]]]] = [
    (b"1", [["body"]]),
    (b"{}", [["body"]]),
    (b'{"sku": 1}', [["body", "sku"]]),
    (b'{"sku": "a", "count": 0}', [["body", "count"]]),
    (b'{"sku": "a", "count": 1.5}', [["body", "count"]]),
    (b'{"sku": 1, "count": "x"}', [["body", "sku"], ["body", "count"]]),
]


@pytest.mark.parametrize(("body", "locs"), REFUSED, ids=repr)
def test_what_it_refuses_is_refused_with_the_place(queue: Queue, body: bytes, locs: list[list[Any]]) -> None:
    topic = queue.topic(schema=ORDER)
    single = queue.post(topic, body)
    batch = queue.batch(topic, b'{"sku": "a"}\n' + body)
    envelope = queue.envelopes(topic, b'{"body": %b}' % body)
    assert "line 2" in batch.json()["detail"]
    for answer, errors in (
        (single, single.json()["detail"]),
        (batch, batch.json()["errors"]),
        (envelope, envelope.json()["errors"]),
    ):
        assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_MESSAGE")
        assert sorted(map(str, (error["loc"] for error in errors))) == sorted(map(str, locs))
        assert all(error["msg"] for error in errors)
    assert queue.standing(topic)["ready"] == 0


def test_at_most_twenty_errors_are_told(queue: Queue) -> None:
    topic = queue.topic(schema={"items": {"type": "string"}})
    answer = queue.post(topic, b"[" + b"1," * 50 + b"1]")
    assert (answer.status_code, len(answer.json()["detail"])) == (422, 20)


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream"])
def test_a_topic_of_a_schema_takes_json_alone(queue: Queue, content_type: str) -> None:
    topic = queue.topic(schema={})
    answer = queue.post(topic, b"{}", content_type)
    assert (answer.status_code, answer.json()["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert queue.post(topic, b"{").json()["code"] == "INVALID_MESSAGE"
    assert queue.post(topic, b"{}").status_code == 200


def test_an_empty_get_of_such_a_topic_is_204(queue: Queue) -> None:
    assert queue.http.get(f"/messages/{queue.topic(schema={})}").status_code == 204


def test_a_new_schema_holds_from_then_on_and_messages_stay(queue: Queue) -> None:
    topic = queue.topic(schema={"type": "string"})
    queue.publish(topic, "old")
    queue.http.put(f"/topics/{topic}", json={"schema": {"type": "integer"}})
    assert queue.post(topic, b'"new"').json()["code"] == "INVALID_MESSAGE"
    assert queue.post(topic, b"1").status_code == 200
    assert bodies(queue.claim(topic, max=5)) == ["old", 1]


DIALECT = "https://json-schema.org/draft/2020-12/schema"
REFERRING: list[dict[str, Any]] = [
    {"$schema": DIALECT, "$ref": "#/$defs/a", "$defs": {"a": {"const": 1}}},
    {"$id": "https://schemas.example/root", "$ref": "part", "$defs": {"p": {"$id": "part", "const": 1}}},
    {"$ref": "#a", "$defs": {"p": {"$anchor": "a", "const": 1}}},
    {"anyOf": [{"const": 1}, {"type": "array", "items": {"$ref": "#"}}]},
]


@pytest.mark.parametrize("schema", REFERRING, ids=lambda schema: next(iter(schema)))
def test_a_schema_may_refer_to_its_own_parts(queue: Queue, schema: dict[str, Any]) -> None:
    topic = queue.topic(schema=schema)
    assert queue.info(topic)["config"]["schema"] == schema
    assert queue.post(topic, b"1").status_code == 200
    assert queue.post(topic, b"2").json()["code"] == "INVALID_MESSAGE"


BAD_SCHEMAS: list[tuple[bytes, str]] = [
    (b'{"type": "nonsense"}', "type"),
    (b'{"minimum": "1"}', "minimum"),
    (b'{"properties": []}', "properties"),
    (b'{"$schema": "http://json-schema.org/draft-07/schema#"}', "$schema"),
    (b'{"$schema": 1}', "$schema"),
    (b'{"$ref": "https://schemas.example/other"}', "https://schemas.example/other"),
    (b'{"$ref": "file:///etc/passwd"}', "file:///etc/passwd"),
    (b'{"items": {"$ref": "#/$defs/missing"}}', "missing"),
    (b'{"const": NaN}', "finite"),
    (b'{"maximum": 1e999}', "finite"),
    (b'{"maximum": 1' + b"0" * 30 + b"}", "64 bits"),
    (b'{"not": ' * 150 + b"{}" + b"}" * 150, "nested"),
]


@pytest.mark.parametrize(("schema", "says"), BAD_SCHEMAS, ids=lambda value: repr(value)[:40])
def test_a_schema_that_is_none_is_refused_and_changes_nothing(queue: Queue, schema: bytes, says: str) -> None:
    topic = queue.topic(schema="any")
    before = queue.info(topic)
    answer = queue.http.put(f"/topics/{topic}", content=b'{"schema": %b}' % schema)
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
    assert answer.json()["detail"].startswith("schema: ")
    assert says in answer.json()["detail"]
    assert queue.info(topic) == before


def test_a_line_of_a_batch_is_told_what_is_wrong_with_it(queue: Queue) -> None:
    topic = queue.topic(schema={"properties": {"n": {"type": "integer"}}})
    answer = queue.envelopes(topic, {"body": {"n": "one"}}, {"body": {"n": 1}}, lenient=True)
    refused, taken = answer.json()["results"]
    assert "seq" in taken
    assert refused["code"] == "INVALID_MESSAGE"
    assert refused["detail"].endswith(" n: 'one' is not of type 'integer'")
