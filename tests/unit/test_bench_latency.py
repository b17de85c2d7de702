import math

import pytest
from rich.console import Console

from wakeq_bench.hdr import Latencies
from wakeq_bench.scenarios import commit_latency, latency, recovery
from wakeq_bench.scenarios.commit_latency import _Case, _figure
from wakeq_bench.scenarios.commits import commit_seconds
from wakeq_bench.scenarios.histograms import Histogram
from wakeq_bench.scenarios.open_loop import EventLines, Found, OpenLoop, Way
from wakeq_bench.scenarios.raw import call, made
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


def came(contestant: str, rate: str, seconds: float, behind: int = 0) -> latency.Found:
    every = Latencies.of([seconds] * 99)
    return latency.Found(contestant, rate, 10.0, every, Latencies.of([0.0]), behind, 0)


def test_wakeq_is_held_against_the_best_that_speaks_http() -> None:
    found = [came("wakeq-memory", "10", 0.004), came("original-50ms", "10", 0.020), came("nchan", "10", 0.002)]
    found += [came("redis-everysec", "10", 0.001), came("wakeq-claim-memory", "10", 0.001)]
    p50, p99 = latency.figures(found)
    assert "over that of nchan" in p50.name
    assert p50.value == pytest.approx(2, rel=0.02)
    assert (p50.met, p99.met) == (False, False)


def test_at_half_of_its_full_rate_it_has_a_bound_of_its_own() -> None:
    half = "half of its full rate"
    # Which is another rate than that of others.
    (figure,) = latency.figures([came("wakeq-memory", half, 0.004), came("nchan", half, 0.002)])
    assert figure.value == pytest.approx(4, rel=0.01)
    assert (figure.unit, figure.met) == ("ms", True)


def test_who_is_behind_is_left_out_at_higher_rates_and_named() -> None:
    given = latency.Latency(rates=[10, 100, 1_000])
    (left_out,) = latency._left_out(given, [came("nchan", "10", 0.1), came("original-50ms", "100", 9.0, behind=3)][1:])
    assert "behind at 10 already" in left_out.reason
    assert "100 and 1,000 a second" in left_out.reason


def test_only_who_speaks_http_from_memory_without_a_pause_is_asked_for_half() -> None:
    assert latency._speaking_http(["wakeq-fsync", "wakeq-memory", "redis-everysec", "nchan", "original-50ms"]) == [
        "wakeq-memory",
        "nchan",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("way", commit_latency.WAYS)
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
    report = recovery.run(recovery.Recovery(part=["wakeq"], messages=7_000, rounds=1), Console(quiet=True))
    assert report.figures[0].value > 0
    assert report.figures[0].target is None
