"""Commits while the event loop has nothing to do, and while it is saturated: the writer's thread must get its turn.

Batches of 100 messages are published one after the other on one connection, each a commit of its own, on a topic whose
server is idle otherwise, and on the same while wrk asks it for messages of an empty topic as fast as it answers.
"""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pydantic import Field
from rich.console import Console

from wakeq_bench.measure import percentile
from wakeq_bench.parameters import Parameters
from wakeq_bench.processes import Server
from wakeq_bench.report import Figure, Overview, Report, Target
from wakeq_bench.scenarios import wrk
from wakeq_bench.scenarios.filling import LINES
from wakeq_bench.scenarios.histograms import COMMIT, Histogram, commits_of
from wakeq_bench.scenarios.progress import Work
from wakeq_bench.scenarios.raw import Connection, call, made, request
from wakeq_bench.scenarios.servers import QUEUE_MESSAGE, wakeq_server

CHANGES = 100

_RATIO_MAX = Target("<=", 3)
# Of the seconds of wrk: it connects first.
_LEAD_S = 0.5


@dataclass
class _Turns:
    """What was measured while the loop was idle, or while it was saturated."""

    publish_s: list[float] = field(default_factory=list)
    commits: Histogram = field(default_factory=Histogram)

    @property
    def publish_p50_s(self) -> float:
        return percentile(self.publish_s, 50)


class Writer(Parameters):
    """What `writer` can be told."""

    seconds: int = Field(5, ge=2, description="length of each window")
    rounds: int = Field(3, ge=1, description="how often each is measured, in turns")


def planned_s(given: Writer) -> float:
    """About how long it takes."""
    return float(given.rounds * 2 * given.seconds)


def run(given: Writer, console: Console) -> Report:
    """Measure both in turns. Raises WrkFailed, ProcessFailed, BrokenAnswer, OSError."""
    seconds, rounds = given.seconds, given.rounds
    wrk.find_wrk()
    settings = {"seconds": seconds, "rounds": rounds, "changes": CHANGES, "connections": wrk.CONNECTIONS}
    report = Report("writer", f"Commits of {CHANGES} changes beside a saturated event loop", settings)
    idle, saturated, polls = _Turns(), _Turns(), []
    with wakeq_server(durability="fsync") as server, Work(console, planned_s(given)) as work:
        for topic in ("written", "polled"):
            made(call(server.url, "PUT", f"/topics/{topic}", {"schema": "json"}))
        for number in range(rounds):
            work.step(f"round {number + 1} of {rounds}")
            _publish(server, seconds - _LEAD_S, idle)
            work.done(seconds)
            polls.append(_publish_beside_wrk(server, seconds, saturated))
            work.done(seconds)
    report.overview = Overview(
        ["event loop", "publish p50", "p99", "publishes"], [_row("idle", idle), _row("saturated", saturated)]
    )
    report.samples = [
        {"idle_publish_s": idle.publish_s, "saturated_publish_s": saturated.publish_s, "polls_per_s": polls},
        {"idle_commits": idle.commits.as_json(), "saturated_commits": saturated.commits.as_json()},
    ]
    report.figures += [*_commits(idle, saturated), *_publishes(idle, saturated, polls)]
    report.notes += _notes(idle)
    return report


def _publish(server: Server, seconds: float, turns: _Turns) -> None:
    lines = b"\n".join([QUEUE_MESSAGE] * CHANGES)
    posting = request(server.url, "POST", "/messages/written", lines, LINES)
    before = commits_of(server.url)
    with Connection(server.url) as connection:
        end = time.perf_counter() + seconds
        while (started := time.perf_counter()) < end:
            made(connection.exchange(posting))
            turns.publish_s.append(time.perf_counter() - started)
    turns.commits += commits_of(server.url) - before
    made(call(server.url, "POST", "/topics/written/purge"))


def _publish_beside_wrk(server: Server, seconds: int, turns: _Turns) -> float:
    with ThreadPoolExecutor(1) as threads:
        polling = threads.submit(wrk.run, f"{server.url}/messages/polled?wait=0", seconds)
        time.sleep(_LEAD_S / 2)
        _publish(server, seconds - _LEAD_S, turns)
        return polling.result().per_second


def _commits(idle: _Turns, saturated: _Turns) -> list[Figure]:
    if not (idle.commits.total and saturated.commits.total):
        return []
    ratio = saturated.commits.quantile(0.5) / idle.commits.quantile(0.5)
    return [Figure("commit p50, of that with the loop idle", ratio, "times", _RATIO_MAX)]


def _publishes(idle: _Turns, saturated: _Turns, polls: list[float]) -> list[Figure]:
    ratio = saturated.publish_p50_s / idle.publish_p50_s
    return [
        Figure("publish p50, of that with the loop idle", ratio, "times"),
        Figure("polls answered meanwhile", statistics.median(polls), "a second"),
    ]


def _row(name: str, turns: _Turns) -> list[str]:
    percents = [f"{1000 * percentile(turns.publish_s, percent):.2f} ms" for percent in (50, 99)]
    return [name, *percents, f"{len(turns.publish_s):,}"]


def _notes(idle: _Turns) -> list[str]:
    notes = [
        "A publish waits for its turn in the event loop, before its commit and after it, which its commit does not. "
        "wrk shares the machine's cores with the server."
    ]
    if not idle.commits.total:
        notes.append(f"Without {COMMIT} in /metrics, commits can't be told from that waiting: no target was looked at.")
    return notes
