"""The unmodified SimpleMessageQueue client on wakeq's queue server."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.compat.clients import Clients
from tests.compat.peer_process import START_MAX_S, PeerProcess, peer
from tests.compat.tap import tapped
from tests.compat.under_test import Address, python_of, queue_server
from tests.support.raw import wait_until
from tests.support.server import start_server

pytestmark = [pytest.mark.compat, pytest.mark.slow]

PARKED_S = 8.0
"""Longer than the 5 s that httpx waits for a byte unless it is told otherwise."""

WAKE_MAX_S = 1.0
"""Far below the interval of the heartbeats: the message itself must have woken the consumer."""


class Desk:
    """One version's clients, with topics that nobody else uses."""

    def __init__(self, python: Path, directory: Path, clients: Clients) -> None:
        self.python = python
        self._clients = clients
        self.prefix = f"compat-{uuid.uuid4().hex}-"
        self._directory = directory
        self._started = 0

    @property
    def topic(self) -> str:
        return f"{self.prefix}0"

    @contextmanager
    def consumers(self, url: str, *, topics: int = 1, per_topic: int = 1) -> Iterator[PeerProcess]:
        options = ["--topics", topics, "--per-topic", per_topic, "--topic-prefix", self.prefix]
        with peer(self.python, "consumers", "--url", url, *options, errors=self._errors()) as running:
            assert running.line(START_MAX_S) == "READY"
            yield running

    def publish(self, url: str, count: int = 1, *, first: int = 0, topic: str | None = None) -> None:
        options = ["--topic", topic or self.topic, "--count", str(count), "--first", str(first)]
        assert self._clients.publish(self.python, url, *options)["published"] == count

    def _errors(self) -> Path:
        self._started += 1
        return self._directory / f"peer-{self._started}.log"


@pytest.fixture
def desk(python: Path, tmp_path: Path, clients: Clients) -> Desk:
    return Desk(python, tmp_path, clients)


def numbers(records: list[dict[str, Any]]) -> list[int]:
    return [record["data"]["number"] for record in records]


@pytest.mark.parametrize("durability", ["memory", "fsync"])
def test_a_message_arrives(desk: Desk, tmp_path: Path, durability: str) -> None:
    with queue_server(tmp_path / "data", durability) as queue, desk.consumers(queue.url) as consumer:
        desk.publish(queue.url)
        received = consumer.record()
        assert received["topic"] == desk.topic
        assert received["data"]["number"] == 0
        assert consumer.stop() == []


def test_a_hundred_messages_keep_their_order(desk: Desk, queue: Address) -> None:
    with desk.consumers(queue.url) as consumer:
        desk.publish(queue.url, 100)
        assert numbers(consumer.records(100)) == list(range(100))
        assert consumer.stop() == []


def test_an_idle_consumer_is_parked_and_woken(desk: Desk, queue: Address) -> None:
    """The client asks once, waits longer than its read limit allows, and has its message at once when there is one."""
    with tapped(queue.host, queue.port) as tap, desk.consumers(tap.url) as consumer:
        consumer.assert_quiet_for(PARKED_S)
        assert tap.requests.count(b"GET /messages/") == 1
        desk.publish(queue.url)
        received = consumer.record()
        assert received["received_at"] - received["data"]["published_at"] < WAKE_MAX_S


def test_competing_consumers_get_each_message_once(desk: Desk, queue: Address) -> None:
    with desk.consumers(queue.url, per_topic=2) as consumers:
        desk.publish(queue.url, 60)
        received = consumers.records(60)
        assert sorted(numbers(received)) == list(range(60))
        for name in ("consumer-0", "consumer-1"):
            own = numbers([record for record in received if record["consumer"] == name])
            assert own
            assert own == sorted(own)
        assert consumers.stop() == []


def test_a_message_waits_for_a_consumer_that_was_restarted(desk: Desk, queue: Address) -> None:
    """The dead consumer's parked request takes nothing; and an existing topic is no error, as it was up to 0.5.0."""
    with desk.consumers(queue.url) as consumer:
        assert consumer.stop() == []
    desk.publish(queue.url, 3)
    with desk.consumers(queue.url) as consumer:
        assert numbers(consumer.records(3)) == [0, 1, 2]


def test_consumers_outlive_a_killed_queue_server(tmp_path: Path, clients: Clients) -> None:
    """Only 0.8.1: up to 0.5.0 the client's loop ends with the first connection that breaks."""
    desk = Desk(python_of("0.8.1"), tmp_path, clients)
    data = tmp_path / "data"
    with start_server(data, durability="fsync") as first, desk.consumers(first.url, topics=2) as consumers:
        desk.publish(first.url)
        assert numbers([consumers.record()]) == [0]
        # What is not acked on the disk would come again.
        wait_until(lambda: httpx.get(f"{first.url}/topics/{desk.topic}").json()["messages"] == 0)
        first.kill()
        with start_server(data, durability="fsync", port=first.port) as second:
            started = time.time()
            for topic in (f"{desk.prefix}0", f"{desk.prefix}1"):
                desk.publish(second.url, first=1, topic=topic)
            received = consumers.records(2)
            assert {record["topic"] for record in received} == {f"{desk.prefix}0", f"{desk.prefix}1"}
            assert all(record["received_at"] > started for record in received)
            assert consumers.stop() == []
