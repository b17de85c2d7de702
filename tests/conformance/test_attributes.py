"""Protocol, section 3: what a publish says about its message, in headers and in envelopes; delays and times to live."""

import json
from typing import Any

import pytest

from tests.conformance.api import Queue, bodies

DELAY = pytest.mark.capability("delay")
KEYS = pytest.mark.capability("ordering_keys")
SECONDS = 1_000.0


def test_headers_and_envelopes_say_the_same(queue: Queue) -> None:
    topic = queue.topic()
    headers: dict[str, str | bytes] = {
        "idempotency-key": "i",
        "wakeq-ttl": "5000",
        "wakeq-ordering-key": "k",
        "wakeq-h-Trace-Id": "T ü".encode(),
        "traceparent": "00-1-2-01",
    }
    assert queue.post(topic, b"[1]", headers=headers).status_code == 200
    kept = {"trace-id": "T ü", "traceparent": "00-1-2-01"}
    queue.send(queue_to := queue.topic(), [1], id="i", ttl_s=5000, key="k", headers=kept)
    (by_headers,), (by_envelope,) = queue.claim(topic), queue.claim(queue_to)
    for name, value in {"id": "i", "key": "k", "headers": kept, "body": [1]}.items():
        assert by_headers[name] == by_envelope[name] == value


def test_an_envelopes_headers_keep_their_case(queue: Queue) -> None:
    topic = queue.topic()
    queue.send(topic, 1, headers={"Case": "Kept", "": "", "any name: ü\n": "any\r\nvalue"})
    assert queue.claim_one(topic)["headers"] == {"Case": "Kept", "": "", "any name: ü\n": "any\r\nvalue"}


def test_attributes_come_with_streams_too(queue: Queue) -> None:
    topic = queue.topic()
    queue.send(topic, 1, id="i", key="k", headers={"a": "b"})
    (delivery,) = queue.stream(topic, lease=500).take(1)
    assert (delivery["id"], delivery["key"], delivery["headers"]) == ("i", "k", {"a": "b"})


def test_headers_that_mean_nothing_are_ignored(queue: Queue) -> None:
    topic = queue.topic()
    headers = {"wakeq-seq": "7", "wakeq-lease": "x", "wakeq-": "", "wakeq-h-": "x", "x-other": "1"}
    assert queue.post(topic, b"1", headers=headers).status_code == 200
    assert queue.batch(topic, b"2", headers={"wakeq-seq": "7", "traceparent": "00-1-2-01"}).status_code == 200
    for delivery in queue.claim(topic, max=2):
        assert (delivery["id"][:6], delivery["key"], delivery["headers"]) == ("wakeq-", None, {})


DELAYS = (0, 2_592_000)
TTLS = (1, 31_536_000)
IN_RANGE: list[tuple[str, str, Any]] = [
    *(("Idempotency-Key", "id", "x" * length) for length in (1, 255)),
    *(("Wakeq-Ordering-Key", "key", "x" * length) for length in (1, 255)),
    *(("Wakeq-Delay", "delay_s", value) for value in (*DELAYS, 0.5)),
    *(("Wakeq-TTL", "ttl_s", value) for value in (*TTLS, 1.5)),
]


@pytest.mark.parametrize(("header", "field", "value"), IN_RANGE, ids=lambda value: str(value)[:20])
def test_what_is_in_range_is_taken(queue: Queue, header: str, field: str, value: Any) -> None:
    topic = queue.topic()
    assert queue.post(topic, b"1", headers={header: str(value)}).status_code == 200
    assert queue.envelopes(queue.topic(), {"body": 1, field: value}).status_code == 200


OUT_OF_RANGE: list[tuple[str, str, Any, list[str]]] = [
    *(("Idempotency-Key", "id", value, ["1", "255"]) for value in ("", "x" * 256)),
    *(("Wakeq-Ordering-Key", "key", value, ["1", "255"]) for value in ("", "x" * 256)),
    *(("Wakeq-Delay", "delay_s", value, ["0", "2592000"]) for value in (-0.1, 2_592_000.1)),
    *(("Wakeq-TTL", "ttl_s", value, ["1", "31536000"]) for value in (0, 0.9, 31_536_000.1)),
    ("Wakeq-Delay", "delay_s", "soon", []),
    ("Wakeq-TTL", "ttl_s", "", []),
    ("Wakeq-H-", "headers", {"a": "x" * 16_384}, ["16384"]),
]


@pytest.mark.parametrize(("header", "field", "value", "says"), OUT_OF_RANGE, ids=lambda value: repr(value)[:20])
def test_what_is_out_of_range_is_refused_by_its_name(
    queue: Queue, header: str, field: str, value: Any, says: list[str]
) -> None:
    topic = queue.topic()
    headers = {header + name: text for name, text in value.items()} if field == "headers" else {header: str(value)}
    single = queue.post(topic, b"1", headers=headers)
    batch = queue.envelopes(topic, {"body": 1}, {"body": 2, field: value})
    lenient = queue.envelopes(queue.topic(), {"body": 2, field: value}, lenient=True)
    for answer, name in ((single, header), (batch, field)):
        assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
        detail = answer.json()["detail"].replace(",", "")
        assert name in detail
        assert [part for part in says if part not in detail] == []
    assert "line 2" in batch.json()["detail"]
    (result,) = lenient.json()["results"]
    assert result["code"] == "BAD_REQUEST"
    assert field in result["detail"]
    assert queue.standing(topic) == {"ready": 0, "delayed": 0, "leased": 0, "parked": 0}


@pytest.mark.parametrize("name", ["Idempotency-Key", "Wakeq-Ordering-Key", "Wakeq-H-a", "traceparent"])
def test_values_are_utf8(queue: Queue, name: str) -> None:
    topic = queue.topic()
    answer = queue.post(topic, b"1", headers={name: b"\xff"})
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
    assert name.lower() in answer.json()["detail"].lower()
    assert "UTF-8" in answer.json()["detail"]
    assert queue.standing(topic)["ready"] == 0


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e400"])
@pytest.mark.parametrize("header", ["Wakeq-Delay", "Wakeq-TTL"])
def test_a_number_that_is_none_is_in_no_range(queue: Queue, header: str, number: str) -> None:
    answer = queue.post(queue.topic(), b"1", headers={header: number})
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
    assert header in answer.json()["detail"]


@pytest.mark.parametrize("name", ["Wakeq-Delay", "Wakeq-TTL", "Wakeq-Ordering-Key", "Wakeq-H-a"])
def test_a_batch_takes_no_attribute_for_the_whole(queue: Queue, name: str) -> None:
    topic = queue.topic()
    for answer in (
        queue.batch(topic, b"1\n2", headers={name: "1"}),
        queue.envelopes(topic, {"body": 1}, headers={name: "1"}),
        queue.envelopes(topic, {"body": 1}, lenient=True, headers={name: "1"}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
        assert name.lower() in answer.json()["detail"].lower()
    assert queue.standing(topic)["ready"] == 0


# Delays


@DELAY
def test_a_delayed_message_is_not_delivered_before(queue: Queue) -> None:
    topic = queue.topic()
    queue.post(topic, b'"later"', headers={"wakeq-delay": str(SECONDS)})
    queue.send(topic, "soon", delay_s=0.2)
    assert queue.standing(topic) == {"ready": 0, "delayed": 2, "leased": 0, "parked": 0}
    assert queue.claim(topic, max=5) == []
    delivery = queue.claim_one(topic)
    assert (delivery["body"], delivery["attempt"]) == ("soon", 1)
    assert queue.standing(topic) == {"ready": 0, "delayed": 1, "leased": 1, "parked": 0}


@DELAY
def test_a_message_whose_delay_is_over_takes_its_place_by_seq(queue: Queue) -> None:
    topic = queue.topic()
    queue.send(topic, "first", delay_s=0.1)
    queue.publish(topic, "second")
    queue.wait_until(topic, ready=2)
    assert bodies(queue.claim(topic, max=5)) == ["first", "second"]


@DELAY
def test_a_delayed_message_takes_room(queue: Queue) -> None:
    topic = queue.topic(max_messages=1)
    queue.send(topic, 1, delay_s=SECONDS)
    assert queue.post(topic, b"2").json()["code"] == "TOPIC_FULL"


@DELAY
@KEYS
def test_a_delay_with_an_ordering_key_is_refused(queue: Queue) -> None:
    topic = queue.topic()
    single = queue.post(topic, b"1", headers={"wakeq-delay": "1", "wakeq-ordering-key": "k"})
    batch = queue.envelopes(topic, {"body": 1, "delay_s": 1, "key": "k"})
    for answer, name in ((single, "Wakeq-Delay"), (batch, "delay_s")):
        assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
        assert name in answer.json()["detail"]
    assert queue.info(topic)["messages"] == 0
    assert queue.send(topic, 1, delay_s=0, key="k")


# Times to live


@DELAY
def test_a_time_to_live_must_be_more_than_the_delay(queue: Queue) -> None:
    topic, short = queue.topic(), queue.topic(ttl_s=100)
    for answer, name in (
        (queue.post(topic, b"1", headers={"wakeq-delay": "5", "wakeq-ttl": "5"}), "Wakeq-TTL"),
        (queue.envelopes(topic, {"body": 1, "delay_s": 5, "ttl_s": 4}), "ttl_s"),
        (queue.post(short, b"1", headers={"wakeq-delay": "100"}), "Wakeq-Delay"),
        (queue.envelopes(short, {"body": 1, "delay_s": 101}), "delay_s"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
        assert name in answer.json()["detail"]
    assert queue.send(topic, 1, delay_s=5, ttl_s=5.1)
    assert queue.send(short, 1, delay_s=101, ttl_s=102)


@DELAY
def test_what_is_ready_or_delayed_is_dropped_when_its_time_is_over(queue: Queue) -> None:
    topic, by_topic = queue.topic(), queue.topic(ttl_s=1)
    queue.post(topic, b'"by its header"', headers={"wakeq-ttl": "1"})
    lease = queue.claim_one(topic)["lease_id"]
    queue.settle(topic, nack=[{"lease_id": lease, "delay_s": SECONDS}])
    queue.send(topic, "by its envelope", ttl_s=1)
    queue.send(topic, "stays", ttl_s=SECONDS)
    queue.publish(by_topic, "by its topic")
    queue.send(by_topic, "says otherwise", ttl_s=SECONDS)
    for name in (topic, by_topic):
        queue.send(name, "due", delay_s=1.1, ttl_s=SECONDS)
    # Due when the time of the others, which began before, is over.
    for name in (topic, by_topic):
        queue.wait_until(name, delayed=0)
    assert bodies(queue.claim(topic, max=5)) == ["stays", "due"]
    assert bodies(queue.claim(by_topic, max=5)) == ["says otherwise", "due"]
    for name in (topic, by_topic):
        assert (queue.info(name)["messages"], queue.group(name)["dead"]) == (2, 0)


@DELAY
def test_what_is_leased_is_dropped_only_when_it_comes_back(queue: Queue) -> None:
    topic = queue.topic()
    names = ["acked", "nacked", "nacked with a delay", "dead", "extended"]
    for name in names:
        queue.send(topic, name, ttl_s=1)
    held = {d["body"]: d["lease_id"] for d in queue.claim(topic, max=5, lease_s=SECONDS)}
    queue.send(topic, "due", delay_s=1.1)
    assert queue.claim_one(topic)["body"] == "due"
    assert queue.standing(topic)["leased"] == 6
    lines: dict[str, Any] = {
        "ack": [held["acked"]],
        "nack": [
            {"lease_id": held["nacked"], "delay_s": 0},
            {"lease_id": held["nacked with a delay"], "delay_s": 0.1},
        ],
        "extend": [{"lease_id": held["extended"]}],
        "dead": [{"lease_id": held["dead"]}],
    }
    assert queue.settle(topic, **lines) == ["ok"] * 5
    assert queue.standing(topic) == {"ready": 0, "delayed": 0, "leased": 2, "parked": 0}
    assert queue.group(topic)["dead"] == 1
    assert queue.info(topic)["messages"] == 2
    assert queue.do(topic, "redrive") == {"moved": 0, "remaining": 1}
    assert (queue.standing(topic)["ready"], queue.group(topic)["dead"], queue.info(topic)["messages"]) == (0, 1, 2)


@DELAY
@KEYS
def test_what_is_dropped_frees_its_key_and_its_room(queue: Queue) -> None:
    topic = queue.topic(max_messages=2)
    queue.send(topic, "first", key="k", ttl_s=1)
    lease = queue.claim_one(topic)["lease_id"]
    queue.settle(topic, nack=[{"lease_id": lease, "delay_s": SECONDS}])
    queue.send(topic, "second", key="k")
    assert queue.post(topic, b'"third"').json()["code"] == "TOPIC_FULL"
    assert queue.claim_one(topic)["body"] == "second"
    assert queue.post(topic, json.dumps("third").encode()).status_code == 200
