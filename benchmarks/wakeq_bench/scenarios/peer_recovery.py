"""From a `kill -9` with a backlog to a server that is ready again and has delivered all of it, for every contestant."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from wakeq_bench.peers.contestant import FAILURES, Contestant
from wakeq_bench.peers.everyone import BY_KEY, CONTESTANTS, keys_of, prepared, remarks
from wakeq_bench.report import Figure, Measure, Missing, Report, Series, Target
from wakeq_bench.scenarios.progress import Work

KEYS = keys_of(lambda one: one.restarts)
AS_A_RULE = ["wakeq-fsync", "redis-everysec", "rabbitmq"]

_FILL_PER_S = 8_000
_DRAIN_PER_S = 8_000
_START_PLANNED_S = 8.0
_STALLED_S = 120.0
_OURS = "wakeq-"


@dataclass(frozen=True)
class Plan:
    """What is stored, and how often."""

    messages: int
    rounds: int

    @property
    def planned_s(self) -> float:
        """For one contestant."""
        return self.rounds * self.round_s

    @property
    def round_s(self) -> float:
        """For one of its rounds."""
        return self.messages / _FILL_PER_S + self.messages / _DRAIN_PER_S + _START_PLANNED_S


@dataclass(frozen=True)
class Found:
    """One crash."""

    contestant: str
    ready_s: float
    """From the start of the process until it accepted connections, as its own log or health check has it."""
    first_s: float
    """From then until a client that connects had the first message."""
    drained_s: float
    """Until it had the last."""
    lost: int
    doubled: int


MEASURES = (
    Measure("ready", "From kill -9 to ready again", "s", "lower", "bars"),
    Measure("drained", "Until the backlog is delivered", "s", "lower", "none"),
)


def measure(plan: Plan, keys: Sequence[str], report: Report, console: Console, work: Work) -> list[list[str]]:
    """Measure in turns, add it to the report, and return rows of its table."""
    report.missing += [
        Missing(one.title, "It has nothing any more after a restart.")
        for one in CONTESTANTS
        if not one.restarts and not one.waits_only
    ]
    pythons = prepared(keys, report, console)
    found: list[Found] = []
    failed: set[Contestant] = set()
    for number in range(plan.rounds):
        for contestant in (one for one in pythons if one not in failed):
            work.step(f"crash {number + 1} of {plan.rounds}: {contestant.title}")
            try:
                found.append(_crash(contestant, pythons[contestant], plan.messages))
            except FAILURES as error:
                failed.add(contestant)
                report.missing.append(Missing(contestant.title, str(error)))
            work.done(plan.round_s)
    report.samples += [asdict(one) for one in found]
    report.measures += MEASURES
    keys = list(dict.fromkeys(one.contestant for one in found))
    for key in keys:
        runs = [one for one in found if one.contestant == key]
        report.series += [
            Series("ready", BY_KEY[key].title, [one.ready_s for one in runs]),
            Series("drained", BY_KEY[key].title, [one.drained_s for one in runs]),
        ]
        if key.startswith(_OURS):
            lost = sum(one.lost for one in runs)
            report.figures.append(Figure(f"{key}: confirmed messages lost", lost, "", Target("==", 0)))
    report.notes += remarks(pythons)
    return [_row(key, [one for one in found if one.contestant == key]) for key in keys]


def _crash(contestant: Contestant, python: Path, messages: int) -> Found:
    options = ["--messages", str(messages), *([] if contestant.batches else ["--singly"])]
    with tempfile.TemporaryDirectory(prefix="wakeq-bench-") as directory:
        data = Path(directory)
        _make_topic(contestant, python, data)
        with contestant.serving(data) as server, contestant.working(server, python, "fill", options) as client:
            client.wait_for_record("filled", _STALLED_S + messages / 100)
            server.child.kill()
        started = time.perf_counter()
        with contestant.serving(data) as server:
            ready_s = time.perf_counter() - started
            with contestant.working(server, python, "drain", options) as client:
                record = client.wait_for_record("first_s", _STALLED_S + messages / 100)
    return Found(contestant.key, ready_s, record["first_s"], record["seconds"], record["lost"], record["doubled"])


def _make_topic(contestant: Contestant, python: Path, data: Path) -> None:
    """On a server that is stopped in order then: topics are older than crashes."""
    making = ("--messages", "0")
    with contestant.serving(data) as server, contestant.working(server, python, "fill", making) as client:
        client.wait_for_record("filled", _STALLED_S)


def _row(key: str, runs: Sequence[Found]) -> list[str]:
    times = (statistics.median(getattr(one, name) for one in runs) for name in ("ready_s", "first_s", "drained_s"))
    return [
        key,
        *(f"{seconds:.2f} s" for seconds in times),
        f"{sum(one.lost for one in runs):,}",
        f"{sum(one.doubled for one in runs):,}",
    ]
