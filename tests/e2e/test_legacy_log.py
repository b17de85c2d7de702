"""What the log and `/metrics` say about llama_deploy's consumers and publishers, and what they don't."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.raw import Client, metric
from tests.support.server import ServerProcess, start_server

EMPTY = "wakeq_empty_polls_total"
TIGHT = "wakeq_tight_polls_total"
FULL = b'{"schema":"queue_message","max_messages":1}'


def noticed(server: ServerProcess) -> list[object]:
    """The topics of the notices, once the log has ended."""
    assert server.terminate() == 0
    return [line["topic"] for line in server.events("tight polling")]


@pytest.mark.parametrize("query", ["?wait=0", ""])
def test_tight_polling_is_noticed_once_a_consumer_and_counted(tmp_path: Path, query: str) -> None:
    """All but 5 in each second are too many, and 30 polls take three seconds at the most."""
    with start_server(tmp_path, "--legacy-wait", "0", "--drain", "0") as server:
        with Client(server) as client:
            for topic in ("one", "one", "two"):
                for _ in range(30):
                    assert client.call("GET", f"/messages/{topic}{query}").body == b"null"
            assert metric(client, EMPTY) == 90
            assert 60 <= metric(client, TIGHT) <= 80
        notice = server.wait_for("tight polling")
        assert (notice["level"], notice["client"], notice["topic"]) == ("warning", "127.0.0.1", "one")
        assert "?wait=60" in str(notice["remedy"])
        assert noticed(server) == ["one", "two"]


def test_a_consumer_is_its_address_whatever_its_port(tmp_path: Path) -> None:
    with start_server(tmp_path, "--drain", "0") as server:
        for _ in range(12):
            with Client(server) as client:
                client.call("GET", "/messages/ports?wait=0")
        assert noticed(server) == ["ports"]


def test_parked_consumers_are_no_pollers(tmp_path: Path) -> None:
    """Nor when all of them are answered empty in one second."""
    arguments = ("--legacy-wait", "0.5", "--legacy-heartbeat", "0.1", "--drain", "0")
    with start_server(tmp_path, *arguments) as server:
        with Client(server) as monitor:
            consumers = [Client(server) for _ in range(40)]
            for number, consumer in enumerate(consumers):
                asked = (("", "1.1"), ("", "1.0"), ("?wait=0.5", "1.1"))[number % 3]
                consumer.ask("GET", f"/messages/parked{asked[0]}", version=asked[1])
            for consumer in consumers:
                assert consumer.answer().body.strip() == b"null"
                consumer.close()
            assert (metric(monitor, EMPTY), metric(monitor, TIGHT)) == (0, 0)
        assert noticed(server) == []


def test_messages_are_no_empty_answers(tmp_path: Path) -> None:
    with start_server(tmp_path, "--drain", "0") as server:
        with Client(server) as client:
            for _ in range(20):
                client.call("POST", "/messages/full", b"{}")
                assert client.call("GET", "/messages/full?wait=0").body != b"null"
            assert (metric(client, EMPTY), metric(client, TIGHT)) == (0, 0)
        assert noticed(server) == []


def requests_logged(server: ServerProcess) -> list[tuple[object, object, object]]:
    """Method, path and status of what the access log has, once it has ended."""
    assert server.terminate() == 0
    return [(line["method"], line["path"], line["status"]) for line in server.events("request")]


def make_requests(server: ServerProcess) -> None:
    with Client(server) as client:
        for query in ("?wait=0", "?wait=0.05", ""):
            assert client.call("GET", f"/messages/quiet{query}").body.strip() == b"null"
        assert client.call("PUT", "/topics/quiet-json", b"{}").status == 201
        assert client.call("GET", "/messages/quiet-json").status == 204
        assert client.call("POST", "/messages/quiet/claim", b"{}").json() == {"messages": []}
        assert client.call("POST", "/topics/loud").body == b"null"
        assert client.call("POST", "/messages/loud", b"{}").body == b"null"
        assert client.call("GET", "/messages/loud").status == 200
        assert client.call("DELETE", "/topics/quiet-json").status == 204
        assert client.call("GET", "/nowhere").status == 404


def test_the_access_log_has_everything_but_empty_answers(tmp_path: Path) -> None:
    arguments = ("--legacy-wait", "0.1", "--legacy-heartbeat", "0.02", "--access-log", "--drain", "0")
    with start_server(tmp_path, *arguments) as server:
        make_requests(server)
        assert requests_logged(server) == [
            ("PUT", "/topics/quiet-json", 201),
            ("POST", "/topics/loud", 200),
            ("POST", "/messages/loud", 200),
            ("GET", "/messages/loud", 200),
            ("DELETE", "/topics/quiet-json", 204),
            ("GET", "/nowhere", 404),
        ]


def test_there_is_no_access_log_unless_asked_for(tmp_path: Path) -> None:
    with start_server(tmp_path, "--legacy-wait", "0.1", "--drain", "0") as server:
        make_requests(server)
        assert requests_logged(server) == []
        assert {line["event"] for line in server.log} == {"listening", "draining", "stopped"}


@pytest.fixture
def full(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server whose topic `full` holds the one message that it may."""
    with start_server(tmp_path, "--drain", "0") as server:
        with Client(server) as client:
            assert client.call("PUT", "/topics/full", FULL).status == 201
            assert client.call("POST", "/messages/full", b'{"type":"0"}').status == 200
        yield server


def test_a_publish_to_a_full_topic_is_held_until_there_is_room(full: ServerProcess) -> None:
    with Client(full) as first, Client(full) as second, Client(full) as consumer:
        for publisher, body in ((first, b'{"type":"1"}'), (second, b'{"type":"2"}')):
            publisher.ask("POST", "/messages/full", body)
            consumer.call("GET", "/healthz")
            assert publisher.silent()
        assert consumer.call("GET", "/messages/full").json()["type"] == "0"
        assert first.answer().body == b"null"
        assert second.silent()
        assert consumer.call("GET", "/messages/full").json()["type"] == "1"
        assert second.answer().body == b"null"
        assert consumer.call("GET", "/messages/full").json()["type"] == "2"
        assert metric(consumer, 'wakeq_refused_legacy_publishes_total{code="TOPIC_FULL",topic="full"}') == 0
    assert full.terminate() == 0
    assert full.events("publish refused") == []


@pytest.mark.slow
def test_a_publish_to_a_topic_that_stays_full_is_refused_logged_and_counted(full: ServerProcess) -> None:
    with Client(full) as publisher:
        began = time.monotonic()
        refused = publisher.call("POST", "/messages/full", b'{"type":"lost"}')
        assert 4.0 <= time.monotonic() - began < 5.0
        assert (refused.status, refused.json()["code"]) == (429, "TOPIC_FULL")
        assert refused.head.get("retry-after") == "1"
        assert metric(publisher, 'wakeq_refused_legacy_publishes_total{code="TOPIC_FULL",topic="full"}') == 1
        assert publisher.call("GET", "/messages/full").json()["type"] == "0"
        assert publisher.call("GET", "/messages/full?wait=0").body == b"null"
    line = full.wait_for("publish refused")
    assert (line["level"], line["topic"], line["code"]) == ("warning", "full", "TOPIC_FULL")


def test_a_json_topic_holds_nobody(full: ServerProcess) -> None:
    with Client(full) as publisher:
        assert publisher.call("PUT", "/topics/modern", b'{"schema":"json","max_messages":1}').status == 201
        assert publisher.call("POST", "/messages/modern", b"1").status == 200
        assert publisher.call("POST", "/messages/modern", b"2").status == 429
        assert metric(publisher, 'wakeq_refused_legacy_publishes_total{code="TOPIC_FULL",topic="modern"}') == 0
