"""A plain GET of an empty topic: parked, kept alive, woken, and answered so that llama_deploy's client sees nothing.

Where a heartbeat has come the consumer is parked for certain; where there are none, `wait_parked` asks the server.
"""

import json
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.support.raw import Client, call, metric, wait_parked
from tests.support.server import ServerProcess, start_server

PLAIN = {"date", "content-type", "content-length"}
CLIENT_GIVES_UP_S = 5.0
NUMBERS = count()


@pytest.fixture(scope="module")
def brisk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Parks for a second, with heartbeats."""
    arguments = ("--legacy-wait", "1", "--legacy-heartbeat", "0.3")
    with start_server(tmp_path_factory.mktemp("brisk"), *arguments) as running:
        yield running


@pytest.fixture(scope="module")
def beating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Parks for long, with fast heartbeats: one heartbeat says that a consumer is parked."""
    arguments = ("--legacy-wait", "600", "--legacy-heartbeat", "0.05")
    with start_server(tmp_path_factory.mktemp("beating"), *arguments) as running:
        yield running


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Parks for long, and no heartbeat comes before a test is over."""
    arguments = ("--legacy-wait", "600", "--legacy-heartbeat", "60")
    with start_server(tmp_path_factory.mktemp("steady"), *arguments) as running:
        yield running


@pytest.fixture
def topic() -> str:
    return f"topic-{next(NUMBERS)}"


def message(kind: object) -> bytes:
    return json.dumps({"type": str(kind)}).encode()


def parked_and_beaten(server: ServerProcess, topic: str) -> Client:
    """A consumer that has had its first heartbeat."""
    consumer = Client(server)
    consumer.ask("GET", f"/messages/{topic}")
    assert consumer.head().status == 200
    assert consumer.chunk() == b" "
    return consumer


def test_heartbeats_begin_after_their_interval_and_the_end_is_null(brisk: ServerProcess, topic: str) -> None:
    with Client(brisk) as consumer:
        began = time.monotonic()
        consumer.ask("GET", f"/messages/{topic}")
        head = consumer.head()
        # Consumers may share their heartbeats, and have one up to a third early.
        assert time.monotonic() - began >= 0.2
        body = consumer.rest()
        assert 0.9 <= time.monotonic() - began < CLIENT_GIVES_UP_S
    assert head.status == 200
    assert head.get("transfer-encoding") == "chunked"
    assert head.get("x-accel-buffering") == "no"
    assert head.get("content-type") == "application/json"
    assert head.get("content-length") is None
    assert body.lstrip(b" ") == b"null"
    assert 1 <= len(body) - len(b"null") <= 4
    assert json.loads(body) is None


def test_a_started_answer_ends_with_the_message(beating: ServerProcess, topic: str) -> None:
    with parked_and_beaten(beating, topic) as consumer, Client(beating) as publisher:
        publisher.call("POST", f"/messages/{topic}", message("after a heartbeat"))
        assert json.loads(consumer.rest())["type"] == "after a heartbeat"
        publisher.call("POST", f"/messages/{topic}", message("on the same connection"))
        assert consumer.call("GET", f"/messages/{topic}").json()["type"] == "on the same connection"


def test_an_answer_before_the_first_heartbeat_is_the_originals(steady: ServerProcess, topic: str) -> None:
    with Client(steady) as consumer, Client(steady) as publisher:
        consumer.ask("GET", f"/messages/{topic}")
        wait_parked(publisher, 1)
        assert consumer.silent()
        publisher.call("POST", f"/messages/{topic}", message("woken"))
        answer = consumer.answer()
    assert {name for name, _ in answer.head.fields} == PLAIN
    assert answer.head.get("content-length") == str(len(answer.body))
    assert answer.json()["type"] == "woken"


def test_a_publish_that_meets_a_get_on_its_way_is_delivered(steady: ServerProcess, topic: str) -> None:
    with Client(steady) as consumer, Client(steady) as publisher:
        for number in range(100):
            consumer.ask("GET", f"/messages/{topic}")
            publisher.ask("POST", f"/messages/{topic}", message(number))
            assert consumer.answer().json()["type"] == str(number)
            assert publisher.answer().body == b"null"


def test_the_longest_parked_is_served_first_and_a_message_wakes_one(beating: ServerProcess, topic: str) -> None:
    with (
        parked_and_beaten(beating, topic) as first,
        parked_and_beaten(beating, topic) as second,
        parked_and_beaten(beating, topic) as third,
        Client(beating) as publisher,
    ):
        woken = metric(publisher, "wakeq_wake_seconds_count")
        for number, consumer in enumerate((first, second, third), 1):
            publisher.call("POST", f"/messages/{topic}", message(number))
            assert json.loads(consumer.rest())["type"] == str(number)
            assert metric(publisher, "wakeq_wake_seconds_count") == woken + number


def test_who_asks_again_stands_at_the_end_of_the_line(steady: ServerProcess, topic: str) -> None:
    with Client(steady) as one, Client(steady) as two, Client(steady) as publisher:
        for place, consumer in enumerate((one, two), 1):
            consumer.ask("GET", f"/messages/{topic}")
            wait_parked(publisher, place)
        for number in range(10):
            consumer = (one, two)[number % 2]
            publisher.call("POST", f"/messages/{topic}", message(number))
            assert consumer.answer().json()["type"] == str(number)
            consumer.ask("GET", f"/messages/{topic}")
            wait_parked(publisher, 2)


def test_one_connection_carries_many_messages(steady: ServerProcess, topic: str) -> None:
    with Client(steady) as client:
        for number in range(200):
            client.call("POST", f"/messages/{topic}", message(number))
        received = [client.call("GET", f"/messages/{topic}").json()["type"] for _ in range(200)]
        assert received == [str(number) for number in range(200)]
        assert client.call("GET", f"/messages/{topic}?wait=0").body == b"null"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_without_heartbeats_an_answer_is_whole(tmp_path: Path, topic: str, version: str) -> None:
    heartbeat = "0.05" if version == "1.0" else "0"
    with start_server(tmp_path, "--legacy-wait", "0.5", "--legacy-heartbeat", heartbeat) as server:
        began = time.monotonic()
        answer = call(server, "GET", f"/messages/{topic}", version=version)
        assert 0.45 <= time.monotonic() - began < CLIENT_GIVES_UP_S
    assert {name for name, _ in answer.head.fields} - {"connection"} == PLAIN
    assert answer.body == b"null"


@pytest.mark.slow
def test_without_heartbeats_an_answer_comes_before_clients_give_up(tmp_path: Path, steady: ServerProcess) -> None:
    with start_server(tmp_path, "--legacy-wait", "600", "--legacy-heartbeat", "0") as silent:
        began = time.monotonic()
        with Client(silent) as modern, Client(steady) as old:
            modern.ask("GET", "/messages/silent")
            old.ask("GET", "/messages/old", version="1.0")
            assert [modern.answer().body, old.answer().body] == [b"null", b"null"]
        assert 3.6 <= time.monotonic() - began < CLIENT_GIVES_UP_S


def test_http_1_0_is_woken_too(steady: ServerProcess, topic: str) -> None:
    with Client(steady) as consumer, Client(steady) as publisher:
        consumer.ask("GET", f"/messages/{topic}", version="1.0")
        wait_parked(publisher, 1)
        publisher.call("POST", f"/messages/{topic}", message("old"))
        assert consumer.answer().json()["type"] == "old"
        assert consumer.ended()


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("?wait=0.5", {}),
        ("", {"Prefer": "wait=0.5"}),
        ("", {"Prefer": 'respond-async, Wait="0.5"; x=y'}),
        ("?wait=0.5", {"Prefer": "wait=60"}),
    ],
)
def test_a_wait_that_is_asked_for_is_kept(
    beating: ServerProcess, topic: str, query: str, headers: dict[str, str]
) -> None:
    began = time.monotonic()
    answer = call(beating, "GET", f"/messages/{topic}{query}", headers=headers)
    assert 0.45 <= time.monotonic() - began < CLIENT_GIVES_UP_S
    assert {name for name, _ in answer.head.fields} == PLAIN
    assert answer.body == b"null"


@pytest.mark.parametrize(
    ("query", "headers"), [("?wait=60", {}), ("", {"Prefer": "wait=100000"}), ("", {"Prefer": "wait=soon"})]
)
def test_a_long_wait_ends_with_a_message(
    steady: ServerProcess, topic: str, query: str, headers: dict[str, str]
) -> None:
    with Client(steady) as consumer, Client(steady) as publisher:
        consumer.ask("GET", f"/messages/{topic}{query}", headers=headers)
        wait_parked(publisher, 1)
        publisher.call("POST", f"/messages/{topic}", message("woken"))
        assert consumer.answer().json()["type"] == "woken"


@pytest.mark.parametrize("headers", [{}, {"Prefer": "wait=0"}, {"Prefer": "wait=-5"}])
def test_no_wait_is_answered_at_once(steady: ServerProcess, topic: str, headers: dict[str, str]) -> None:
    answer = call(steady, "GET", f"/messages/{topic}{'' if headers else '?wait=0'}", headers=headers)
    assert ({name for name, _ in answer.head.fields}, answer.body) == (PLAIN, b"null")


@pytest.mark.parametrize("wait", ["61", "-1", "nan", "inf", "soon", ""])
def test_a_wait_out_of_its_range_is_refused_by_name(steady: ServerProcess, topic: str, wait: str) -> None:
    answer = call(steady, "GET", f"/messages/{topic}?wait={wait}")
    assert (answer.status, answer.json()["code"]) == (400, "BAD_REQUEST")
    assert answer.json()["detail"].startswith("wait: ")


def test_a_json_topic_answers_204_and_is_parked_only_when_asked(steady: ServerProcess, topic: str) -> None:
    with Client(steady) as consumer, Client(steady) as publisher:
        assert publisher.call("PUT", f"/topics/{topic}", b'{"schema":"json"}').status == 201
        for query in ("", "?wait=0", "?wait=0.1"):
            empty = consumer.call("GET", f"/messages/{topic}{query}")
            assert (empty.status, {name for name, _ in empty.head.fields}) == (204, {"date"})
        consumer.ask("GET", f"/messages/{topic}?wait=60")
        wait_parked(publisher, 1)
        publisher.call("POST", f"/messages/{topic}", b'[1, {"as": "it came"}]')
        assert consumer.answer().body == b'[1, {"as": "it came"}]'


def test_a_topic_deleted_under_its_consumers_is_not_found(steady: ServerProcess, topic: str) -> None:
    with Client(steady) as consumer, Client(steady) as other:
        consumer.ask("GET", f"/messages/{topic}")
        wait_parked(other, 1)
        assert other.call("DELETE", f"/topics/{topic}").status == 204
        answer = consumer.answer()
    assert (answer.status, answer.json()["detail"]) == (404, f"topic {topic} not found")


def test_a_started_answer_whose_topic_is_deleted_ends_as_null(beating: ServerProcess, topic: str) -> None:
    with parked_and_beaten(beating, topic) as consumer:
        assert call(beating, "DELETE", f"/topics/{topic}").status == 204
        assert json.loads(consumer.rest()) is None


def test_a_draining_server_answers_its_parked_consumers_and_closes(tmp_path: Path) -> None:
    with start_server(tmp_path, "--legacy-heartbeat", "60", "--drain", "0") as server, Client(server) as consumer:
        consumer.ask("GET", "/messages/drained")
        with Client(server) as monitor:
            wait_parked(monitor, 1)
        assert server.terminate() == 0
        answer = consumer.answer()
        assert (answer.body, answer.head.get("connection")) == (b"null", "close")
        assert consumer.ended()
