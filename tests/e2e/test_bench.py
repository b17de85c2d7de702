"""Scenarios of `wakeq bench`, as short as they go, with wakeq alone."""

import pytest
from rich.console import Console

from wakeq_bench.peers.everyone import NOT_HAD
from wakeq_bench.report import Report
from wakeq_bench.scenarios import counts, fanout, idle, latency, mixed, recovery, scale

pytestmark = pytest.mark.slow
QUIET = Console(quiet=True)


def told(report: Report) -> dict[str, float]:
    """Its figures by name, of a report that has nothing missing which was asked for."""
    assert report.overview is not None
    assert report.overview.rows
    assert all(len(row) == len(report.overview.columns) for row in report.overview.rows)
    assert {series.measure for series in report.series} <= {measure.key for measure in report.measures}
    return {figure.name: figure.value for figure in report.figures}


def test_idle() -> None:
    only = ["wakeq-memory", "wakeq-claim-memory"]
    given = idle.Idle(consumers=[2], seconds=1.0, whole_periods=False, warm_up=0.5, wakes=3, only=only)
    report = idle.run(given, QUIET)
    told(report)
    stream, claim = report.samples
    for sample in (stream, claim):
        assert len(sample["wakes_s"]) == 3
        assert 0 <= sample["requests_per_s"] < 5
        assert min(sample["server_cores"]) >= 0
    assert [missing.name for missing in report.missing] == [missing.name for missing in NOT_HAD]


def test_latency() -> None:
    given = latency.Latency(part=["clients", "half"], rates=[50, 100], seconds=0.5, rounds=1, only=["wakeq-memory"])
    report = latency.run(given, QUIET)
    assert list(told(report)) == ["half of its full rate: p99 of wakeq-memory"]
    slow, fast, half = report.samples
    assert (sum(slow["came"].values()), sum(fast["came"].values())) == (25, 50)
    assert half["per_second"] > 1
    assert all((sample["behind"], sample["doubled"]) == (0, 0) for sample in report.samples)


def test_fanout() -> None:
    given = fanout.Fanout(groups=[1, 4], deliveries=80, seconds=0.5, rounds=1, only=["wakeq-memory"])
    report = fanout.run(given, QUIET)
    assert told(report)["wakeq-memory: copies late or doubled"] == 0
    assert [sum(sample["each"].values()) for sample in report.samples] == [40, 40]
    assert [sum(sample["last"].values()) for sample in report.samples] == [40, 10]
    assert any("beanstalkd" in missing.name for missing in report.missing)


def test_mixed() -> None:
    given = mixed.Mixed(tasks=10, seconds=2.0, rounds=1, only=["wakeq-memory"])
    report = mixed.run(given, QUIET)
    assert told(report) == {"wakeq-memory: tasks unfinished, messages doubled": 0}
    (sample,) = report.samples
    assert sum(sample["waited"].values()) == 10


def test_recovery_by_the_client() -> None:
    given = recovery.Recovery(part=["contestants"], stored=500, rounds=1, only=["wakeq-fsync"])
    report = recovery.run(given, QUIET)
    assert told(report) == {"wakeq-fsync: confirmed messages lost": 0}
    (sample,) = report.samples
    assert (sample["lost"], sample["doubled"]) == (0, 0)
    assert any("nothing any more after a restart" in missing.reason for missing in report.missing)


def test_scale() -> None:
    given = scale.Scale(parked=[1, 20], topics=[1, 20], depth=[0, 5_000], messages=20, rounds=1)
    report = scale.run(given, QUIET)
    figures = told(report)
    assert len(figures) == 9
    assert all(-1 < value < 1 for name, value in figures.items() if name.endswith("exponent"))
    assert all(sample["full_s"][0] > 0 and sample["plain_s"][0] > 0 for sample in report.samples)


def test_what_a_message_takes_has_not_grown() -> None:
    report = counts.run(counts.Counts(kind=["calls", "blocks", "system calls"], messages=50, rounds=3), QUIET)
    told(report)
    assert {"calls", "blocks"} <= {sample["kind"] for sample in report.samples}
    assert all(figure.target is not None for figure in report.figures)
    assert [f"{figure.name}: {figure.value}, {figure.target}" for figure in report.missed()] == []
