"""Protocol, sections 2 and 5: who is present, and the stream of who comes and goes."""

import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.conformance.api import PATIENCE_S, EventStream, Queue, Request

pytestmark = pytest.mark.capability("presence")
Json = dict[str, Any]
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def named(consumer: str) -> dict[str, str]:
    """A header that says who asks."""
    return {"wakeq-consumer": consumer}


def present(queue: Queue, topic: str, query: str = "") -> list[Json]:
    """The answer of `GET /topics/{topic}/consumers`."""
    answer = queue.http.get(f"/topics/{topic}/consumers{query}")
    assert answer.status_code == 200, answer.text
    consumers: list[Json] = answer.json()["consumers"]
    return consumers


def until_present(queue: Queue, topic: str, **wanted: Any) -> Json:
    """Ask until there is such a consumer."""
    until = time.monotonic() + PATIENCE_S
    while True:
        consumers = present(queue, topic)
        for one in consumers:
            if all(one[name] == value for name, value in wanted.items()):
                return one
        assert time.monotonic() < until, f"{consumers} never had {wanted}"


class Watcher:
    """An open `GET /events`."""

    def __init__(self, queue: Queue, *topics: str) -> None:
        self._stream: EventStream = queue.events(*topics)
        self.shown: list[Json] = []
        """What came before `snapshot.end`."""
        self.last_id = 0
        while (event := self.next())["event"] != "snapshot.end":
            self.shown.append(event)

    def next(self) -> Json:
        """The next event: its data, and its name."""
        event = self._stream.next()
        if event.event in ("consumer.parked", "consumer.gone", "topic.created", "topic.deleted"):
            assert int(event.id) > self.last_id
            self.last_id = int(event.id)
        return {"event": event.event, **json.loads(event.data)}

    def kinds(self, count: int) -> list[tuple[str, str | None]]:
        """Of that many, the name and the consumer."""
        events = [self.next() for _ in range(count)]
        return [(event["event"], event.get("consumer")) for event in events]


# Ways of waiting: each opens one request, under the given name.

Open = Callable[[Queue, str, Mapping[str, str]], Request]


def claim(queue: Queue, topic: str, headers: Mapping[str, str]) -> Request:
    return queue.start("POST", f"/messages/{topic}/claim", b'{"wait_s": 50}', headers)


def get_with_a_wait(queue: Queue, topic: str, headers: Mapping[str, str]) -> Request:
    return queue.start("GET", f"/messages/{topic}?wait=50", headers=headers)


def get_with_a_preference(queue: Queue, topic: str, headers: Mapping[str, str]) -> Request:
    return queue.start("GET", f"/messages/{topic}", headers={"prefer": "wait=50", **headers})


def legacy_get(queue: Queue, topic: str, headers: Mapping[str, str]) -> Request:
    return queue.start("GET", f"/messages/{topic}", headers=headers)


def leased_stream(queue: Queue, topic: str, headers: Mapping[str, str]) -> Request:
    return queue.stream(topic, headers, lease=30, grace=0.2)


def plain_stream(queue: Queue, topic: str, headers: Mapping[str, str]) -> Request:
    return queue.stream(topic, headers, grace=0.2)


POLLS = [claim, get_with_a_wait, get_with_a_preference, legacy_get]
STREAMS = [leased_stream, plain_stream]


@pytest.mark.parametrize("opens", POLLS + STREAMS)
def test_whoever_waits_is_listed(queue: Queue, opens: Open) -> None:
    topic = queue.topic(schema="queue_message")
    opens(queue, topic, named("worker 1 ü".encode().decode("latin-1")))
    streams = int(opens in STREAMS)
    one = until_present(queue, topic, parked=1 - streams, streams=streams)
    assert set(one) == {"id", "address", "group", "since", "parked", "streams", "in_flight"}
    assert (one["id"], one["group"], one["in_flight"]) == ("worker 1 ü", "default", 0)
    assert INSTANT.fullmatch(one["since"])
    assert queue.standing(topic)["parked"] == 1


def test_every_way_of_waiting_shows_up_and_goes(queue: Queue) -> None:
    """All at once, since polls are gone only after their grace."""
    topic = queue.topic(schema="queue_message")
    watcher = Watcher(queue, topic)
    ways = POLLS + STREAMS
    requests = []
    for opens in ways:
        requests.append(opens(queue, topic, named(opens.__name__)))
        event = watcher.next()
        assert (event["event"], event["consumer"]) == ("consumer.parked", opens.__name__)
        assert (event["topic"], event["group"]) == (topic, "default")
        assert INSTANT.fullmatch(event["at"])
    addresses = {one["address"] for one in present(queue, topic)}
    closed = time.monotonic()
    for request in requests:
        request.close()
    first = watcher.kinds(len(STREAMS))
    assert sorted(first) == sorted(("consumer.gone", opens.__name__) for opens in STREAMS)
    left = present(queue, topic)
    assert [(one["id"], one["parked"], one["streams"]) for one in left] == [(opens.__name__, 0, 0) for opens in POLLS]
    gone = [watcher.next() for _ in POLLS]
    # Clocks of event loops may be coarse.
    assert time.monotonic() - closed >= 4.9
    assert sorted((one["event"], one["consumer"]) for one in gone) == sorted(
        ("consumer.gone", opens.__name__) for opens in POLLS
    )
    assert {one["address"] for one in gone} == addresses
    assert present(queue, topic) == []


def test_who_is_not_named_is_its_address(queue: Queue) -> None:
    topic = queue.topic()
    queue.park(topic)
    queue.park(topic)
    queue.stream(topic, lease=30)
    one = until_present(queue, topic, streams=1)
    assert (one["id"], one["parked"]) == (one["address"], 2)
    assert not re.search(r":\d+$", one["address"].removeprefix("::"))
    assert len(present(queue, topic)) == 1


def test_a_consumer_is_listed_once_a_group(queue: Queue) -> None:
    topic = queue.topic()
    queue.http.put(f"/topics/{topic}/groups/other")
    queue.stream(topic, named("a"), lease=30)
    until_present(queue, topic, id="a", group="default")
    queue.stream(topic, named("a"), lease=30, group="other")
    until_present(queue, topic, id="a", group="other")
    queue.stream(topic, named("b"), lease=30)
    until_present(queue, topic, id="b")
    assert [(one["id"], one["group"]) for one in present(queue, topic)] == [
        ("a", "default"),
        ("a", "other"),
        ("b", "default"),
    ]
    assert [one["id"] for one in present(queue, topic, "?group=default")] == ["a", "b"]
    assert [one["id"] for one in present(queue, topic, "?group=other")] == ["a"]


def test_unsettled_messages_of_streams_are_in_flight(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, *range(5))
    stream = queue.stream(topic, named("a"), lease=30, prefetch=3)
    held = stream.take(3)
    assert [(one["streams"], one["in_flight"]) for one in present(queue, topic)] == [(1, 3)]
    queue.settle(topic, nack=[{"lease_id": held[0]["lease_id"], "delay_s": 50}])
    stream.take(1)
    queue.settle(topic, ack=[held[1]["lease_id"], held[2]["lease_id"]])
    stream.take(1)
    assert [one["in_flight"] for one in present(queue, topic)] == [2]


def test_who_was_answered_is_still_there_and_asking_again_changes_nothing(queue: Queue) -> None:
    topic = queue.topic()
    watcher = Watcher(queue, topic)
    for _ in range(3):
        poll = claim(queue, topic, named("a"))
        before = until_present(queue, topic, id="a", parked=1)
        queue.publish(topic, 1)
        assert poll.answer().bodies() == [1]
        assert present(queue, topic) == [{**before, "parked": 0}]
    queue.http.delete(f"/topics/{topic}")
    assert watcher.kinds(3) == [("consumer.parked", "a"), ("consumer.gone", "a"), ("topic.deleted", None)]


def test_who_is_answered_at_once_is_not_listed(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, 1, 2)
    queue.http.post(f"/messages/{topic}/claim", json={"wait_s": 50}, headers=named("a"))
    queue.http.get(f"/messages/{topic}?wait=50", headers=named("a"))
    queue.http.get(f"/messages/{topic}?wait=0", headers=named("a"))
    assert present(queue, topic) == []


def test_whoever_connects_is_shown_who_is_present(queue: Queue) -> None:
    topic, other = queue.topic(), queue.topic()
    for name in ("a", "b"):
        queue.stream(topic, named(name), lease=30)
        until_present(queue, topic, id=name)
    queue.stream(other, named("c"), lease=30)
    until_present(queue, other, id="c")
    listed = present(queue, topic)
    assert Watcher(queue, topic).shown == [
        {
            "event": "consumer.parked",
            "topic": topic,
            "group": "default",
            "consumer": one["id"],
            "address": one["address"],
            "at": one["since"],
        }
        for one in listed
    ]
    assert {event["consumer"] for event in Watcher(queue, topic, other).shown} == {"a", "b", "c"}
    assert {topic, other} <= {event["topic"] for event in Watcher(queue).shown}


def test_topics_that_come_and_go_are_told(queue: Queue) -> None:
    topic, everything = queue.new_name(), Watcher(queue)
    watcher = Watcher(queue, queue.new_name(), topic)
    assert watcher.shown == []
    queue.http.put(f"/topics/{topic}", json={})
    queue.http.put(f"/topics/{topic}", json={"lease_s": 5})
    queue.http.delete(f"/topics/{topic}")
    queue.http.post(f"/topics/{topic}")
    for event in ("topic.created", "topic.deleted", "topic.created"):
        told = watcher.next()
        assert INSTANT.fullmatch(told.pop("at"))
        assert told == {"event": event, "topic": topic}
        while everything.next()["topic"] != topic:
            pass


def test_with_its_group_a_consumer_is_gone_at_once(queue: Queue) -> None:
    topic = queue.topic()
    queue.http.put(f"/topics/{topic}/groups/g")
    stream = queue.stream(topic, named("a"), lease=30, group="g")
    until_present(queue, topic, id="a")
    watcher = Watcher(queue, topic)
    queue.http.delete(f"/topics/{topic}/groups/g")
    assert watcher.kinds(1) == [("consumer.gone", "a")]
    assert present(queue, topic) == []
    with pytest.raises(EOFError):
        stream.next()


def test_it_is_a_stream_as_those_of_messages_are(queue: Queue) -> None:
    stream = queue.events(queue.topic())
    headers = {name.lower(): value for name, value in stream.response.getheaders()}
    assert headers["content-type"].partition(";")[0] == "text/event-stream"
    assert headers["cache-control"] == "no-store, no-transform"
    assert headers["x-accel-buffering"] == "no"
    assert re.fullmatch(rb"retry: \d+\n", stream.response.readline())
    assert stream.response.readline() == b"\n"
    assert stream.response.readline() == b"event: snapshot.end\n"


@pytest.mark.parametrize("name", ["", "x" * 256, "tab\there", "\x85", "\xff", "\u2028"], ids=ascii)
def test_a_name_that_is_none_is_refused(queue: Queue, name: str) -> None:
    topic = queue.topic()
    queue.publish(topic, 1)
    value = name if name == "\xff" else name.encode().decode("latin-1")
    for method, path, accept in (
        ("GET", "", "*/*"),
        ("GET", "?wait=0", "*/*"),
        ("GET", "", "text/event-stream"),
        ("POST", "/claim", "*/*"),
    ):
        request = queue.start(method, f"/messages/{topic}{path}", headers={"accept": accept, **named(value)})
        answer = request.answer()
        assert (answer.status, answer.json()["code"]) == (400, "BAD_REQUEST")
        assert answer.json()["detail"].startswith("Wakeq-Consumer: ")
    assert (queue.standing(topic)["ready"], present(queue, topic)) == (1, [])


def test_a_name_may_have_255_characters(queue: Queue) -> None:
    topic, name = queue.topic(), "ü " * 127 + "x"
    queue.stream(topic, named(name.encode().decode("latin-1")), lease=30)
    assert until_present(queue, topic, streams=1)["id"] == name


def test_what_is_not_there_is_not_found(queue: Queue) -> None:
    missing = queue.http.get(f"/topics/{queue.new_name()}/consumers")
    assert (missing.status_code, missing.json()["code"]) == (404, "TOPIC_NOT_FOUND")
    missing = queue.http.get(f"/topics/{queue.topic()}/consumers?group=nobody")
    assert (missing.status_code, missing.json()["code"]) == (404, "GROUP_NOT_FOUND")


@pytest.mark.parametrize("topics", ["", "a,,b", "a/b", "x" * 256, "a,\x00"], ids=ascii)
def test_topics_that_can_be_none_are_refused(queue: Queue, topics: str) -> None:
    answer = queue.http.get("/events", params={"topics": topics})
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
    assert answer.json()["detail"].startswith("topics: ")


def test_events_are_only_to_be_read(queue: Queue) -> None:
    answer = queue.http.post("/events")
    assert (answer.status_code, answer.headers["allow"], answer.json()["code"]) == (405, "GET", "METHOD_NOT_ALLOWED")
