"""A server that is told to stop: whoever waits is answered, what is out may still be settled, then it exits with 0."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.conformance.api import Queue, Request, leases
from tests.support.server import ServerProcess, start_server

SIGNALS = [signal.SIGTERM, signal.SIGINT]
AT_ONCE_S = 1.0


both = pytest.mark.parametrize("server", ["memory", "fsync"], indirect=True)


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that drains for longer than any test takes, and must say nothing that a healthy one would not say."""
    heartbeat = ("--legacy-heartbeat", "0.2")
    with start_server(tmp_path, "--drain", "60", *heartbeat, durability=getattr(request, "param", "fsync")) as server:
        yield server
        if server.process.poll() is None:
            server.kill()
        assert not server.events("raw"), server.log
        assert {line["level"] for line in server.log} == {"info"}


@pytest.fixture
def queue(server: ServerProcess) -> Iterator[Queue]:
    """The tests' way to ask it. Its topics go with the server."""
    with httpx.Client(base_url=server.url, timeout=30.0, verify=False) as http:
        queue = Queue(server.url, http, auto_creates=False)
        yield queue
        queue.hang_up()


def tell(server: ServerProcess, sign: signal.Signals = signal.SIGTERM) -> None:
    """Send the signal, and wait until it has been received."""
    server.process.send_signal(sign)
    server.wait_for("draining")


def holding(queue: Queue) -> tuple[str, str]:
    """A topic with one lease out, which keeps a draining server up."""
    topic = queue.topic(lease_s=500)
    queue.publish(topic, "held")
    return topic, queue.claim_one(topic)["lease_id"]


@pytest.mark.parametrize("sign", SIGNALS, ids=str)
def test_an_idle_server_stops_at_once(server: ServerProcess, queue: Queue, sign: signal.Signals) -> None:
    queue.topic()
    began = time.monotonic()
    tell(server, sign)
    assert server.wait() == 0
    assert time.monotonic() - began < AT_ONCE_S
    assert [line["event"] for line in server.log] == ["listening", "draining", "stopped"]


@both
def test_whoever_is_parked_is_answered_and_the_server_stops(server: ServerProcess, queue: Queue) -> None:
    legacy, json_topic = queue.topic(schema="queue_message"), queue.topic()
    fresh = queue.start("GET", f"/messages/{legacy}?wait=50")
    plain = queue.start("GET", f"/messages/{json_topic}?wait=50")
    begun = queue.start("GET", f"/messages/{legacy}")
    begun_answer = begun.connection.getresponse()
    assert begun_answer.read(1) == b" "
    claim = queue.park(json_topic)
    streams = [queue.stream(json_topic, lease=30), queue.stream(json_topic)]
    queue.wait_until(json_topic, parked=4)
    queue.wait_until(legacy, parked=2)
    began = time.monotonic()
    tell(server)
    answer = fresh.answer()
    assert (answer.status, answer.content, answer.headers["connection"]) == (200, b"null", "close")
    assert begun_answer.read().strip() == b"null"
    begun_answer.close()
    assert plain.answer().status == 204
    assert claim.answer().json() == {"messages": []}
    for stream in streams:
        event = stream.next()
        assert (event.event, event.data) == ("drain", "{}")
        with pytest.raises(EOFError):
            stream.next()
    assert server.wait() == 0
    assert time.monotonic() - began < AT_ONCE_S


def test_watchers_are_told_and_no_new_one_is_taken(server: ServerProcess, queue: Queue) -> None:
    topic, lease = holding(queue)
    queue.stream(topic, {"wakeq-consumer": "a"}, lease=30)
    watchers = [queue.events(), queue.events(topic)]
    for watcher in watchers:
        assert [watcher.next().event for _ in range(2)] == ["consumer.parked", "snapshot.end"]
    tell(server)
    for watcher in watchers:
        assert watcher.next().event == "drain"
        with pytest.raises(EOFError):
            watcher.next()
    refused = queue.http.get("/events")
    assert (refused.status_code, refused.json()["code"]) == (503, "DRAINING")
    (one,) = queue.http.get(f"/topics/{topic}/consumers").json()["consumers"]
    assert (one["id"], one["streams"]) == ("a", 0)
    queue.settle(topic, ack=[lease])
    assert server.wait() == 0


def test_a_hundred_parked_consumers_are_answered_at_once(server: ServerProcess, queue: Queue) -> None:
    topic = queue.topic(schema="queue_message")
    parked = [queue.start("GET", f"/messages/{topic}?wait=50") for _ in range(100)]
    queue.wait_until(topic, parked=100)
    began = time.monotonic()
    tell(server)
    assert [request.answer().content for request in parked] == [b"null"] * 100
    assert server.wait() == 0
    assert time.monotonic() - began < 2 * AT_ONCE_S


def test_a_parked_consumer_takes_nothing_that_comes_during_the_drain(server: ServerProcess, queue: Queue) -> None:
    topic, lease = holding(queue)
    parked = queue.park(topic)
    tell(server)
    queue.publish(topic, "late")
    assert parked.answer().json() == {"messages": []}
    assert queue.standing(topic) == {"ready": 1, "delayed": 0, "leased": 1, "parked": 0}
    queue.settle(topic, ack=[lease])
    assert server.wait() == 0


@both
def test_while_a_lease_is_out_settles_and_publishes_are_served_and_claims_refused(
    server: ServerProcess, queue: Queue
) -> None:
    topic, lease = holding(queue)
    tell(server)
    ready = queue.http.get("/readyz")
    assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
    assert queue.http.get("/healthz").status_code == 200
    assert queue.post(topic, b'"during"').status_code == 200
    assert queue.settle(topic, extend=[{"lease_id": lease, "lease_s": 400}]) == ["ok"]
    for accept, method, path in (("*/*", "POST", "/claim"), ("text/event-stream", "GET", "?lease=30")):
        refused = queue.http.request(method, f"/messages/{topic}{path}", headers={"accept": accept})
        assert (refused.status_code, refused.json()["code"]) == (503, "DRAINING")
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.headers["content-type"] == "application/problem+json"
    assert queue.settle(topic, nack=[{"lease_id": lease, "delay_s": 500}]) == ["ok"]
    assert server.wait() == 0


def test_a_plain_get_during_the_drain_is_empty_and_closes(server: ServerProcess, queue: Queue) -> None:
    topic, lease = holding(queue)
    legacy = queue.topic(schema="queue_message")
    queue.publish(legacy, {})
    tell(server)
    answer = queue.start("GET", f"/messages/{legacy}").answer()
    assert (answer.status, answer.content, answer.headers["connection"]) == (200, b"null", "close")
    assert queue.start("GET", f"/messages/{topic}").answer().status == 204
    assert queue.standing(legacy)["ready"] == 1
    queue.settle(topic, ack=[lease])
    assert server.wait() == 0


@both
def test_it_exits_as_soon_as_the_last_lease_is_settled(server: ServerProcess, queue: Queue) -> None:
    topic = queue.topic(lease_s=500)
    queue.publish(topic, *range(3))
    first, second = leases(queue.claim(topic, max=2))
    stream = queue.stream(topic, lease=500)
    (third,) = stream.take(1)
    tell(server)
    assert stream.next().event == "drain"
    assert queue.settle(topic, ack=[first]) == ["ok"]
    assert queue.settle(topic, nack=[{"lease_id": second, "delay_s": 0}]) == ["ok"]
    # A drain leaves leases untouched: no grace ends this one.
    assert queue.standing(topic)["leased"] == 1
    assert queue.settle(topic, ack=[third["lease_id"]]) == ["ok"]
    began = time.monotonic()
    assert server.wait() == 0
    assert time.monotonic() - began < AT_ONCE_S


def test_it_exits_when_the_last_lease_expires(server: ServerProcess, queue: Queue) -> None:
    topic = queue.topic(lease_s=1)
    queue.publish(topic, 1)
    queue.claim_one(topic)
    tell(server)
    assert server.wait() == 0


@pytest.mark.parametrize("second", SIGNALS, ids=str)
def test_a_second_signal_ends_the_drain(server: ServerProcess, queue: Queue, second: signal.Signals) -> None:
    holding(queue)
    tell(server)
    assert queue.http.get("/readyz").status_code == 503
    began = time.monotonic()
    server.process.send_signal(second)
    assert server.wait() == 0
    assert time.monotonic() - began < AT_ONCE_S


def test_the_drain_has_an_end(tmp_path: Path) -> None:
    with start_server(tmp_path, "--drain", "0.3") as server, httpx.Client(base_url=server.url, verify=False) as http:
        queue = Queue(server.url, http, auto_creates=True)
        holding(queue)
        began = time.monotonic()
        tell(server)
        assert server.wait() == 0
        assert 0.3 <= time.monotonic() - began < 0.3 + AT_ONCE_S
        queue.hang_up()


def publishing(queue: Queue, topic: str, number: int) -> Request:
    headers = {"content-type": "application/json"}
    return queue.start("POST", f"/messages/{topic}", json.dumps(number).encode(), headers)


def test_what_is_being_published_when_the_signal_comes_is_answered_and_kept(tmp_path: Path) -> None:
    answered: list[int] = []
    with (
        start_server(tmp_path, durability="fsync") as server,
        httpx.Client(base_url=server.url, verify=False) as http,
    ):
        queue = Queue(server.url, http, auto_creates=False)
        topic, lease = holding(queue)
        requests = [publishing(queue, topic, number) for number in range(50)]
        server.process.send_signal(signal.SIGTERM)
        answered = [request.answer().status for request in requests]
        queue.settle(topic, ack=[lease])
        assert server.wait() == 0
        queue.hang_up()
    assert answered == [200] * 50
    with (
        start_server(tmp_path, durability="fsync") as server,
        httpx.Client(base_url=server.url, verify=False) as http,
    ):
        kept: Any = Queue(server.url, http, auto_creates=False).info(topic)
        assert kept["messages"] == 50


def test_it_has_no_children_and_closes_its_database(tmp_path: Path) -> None:
    with start_server(tmp_path, durability="fsync") as server:
        assert psutil.Process(server.process.pid).children() == []
        assert server.terminate() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "wakeq.sqlite3"]
