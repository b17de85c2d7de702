"""What durability adds to the time of a message: wakeq in memory and synced, over bare sockets, in turns."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from wakeq_bench.hdr import Latencies
from wakeq_bench.measure import percentile
from wakeq_bench.processes import Server
from wakeq_bench.report import Figure, Report, Series, Target
from wakeq_bench.scenarios.commits import commit_seconds
from wakeq_bench.scenarios.histograms import Histogram, commits_of
from wakeq_bench.scenarios.open_loop import Found, OpenLoop, Way
from wakeq_bench.scenarios.progress import Work
from wakeq_bench.scenarios.raw import call, made
from wakeq_bench.scenarios.servers import wakeq_server

WAYS: tuple[Way, ...] = ("sse", "claim")
DURABILITIES = ("memory", "fsync")
PERCENTS = (50, 99, 99.9)

_COMMITS = 200
_STARTING_PLANNED_S = 3.0
_COMMITS_MAX = Target("<=", 2)


@dataclass(frozen=True)
class Plan:
    """What is measured of each way, at each rate."""

    rates: list[int]
    seconds: float
    warm_up_s: float
    rounds: int

    @property
    def turn_s(self) -> float:
        """Of one rate, way and durability."""
        return self.seconds + self.warm_up_s

    @property
    def planned_s(self) -> float:
        """All of it."""
        return len(WAYS) * len(self.rates) * (_STARTING_PLANNED_S + self.rounds * len(DURABILITIES) * self.turn_s)


@dataclass
class _Case:
    way: Way
    rate: int
    found: dict[str, list[Found]] = field(default_factory=lambda: {name: [] for name in DURABILITIES})
    commits: Histogram = field(default_factory=Histogram)
    """Of the server that syncs, in the same windows."""

    @property
    def commit_s(self) -> float:
        """What a commit takes, p50."""
        return self.commits.quantile(0.5)

    def received_s(self, durability: str) -> list[float]:
        return [seconds for found in self.found[durability] for seconds in found.received_s]

    def sent_s(self) -> list[float]:
        return [seconds for found in self.found.values() for one in found for seconds in one.sent_s]


def measure(plan: Plan, report: Report, work: Work) -> list[list[str]]:
    """Measure, add it to the report, and return rows of its table. Raises ProcessFailed, BrokenAnswer, OSError."""
    cases = [_Case(way, rate) for way in WAYS for rate in plan.rates]
    commits_s: list[float] = []
    for case in cases:
        with _loops(case.way) as (loops, synced):
            before = commits_of(synced.url)
            for number in range(plan.rounds):
                work.step(f"wakeq alone, {case.way}, {case.rate:,} a second: round {number + 1} of {plan.rounds}")
                for durability, loop in loops.items():
                    case.found[durability].append(loop.run(case.rate, plan.seconds, plan.warm_up_s))
                    work.done(plan.turn_s)
                commits_s += commit_seconds(_COMMITS)
            case.commits = commits_of(synced.url) - before
    commit_s = percentile(commits_s, 50)
    report.samples += [*(_sample(case) for case in cases), {"commit_s": commits_s}]
    report.series += [_series(case, durability) for case in cases for durability in DURABILITIES]
    report.figures += [_figure(case) for case in cases]
    report.notes += _notes(cases, commit_s)
    return [_row(case, durability) for case in cases for durability in DURABILITIES]


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
    return Figure(name, more_s / case.commit_s, "commits", _COMMITS_MAX)


def _row(case: _Case, durability: str) -> list[str]:
    received_s = case.received_s(durability)
    found = [f"{1000 * percentile(received_s, percent):.2f} ms" for percent in PERCENTS]
    return [f"{case.rate:,}", f"wakeq alone, {case.way}, {durability}", *found, "0"]


def _series(case: _Case, durability: str) -> Series:
    rounds = [percentile(one.received_s, 50) for one in case.found[durability]]
    every = Latencies.of(case.received_s(durability))
    return Series("alone", f"wakeq alone, {case.way}, {durability}", rounds, case.rate, every)


def _sample(case: _Case) -> dict[str, object]:
    rounds = {f"{name}_s": [one.received_s for one in case.found[name]] for name in DURABILITIES}
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
        f"wakeq alone is asked over bare sockets, by one thread; sending was late by {1000 * late_s:.2f} ms at most "
        f"(p99), which counts as latency. The rarest case has {fewest:,} messages.",
    ]


def _commit(case: _Case) -> str:
    return f"{1000 * case.commit_s:.2f} ms ({case.way}, {case.rate:,}/s)"
