"""Protocol, section 4.3: the stream, its framing and its prefetch."""

import base64
import json
from typing import Any

import pytest

from tests.conformance.api import EventStream, Queue, bodies, leases


def frames(stream: EventStream) -> list[bytes]:
    """What has been received, cut at empty lines."""
    return stream.received.split(b"\n\n")[:-1]


def test_a_stream_says_that_nobody_may_keep_or_hold_it_back(queue: Queue) -> None:
    for query in ("?lease=30", ""):
        stream = queue.stream(queue.topic() + query)
        assert stream.response.status == 200
        headers = {name.lower(): value for name, value in stream.response.getheaders()}
        assert headers["content-type"].partition(";")[0] == "text/event-stream"
        assert headers["cache-control"] == "no-store, no-transform"
        assert headers["x-accel-buffering"] == "no"
        assert "content-length" not in headers


def test_retry_comes_first_and_at_once(queue: Queue) -> None:
    stream = queue.stream(queue.topic(), lease=30)
    first = stream.response.readline()
    assert first.startswith(b"retry: ")
    assert first.removeprefix(b"retry: ").strip().isdigit()
    assert stream.response.readline() == b"\n"


def test_an_event_has_the_seq_and_a_delivery_on_one_line(queue: Queue) -> None:
    topic = queue.topic()
    stream = queue.stream(topic, lease=30)
    (seq,) = queue.publish(topic, {"a": "b"})
    event = stream.next()
    assert (event.event, event.id) == ("message", str(seq))
    delivery = json.loads(event.data)
    assert (delivery["seq"], delivery["body"], delivery["attempt"]) == (seq, {"a": "b"}, 1)
    assert queue.settle(topic, ack=[delivery["lease_id"]]) == ["ok"]
    lines = frames(stream)[-1].split(b"\n")
    assert lines[0] == b"id: %d" % seq
    assert lines[1] == b"event: message"
    assert [line[:6] for line in lines[2:]] == [b"data: "]


def test_a_delivery_of_a_stream_is_that_of_a_claim(queue: Queue) -> None:
    topic = queue.topic(schema="any")
    queue.post(topic, b"\x00", "application/x")
    queue.post(topic, b"\x00", "application/x")
    (claimed,) = queue.claim(topic, lease_s=77)
    (streamed,) = queue.stream(topic, lease=77, prefetch=1).take(1)
    assert set(streamed) == set(claimed)
    assert (streamed["body_b64"], streamed["content_type"]) == (claimed["body_b64"], claimed["content_type"])


MULTILINE = ['{\n "a":\r\n [1,\r2]\n}', '\n"x\\ny"\n', "[\n\n]"]


@pytest.mark.parametrize("body", MULTILINE, ids=ascii)
@pytest.mark.parametrize("leased", [True, False])
def test_json_with_line_breaks_is_one_line_of_data(queue: Queue, body: str, leased: bool) -> None:
    topic = queue.topic()
    queue.post(topic, body.encode())
    stream = queue.stream(topic + ("?lease=30" if leased else ""))
    data = json.loads(stream.next().data)
    assert (data["body"] if leased else data) == json.loads(body)
    assert frames(stream)[-1].count(b"data:") == 1


TEXTS = ["", "plain", "two\nlines", "\n", "end\n", "a\r\nb\rc\n\nd", "data: x\nid: 9\n\nevent: y", " lead", "ü\u2028"]


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_text_of_an_any_topic_is_a_line_of_data_each(queue: Queue, text: str) -> None:
    topic = queue.topic(schema="any")
    queue.post(topic, text.encode(), "text/plain; charset=utf-8")
    queue.post(topic, b"last", "text/plain")
    stream = queue.stream(topic)
    assert stream.next().data == text.replace("\r\n", "\n").replace("\r", "\n")
    assert stream.next().data == "last"


def test_bytes_of_an_any_topic_come_in_base64(queue: Queue) -> None:
    topic = queue.topic(schema="any")
    queue.post(topic, b"\xff\x00\n", "image/x")
    (value,) = queue.stream(topic).take(1)
    assert value["content_type"] == "image/x"
    assert base64.b64decode(value["body_b64"]) == b"\xff\x00\n"


def test_a_stream_without_a_lease_acks_what_it_has_written(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, *range(40))
    stream = queue.stream(topic)
    assert stream.take(40) == list(range(40))
    queue.wait_until(topic, ready=0, leased=0)
    queue.publish(topic, "more")
    assert stream.take(1) == ["more"]
    stream.close()
    queue.wait_until(topic, ready=0, leased=0, parked=0)


def test_at_most_the_prefetch_is_unsettled(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, *range(6))
    stream = queue.stream(topic, lease=500, prefetch=2)
    first, second = stream.take(2)
    assert queue.standing(topic) == {"ready": 4, "delayed": 0, "leased": 2, "parked": 0}
    assert queue.settle(topic, ack=[second["lease_id"]]) == ["ok"]
    (third,) = stream.take(1)
    assert queue.standing(topic)["leased"] == 2
    assert queue.settle(topic, ack=leases([first, third])) == ["ok", "ok"]
    assert bodies(stream.take(2)) == [3, 4]
    assert queue.standing(topic) == {"ready": 1, "delayed": 0, "leased": 2, "parked": 0}


def test_thirty_two_are_fetched_unless_said_otherwise(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, *range(40))
    assert bodies(queue.stream(topic, lease=500).take(32)) == list(range(32))
    assert queue.standing(topic) == {"ready": 8, "delayed": 0, "leased": 32, "parked": 0}


def test_room_is_made_by_a_nack_and_by_an_expiry_but_not_by_an_extension(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, *range(4))
    stream = queue.stream(topic, lease=500, prefetch=1)
    (first,) = stream.take(1)
    assert queue.settle(topic, extend=[{"lease_id": first["lease_id"], "lease_s": 400}]) == ["ok"]
    assert queue.standing(topic)["ready"] == 3
    queue.settle(topic, nack=[{"lease_id": first["lease_id"], "delay_s": 500}])
    (second,) = stream.take(1)
    assert second["body"] == 1
    queue.settle(topic, extend=[{"lease_id": second["lease_id"], "lease_s": 1}])
    (again,) = stream.take(1)
    assert (again["body"], again["attempt"]) == (1, 2)


def test_a_nacked_message_comes_again_on_the_same_stream(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, "a")
    stream = queue.stream(topic, lease=500, prefetch=1)
    for attempt in (1, 2, 3):
        (delivery,) = stream.take(1)
        assert delivery["attempt"] == attempt
        queue.settle(topic, nack=[{"lease_id": delivery["lease_id"], "delay_s": 0}])


def test_a_full_stream_leaves_messages_to_others(queue: Queue) -> None:
    topic = queue.topic()
    full = queue.stream(topic, lease=500, prefetch=1)
    queue.publish(topic, "a")
    full.take(1)
    parked = queue.park(topic)
    queue.publish(topic, "b")
    assert parked.answer().bodies() == ["b"]


def test_a_batch_is_dealt_to_streams_and_claims_in_turn(queue: Queue) -> None:
    topic = queue.topic()
    stream = queue.stream(topic, lease=500, prefetch=2)
    queue.wait_until(topic, parked=1)
    parked = queue.park(topic, max=10)
    queue.publish(topic, *range(5))
    assert bodies(stream.take(2)) == [0, 2]
    assert parked.answer().bodies() == [1, 3, 4]


@pytest.mark.parametrize("query", ["?lease=500", ""])
def test_a_stream_of_a_paused_topic_waits(queue: Queue, query: str) -> None:
    topic = queue.topic()
    queue.publish(topic, "a")
    queue.do(topic, "pause")
    stream = queue.stream(topic + query)
    queue.wait_until(topic, parked=1)
    assert queue.standing(topic)["ready"] == 1
    queue.do(topic, "resume")
    (value,) = stream.take(1)
    assert (value["body"] if query else value) == "a"


def test_last_event_id_is_ignored(queue: Queue) -> None:
    topic = queue.topic()
    seqs = queue.publish(topic, "a", "b")
    stream = queue.stream(topic, {"last-event-id": str(seqs[-1])}, lease=500)
    assert bodies(stream.take(2)) == ["a", "b"]


WRONG: list[tuple[str, Any, str]] = [
    ("lease", 0.5, "from 1 to 43200"),
    ("lease", 43_201, "from 1 to 43200"),
    ("lease", "x", "number"),
    ("lease", "nan", "from 1 to 43200"),
    ("lease", "", "number"),
    ("prefetch", 0, "from 1 to 1000"),
    ("prefetch", 1_001, "from 1 to 1000"),
    ("prefetch", "x", "integer"),
    ("grace", -1, "from 0 to 600"),
    ("grace", 601, "from 0 to 600"),
    ("group", "", "1 character"),
]


@pytest.mark.parametrize(("name", "value", "says"), WRONG)
def test_a_wrong_stream_is_refused_by_parameter_and_range(queue: Queue, name: str, value: Any, says: str) -> None:
    topic = queue.topic()
    queue.publish(topic, 1)
    answer = queue.http.get(f"/messages/{topic}", params={name: value}, headers={"accept": "text/event-stream"})
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
    assert answer.headers["content-type"] == "application/problem+json"
    assert name in answer.json()["detail"]
    assert says in answer.json()["detail"].replace(",", "")
    assert queue.standing(topic)["ready"] == 1


def test_a_stream_of_a_missing_group_is_not_found(queue: Queue) -> None:
    answer = queue.http.get(f"/messages/{queue.topic()}?group=nobody", headers={"accept": "text/event-stream"})
    assert (answer.status_code, answer.json()["code"]) == (404, "GROUP_NOT_FOUND")
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json, text/event-stream;q=0.9"])
def test_the_accept_header_asks_for_a_stream(queue: Queue, accept: str) -> None:
    request = queue.start("GET", f"/messages/{queue.topic()}", headers={"accept": accept})
    with request.connection.getresponse() as response:
        assert str(response.getheader("content-type")).startswith("text/event-stream")
