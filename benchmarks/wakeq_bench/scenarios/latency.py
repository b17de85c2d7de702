"""From when a message was due to its consumer, at several rates, in memory and synced to disk, in turns."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field
from rich.console import Console

from wakeq_bench.measure import percentile
from wakeq_bench.parameters import Counts, Names, Parameters, among
from wakeq_bench.processes import Server
from wakeq_bench.report import Figure, Overview, Report, Target
from wakeq_bench.scenarios.commits import commit_seconds
from wakeq_bench.scenarios.filling import made
from wakeq_bench.scenarios.histograms import Histogram, commits_of
from wakeq_bench.scenarios.open_loop import Found, OpenLoop, Way
from wakeq_bench.scenarios.progress import Work
from wakeq_bench.scenarios.raw import call
from wakeq_bench.scenarios.servers import wakeq_server

WAYS: tuple[Way, ...] = ("sse", "claim")

_DURABILITIES = ("memory", "fsync")
_PERCENTS = (50, 90, 99, 99.9, 100)
_WARM_UP_S = 1.0
_COMMITS = 200
_COMMITS_MAX = Target("<=", 2)


@dataclass
class _Case:
    way: Way
    rate: int
    found: dict[str, list[Found]] = field(default_factory=lambda: {name: [] for name in _DURABILITIES})
    commits: Histogram = field(default_factory=Histogram)
    """Of the server that syncs, in the same windows."""

    def received_s(self, durability: str) -> list[float]:
        return [seconds for found in self.found[durability] for seconds in found.received_s]

    def sent_s(self) -> list[float]:
        return [seconds for found in self.found.values() for one in found for seconds in one.sent_s]


class Latency(Parameters):
    """What `latency` can be told."""

    way: Annotated[Names, among(*WAYS)] = Field(list(WAYS), description="how the consumer takes")
    rates: Counts = Field([10, 100, 1_000], description="messages a second, one measurement each")
    seconds: float = Field(10.0, ge=0.1, description="length of each window")
    rounds: int = Field(3, ge=1, description="how often each is measured, in turns")


def planned_s(given: Latency) -> float:
    """About how long it takes."""
    return len(given.way) * len(given.rates) * given.rounds * len(_DURABILITIES) * (given.seconds + _WARM_UP_S)


def run(given: Latency, console: Console) -> Report:
    """Measure every way at every rate. Raises ProcessFailed, BrokenAnswer, OSError."""
    ways = [way for way in WAYS if way in given.way]
    rates, seconds, rounds = given.rates, given.seconds, given.rounds
    settings = {"ways": list(ways), "rates": list(rates), "seconds": seconds, "rounds": rounds}
    report = Report("latency", "From when a message was due to its consumer", settings)
    cases = [_Case(way, rate) for way in ways for rate in rates]
    commits_s: list[float] = []
    turn_s = seconds + _WARM_UP_S
    with Work(console, len(cases) * rounds * len(_DURABILITIES) * turn_s) as work:
        for case in cases:
            with _loops(case.way) as (loops, synced):
                before = commits_of(synced.url)
                for number in range(rounds):
                    work.step(f"{case.way}, {case.rate:,} a second: round {number + 1} of {rounds}")
                    for durability, loop in loops.items():
                        case.found[durability].append(loop.run(case.rate, seconds, _WARM_UP_S))
                        work.done(turn_s)
                    commits_s += commit_seconds(_COMMITS)
                case.commits = commits_of(synced.url) - before
    commit_s = percentile(commits_s, 50)
    report.samples = [_sample(case) for case in cases] + [{"commit_s": commits_s}]
    columns = ["", "", *(f"p{percent}" if percent < 100 else "max" for percent in _PERCENTS)]
    report.overview = Overview(columns, [_row(case, name) for case in cases for name in _DURABILITIES])
    report.figures = [_figure(case) for case in cases]
    report.notes += _notes(cases, commit_s)
    return report


@contextmanager
def _loops(way: Way) -> Iterator[tuple[dict[str, OpenLoop], Server]]:
    with (
        wakeq_server(durability="memory") as memory,
        wakeq_server(durability="fsync") as fsync,
    ):
        for server in (memory, fsync):
            made(call(server.url, "PUT", "/topics/t", {"schema": "json"}))
        with OpenLoop(memory.url, "t", way) as in_memory, OpenLoop(fsync.url, "t", way) as synced:
            yield {"memory": in_memory, "fsync": synced}, fsync


def _figure(case: _Case) -> Figure:
    more_s = percentile(case.received_s("fsync"), 50) - percentile(case.received_s("memory"), 50)
    name = f"{case.way}, {case.rate:,} a second: what fsync adds to p50"
    return Figure(name, more_s / case.commits.quantile(0.5), "commits", _COMMITS_MAX)


def _row(case: _Case, durability: str) -> list[str]:
    received_s = case.received_s(durability)
    found = [f"{1000 * percentile(received_s, percent):.2f} ms" for percent in _PERCENTS]
    return [f"{case.way}, {case.rate:,}/s", durability, *found]


def _sample(case: _Case) -> dict[str, object]:
    rounds = {f"{name}_s": [one.received_s for one in case.found[name]] for name in _DURABILITIES}
    return {
        "way": case.way,
        "rate": case.rate,
        **rounds,
        "commits": case.commits.as_json(),
        "sent_late_p99_s": percentile(case.sent_s(), 99),
    }


def _notes(cases: Sequence[_Case], commit_s: float) -> list[str]:
    late_s = max(percentile(case.sent_s(), 99) for case in cases)
    fewest = min(len(case.received_s("fsync")) for case in cases)
    return [
        f"A commit is the p50 of the server's own in the same windows: {', '.join(map(_commit, cases))}. One after "
        f"another, without a server, they take {1000 * commit_s:.2f} ms on this disk; after a rest all take longer.",
        "A publish that comes while an ack is synced waits for that sync, then for its own: the rule at rates at which "
        "the disk is hardly ever at rest.",
        f"Sending was late by {1000 * late_s:.2f} ms at most (p99), which counts as latency. Publishers and consumer "
        "are one process.",
        f"The rarest case has {fewest:,} messages: a percentile beyond what they resolve is their maximum.",
    ]


def _commit(case: _Case) -> str:
    return f"{1000 * case.commits.quantile(0.5):.2f} ms ({case.way}, {case.rate:,}/s)"
