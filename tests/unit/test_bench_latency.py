import math

import pytest
from rich.console import Console

from wakeq_bench.scenarios import latency, recovery
from wakeq_bench.scenarios.commits import commit_seconds
from wakeq_bench.scenarios.filling import made
from wakeq_bench.scenarios.histograms import Histogram
from wakeq_bench.scenarios.latency import _Case, _figure
from wakeq_bench.scenarios.open_loop import EventLines, Found, OpenLoop, Way
from wakeq_bench.scenarios.raw import call
from wakeq_bench.scenarios.servers import wakeq_server

STREAM = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nd\r\nretry: 1000\n\n\r\n"
    b'20\r\nid: 1\nevent: message\ndata: {"n":1}\n\n\r\n3\r\n:\n\n\r\n8\r\ndata: 2\n\n\r\n'
)


def test_events_whole_and_byte_by_byte() -> None:
    assert EventLines().feed(STREAM) == [b'{"n":1}', b"2"]
    lines = EventLines()
    assert [found for byte in STREAM for found in lines.feed(bytes([byte]))] == [b'{"n":1}', b"2"]


def test_commits_are_timed() -> None:
    found = commit_seconds(3)
    assert len(found) == 3
    assert min(found) > 0


def test_what_durability_adds_is_told_in_commits() -> None:
    case = _Case("sse", 10)
    case.found["memory"].append(Found([0.0], [0.001, 0.001]))
    case.found["fsync"] += [Found([0.0], [0.002]), Found([0.0], [0.002])]
    case.commits = Histogram({0.0004: 0.0, 0.0006: 4.0, math.inf: 4.0})
    figure = _figure(case)
    assert figure.value == pytest.approx(2)
    assert figure.met is True


@pytest.mark.slow
@pytest.mark.parametrize("way", latency.WAYS)
def test_every_message_is_received_and_acked(way: Way) -> None:
    with wakeq_server() as server:
        made(call(server.url, "PUT", "/topics/t", {"schema": "json"}))
        with OpenLoop(server.url, "t", way) as loop:
            for _ in range(2):
                found = loop.run(200, 0.25, 0.25)
                assert len(found.received_s) == len(found.sent_s) == 50
                assert all(0 <= sent < received for sent, received in zip(found.sent_s, found.received_s, strict=True))
        group = call(server.url, "GET", "/topics/t").json()["groups"]["default"]
        assert (group["ready"], group["leased"]) == (0, 0)


@pytest.mark.slow
def test_all_messages_are_there_after_a_kill() -> None:
    report = recovery.run(recovery.Recovery(messages=7_000, rounds=1), Console(quiet=True))
    assert report.figures[0].value > 0
    assert report.figures[0].target is None
