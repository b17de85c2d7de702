"""Clients that are there and read nothing: what they are sent waits, for a time; then they are cut off."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.raw import JSON, Client, call, metric, request, wait_until
from tests.support.server import ServerProcess, start_server

pytestmark = pytest.mark.slow

UNREACHABLE_S = 1
HELD_UP_S = 4.0
BACKLOG = 100
IMPATIENT = f"""
import wakeq_server.settings
wakeq_server.settings.TCP_USER_TIMEOUT_S = {UNREACHABLE_S}
wakeq_server.settings.BLOCKED_S = {HELD_UP_S}
"""
SHORT_OF_ROOM = f"import wakeq_server.engine.presence; wakeq_server.engine.presence.BACKLOG_MAX = {BACKLOG}"
LARGE = b'"' + b"x" * 1_000_000 + b'"'
WATCH = {"Accept": "text/event-stream"}


@contextmanager
def starting(data: Path, before: str) -> Iterator[ServerProcess]:
    with start_server(data, "--drain", "0", before=before) as running:
        yield running
        assert running.terminate() == 0
        assert not running.events("raw"), "something was written past the log, a traceback perhaps"
        assert not [entry for entry in running.log if entry["level"] not in ("info", "warning")]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """It has little patience."""
    with starting(tmp_path, IMPATIENT) as running:
        yield running


def of_consumer(watcher: Client, name: str) -> None:
    """Read on until a consumer's coming or going is told."""
    while f"event: consumer.{name}".encode() not in watcher.chunk():
        pass


@pytest.mark.parametrize("target", ["/messages/t?lease=600&grace=0", "/messages/t?grace=0"])
def test_a_consumer_that_reads_nothing_is_cut_off_in_its_time_and_loses_nothing(
    server: ServerProcess, target: str
) -> None:
    """Not when a client that can't be reached would be."""
    call(server, "PUT", "/topics/t", b'{"lease_s": 600}', JSON)
    for _ in range(20):
        call(server, "POST", "/messages/t", LARGE, JSON)
    with Client(server) as watcher, Client(server, receive_buffer=4096) as consumer:
        watcher.ask("GET", "/events?topics=t")
        assert watcher.head().status == 200
        began = time.monotonic()
        consumer.ask("GET", target, headers={**WATCH, "Wakeq-Consumer": "slow"})
        of_consumer(watcher, "parked")
        of_consumer(watcher, "gone")
        assert time.monotonic() - began >= HELD_UP_S
        group = call(server, "GET", "/topics/t").json()["groups"]["default"]
        assert (group["ready"], group["leased"]) == (20, 0)


def test_an_answer_that_nobody_reads_is_undone(server: ServerProcess) -> None:
    call(server, "PUT", "/topics/t", b'{"schema": "any", "max_message_bytes": 30000000}', JSON)
    call(server, "POST", "/messages/t", b"x" * 24_000_000, {"Content-Type": "text/plain"})
    with Client(server, receive_buffer=4096) as consumer, Client(server) as monitor:
        consumer.ask("GET", "/messages/t")
        assert consumer.head().status == 200
        assert len(call(server, "GET", "/messages/t?wait=20").body) == 24_000_000
        wait_until(lambda: metric(monitor, "wakeq_parked_consumers") == 0)


def test_a_watcher_that_reads_nothing_is_told_that_it_has_missed_something(tmp_path: Path) -> None:
    topics = 12_000
    with (
        starting(tmp_path, SHORT_OF_ROOM) as server,
        Client(server, receive_buffer=4096) as watcher,
        Client(server) as maker,
    ):
        watcher.ask("GET", "/events")
        assert watcher.head().status == 200
        while b"snapshot.end" not in watcher.chunk():
            pass
        for first in range(0, topics, 100):
            names = [f"{number:0250}" for number in range(first, first + 100)]
            maker.socket.sendall(b"".join(request("localhost", "POST", f"/topics/{name}") for name in names))
            assert {maker.answer().status for _ in names} == {200}
        seen = watcher.rest()
        told, _, overflow = seen.rpartition(b"event: overflow\n")
        assert overflow == b"data: {}\n\n"
        names = [json.loads(line[6:])["topic"] for line in told.decode().splitlines() if line.startswith("data: ")]
        # What it was told is what happened first, without a gap.
        assert names == [f"{number:0250}" for number in range(len(names))]
        assert len(names) < topics
