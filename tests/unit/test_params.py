"""What a publish says beside its body, topics' own schemas, and envelopes."""

import base64
import json
from typing import Any

import pytest

from wakeq_server.core.model import NewMessage, TopicConfig
from wakeq_server.errors import BadRequest, BadValue, InvalidMessage
from wakeq_server.http import attributes, envelopes, params, publishing, schemas, validation
from wakeq_server.settings import REASON_MAX

JSON = TopicConfig()
ANY = TopicConfig(schema="any")
SHORT_LIVED = TopicConfig(ttl_s=10.0)


def said(config: TopicConfig = JSON, /, **headers: str) -> attributes.Attributes:
    raw = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    found = attributes.of_headers({b"content-type": b"application/json", **raw})
    found.check(config, delay="Wakeq-Delay", ttl="Wakeq-TTL")
    return found


def test_headers_that_are_not_ours_say_nothing() -> None:
    assert said(accept="*/*") is attributes.NO_ATTRIBUTES
    message = NewMessage(b"1")
    assert attributes.NO_ATTRIBUTES.given_to(message) is message


def test_headers_say_it_all() -> None:
    found = said(idempotency_key="k", wakeq_delay="1.5", wakeq_ttl="60", wakeq_h_trace_id="ü", traceparent="00-1")
    headers = {"trace-id": "ü", "traceparent": "00-1"}
    assert found.given_to(NewMessage(b"1")) == NewMessage(b"1", None, headers, "k", None, 1.5, 60.0)
    assert said(wakeq_ordering_key="o").key == "o"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Idempotency-Key", ""),
        ("Idempotency-Key", "k" * 256),
        ("Wakeq-Ordering-Key", ""),
        ("Wakeq-Ordering-Key", "k" * 256),
        ("Wakeq-Delay", "-1"),
        ("Wakeq-Delay", "2592001"),
        ("Wakeq-Delay", "nan"),
        ("Wakeq-Delay", "soon"),
        ("Wakeq-TTL", "0"),
        ("Wakeq-TTL", "31536001"),
        ("Wakeq-TTL", ""),
    ],
)
def test_what_is_out_of_range_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(BadValue) as refused:
        attributes.of_headers({name.lower().encode(): value.encode()})
    assert refused.value.field == name


def test_headers_have_room_for_so_much() -> None:
    assert said(wakeq_h_x="v" * 16_000).headers
    with pytest.raises(BadValue, match="Wakeq-H"):
        said(wakeq_h_x="v" * 16_384)
    with pytest.raises(BadValue, match="wakeq-h-x: must be UTF-8"):
        attributes.of_headers({b"wakeq-h-x": b"\xff"})


@pytest.mark.parametrize(
    ("config", "headers", "named"),
    [
        (JSON, {"wakeq_delay": "1", "wakeq_ordering_key": "k"}, "Wakeq-Delay"),
        (JSON, {"wakeq_delay": "5", "wakeq_ttl": "5"}, "Wakeq-TTL"),
        (SHORT_LIVED, {"wakeq_delay": "10"}, "Wakeq-Delay"),
    ],
)
def test_what_contradicts_is_refused(config: TopicConfig, headers: dict[str, str], named: str) -> None:
    with pytest.raises(BadValue) as refused:
        said(config, **headers)
    assert refused.value.field == named


def test_a_message_outlives_its_topics_bound_if_it_says_so() -> None:
    assert said(SHORT_LIVED, wakeq_delay="10", wakeq_ttl="20").ttl_s == 20


def test_a_batch_has_one_key_and_nothing_else() -> None:
    assert attributes.batch_key({b"idempotency-key": b"k", b"traceparent": b"00-1"}) == "k"
    assert attributes.batch_key({}) is None
    for name in (b"wakeq-delay", b"wakeq-ttl", b"wakeq-ordering-key", b"wakeq-h-x"):
        with pytest.raises(BadValue):
            attributes.batch_key({name: b"1"})


@pytest.mark.parametrize(
    ("prefer", "lenient"),
    [(b"handling=lenient", True), (b'wait=1, Handling="LENIENT"; x', True), (b"handling=strict", False), (b"", False)],
)
def test_lenient_is_a_preference(prefer: bytes, lenient: bool) -> None:
    assert params.prefers_lenient({b"prefer": prefer}) is lenient


def test_a_topic_is_configured_whole() -> None:
    body = {
        "schema": {"type": "object"},
        "max_deliveries": 0,
        "dead_ttl_s": 1,
        "dead_letter_topic": "d",
        "ttl_s": 1,
        "dedup_window_s": 1,
    }
    config = params.parse_body(params.TopicBody, json.dumps(body).encode()).config("t")
    assert {name: getattr(config, name) for name in body} == body
    assert params.parse_body(params.TopicBody, b"{}").config("t") == TopicConfig()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", "xml"),
        ("schema", 1),
        ("schema", {"type": "strange"}),
        ("schema", {"pattern": "("}),
        ("schema", {"$ref": "http://127.0.0.1:1/elsewhere"}),
        ("schema", {"properties": {"a": {"$ref": "#/$defs/missing"}}}),
        ("schema", {"$schema": "http://json-schema.org/draft-07/schema#"}),
        ("max_deliveries", 1001),
        ("max_deliveries", -1),
        ("dead_ttl_s", 0.5),
        ("dead_letter_topic", "t"),
        ("dead_letter_topic", "a/b"),
        ("dead_letter_topic", ""),
        ("ttl_s", 0),
        ("ttl_s", 31_536_001),
        ("dedup_window_s", 86_401),
    ],
)
def test_a_topic_names_what_it_refuses(field: str, value: Any) -> None:
    with pytest.raises(BadValue) as refused:
        params.parse_body(params.TopicBody, json.dumps({field: value}).encode()).config("t")
    assert refused.value.field == field


def test_settles_are_in_order_and_keep_reasons() -> None:
    body = {
        "release": ["l"],
        "dead": [{"lease_id": "d", "reason": "x" * 5_000}],
        "nack": [{"lease_id": "n", "reason": "r"}],
        "ack": ["a"],
    }
    lines = params.parse_body(params.SettleBody, json.dumps(body).encode()).lines()
    assert [(line.outcome, line.lease_id, line.reason) for line in lines] == [
        ("ack", "a", None),
        ("nack", "n", "r"),
        ("dead", "d", "x" * REASON_MAX),
        ("release", "l", None),
    ]


PERSON: dict[str, Any] = {
    "$id": "https://example.org/person",
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "friends": {"type": "array", "items": {"$ref": "#"}}},
}


def test_a_topics_own_schema_is_asked() -> None:
    good = b'{"name": "a", "friends": [{"name": "b"}]}'
    assert schemas.new_message(PERSON, good, b"application/json") == NewMessage(good)
    with pytest.raises(InvalidMessage) as refused:
        schemas.new_message(PERSON, b'{"name": "a", "friends": [{"name": 1}, {}]}', b"application/json")
    assert [error["loc"] for error in refused.value.errors] == [["body", "friends", 0, "name"], ["body", "friends", 1]]
    assert all(error["msg"] for error in refused.value.errors)
    assert validation.compiled(PERSON) is validation.compiled(PERSON)


def test_errors_are_bounded_and_depth_is_no_crash() -> None:
    with pytest.raises(InvalidMessage) as refused:
        validation.check({"items": {"type": "string"}}, ["x", *range(1000), "y" * 10_000])
    assert len(refused.value.errors) == 20
    deep = b'{"friends":[' * 400 + b"{}" + b"]}" * 400
    with pytest.raises(InvalidMessage):
        schemas.new_message(PERSON, deep, b"application/json")


def test_a_queue_message_that_comes_again_is_the_same() -> None:
    first, again = (schemas.new_message("queue_message", b"{}", b"application/json", "k") for _ in range(2))
    other = schemas.new_message("queue_message", b"{}", b"application/json", "l")
    assert first == again != other
    own = schemas.new_message("queue_message", b'{"id_": "mine"}', b"application/json", "k")
    assert json.loads(own.body)["id_"] == "mine"


BODIES = ["12345678901234567890123", "1.10", '{"b": 1,  "a": {"body": 2}}', '"}\\" \\u00fc"', "null", "[ ]"]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize(
    "form", ['{"body":%s}', ' { "key" : "k" , "body" : %s } ', '{"body": 0, "body":%s , "id": "i"}']
)
def test_an_envelopes_body_is_kept_as_it_is_written(form: str, body: str) -> None:
    assert envelopes.message(JSON, (form % body).encode()).body == body.encode()


def test_an_envelope_says_it_all() -> None:
    line = b'{"body": 1, "id": "i", "delay_s": 1, "ttl_s": 2, "headers": {"A": "b"}}'
    assert envelopes.message(JSON, line) == NewMessage(b"1", None, {"A": "b"}, "i", None, 1.0, 2.0)
    assert envelopes.message(JSON, b'{"body": 1, "key": "o"}').key == "o"


def test_an_envelope_holds_bytes() -> None:
    encoded = base64.b64encode(b"\x00\xff").decode()
    assert envelopes.message(ANY, json.dumps({"body_b64": encoded}).encode()) == NewMessage(
        b"\x00\xff", "application/octet-stream"
    )
    typed = json.dumps({"body_b64": encoded, "content_type": "image/x"}).encode()
    assert envelopes.message(ANY, typed).content_type == "image/x"
    assert envelopes.message(JSON, b'{"body_b64": "WzFd"}') == NewMessage(b"[1]")
    with pytest.raises(InvalidMessage):
        envelopes.message(JSON, json.dumps({"body_b64": encoded}).encode())


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ('{"body": 1, "delay_s": -1}', "delay_s"),
        ('{"body": 1, "delay_s": "1"}', "delay_s"),
        ('{"body": 1, "delay_s": 5, "ttl_s": 5}', "ttl_s"),
        ('{"body": 1, "delay_s": 5, "key": "k"}', "delay_s"),
        ('{"body": 1, "id": ""}', "id"),
        ('{"body": 1, "headers": {"a": 1}}', "headers.a"),
        ('{"body": 1, "more": 1}', "more"),
        ('{"body": 1, "body_b64": ""}', "body"),
        ('{"body": 1, "content_type": "a/b"}', "content_type"),
        ('{"body_b64": "WzFd", "content_type": "a/b"}', "content_type"),
        ('{"body_b64": "?"}', "body_b64"),
        ("{}", "body"),
        ("[]", "body"),
    ],
)
def test_an_envelope_names_what_it_refuses(line: str, field: str) -> None:
    with pytest.raises(BadValue) as refused:
        envelopes.message(JSON, line.encode())
    assert refused.value.field == field


@pytest.mark.parametrize("line", [b"{", b'{"body": NaN}', b'{"body": 1} 2', b'{"body": "\xff"}'])
def test_what_is_no_json_is_no_envelope(line: bytes) -> None:
    with pytest.raises(InvalidMessage):
        envelopes.message(JSON, line)


def test_a_content_type_splits_no_answer() -> None:
    with pytest.raises(BadValue):
        envelopes.message(ANY, b'{"body_b64": "", "content_type": "a/b\\r\\nx: y"}')


def test_envelopes_taken_together_have_one_key() -> None:
    one, two = NewMessage(b"1", id="a"), NewMessage(b"2", id="b")
    assert publishing.whole_key([one], None) == "a"
    assert publishing.whole_key([NewMessage(b"1")] * 2, "k") == "k"
    for messages, key in (([one, two], None), ([one], "k")):
        with pytest.raises(BadValue):
            publishing.whole_key(messages, key)


def test_a_batch_needs_lines() -> None:
    assert publishing.batch_lines(b"1\n\n 2 ") == [(1, b"1"), (2, b"2")]
    with pytest.raises(BadRequest):
        publishing.batch_lines(b"\n")
