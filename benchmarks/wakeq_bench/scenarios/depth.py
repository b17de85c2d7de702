"""What waits in a queue must not make it slower: rates and costs beside those of an empty or a simple topic.

Each case starts two servers, one with what is to be shown to cost nothing and one without, and measures them in turns.
"""

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated

import orjson
from pydantic import Field
from rich.console import Console

from wakeq_bench.intervals import median_interval
from wakeq_bench.measure import CpuWindow, cpu_seconds, memory
from wakeq_bench.parameters import Names, Parameters, among
from wakeq_bench.processes import Server
from wakeq_bench.report import Figure, Report, Target
from wakeq_bench.scenarios import wrk
from wakeq_bench.scenarios.costs import claim_cost, cycle_cost, publish_cost
from wakeq_bench.scenarios.filling import BATCH, ENVELOPES, KILOBYTE, fill, publish_lines
from wakeq_bench.scenarios.parts import measure_each
from wakeq_bench.scenarios.progress import Work
from wakeq_bench.scenarios.raw import call, made
from wakeq_bench.scenarios.servers import QUEUE_MESSAGE, metric, server_pair
from wakeq_bench.scenarios.topic_making import make_topics, publish_to_each

_DAY_S = 86_400
_CLAIMS_MAX = 75_000
"""A second, of all rounds: more than a machine has made. Of what there is nothing more, nothing can be measured."""
_GROUPS = 100
_KEYS = 10_000
_WITHIN = Target(">=", 80)
_COST = Target("<=", 1.2)
_OPERATIONS = 1_000
_START_PLANNED_S = 3.0
_FILLING_PLANNED_S = {"deep": 75.0, "topics": 65.0, "scheduled": 17.0, "groups": 9.0, "keys": 5.0}
_BACKLOG = 20_000
"""Of `groups` and `keys`, with which filling takes so long."""
_OPERATION_PLANNED_S = 0.0013
CASE_NAMES = tuple(_FILLING_PLANNED_S)


@dataclass
class Found:
    """What a case has found: figures, and samples for the JSON file."""

    figures: list[Figure] = field(default_factory=list)
    samples: list[dict[str, object]] = field(default_factory=list)

    def rates(self, name: str, full: Sequence[float], plain: Sequence[float]) -> None:
        """A rate beside the rate without."""
        self.samples.append({"rate": name, "full_per_s": list(full), "plain_per_s": list(plain)})
        share = 100 * statistics.median(full) / statistics.median(plain)
        interval = median_interval([100 * one / other for one, other in zip(full, plain, strict=True)])
        self.figures.append(Figure(f"{name}, of the rate without", share, "%", _WITHIN, interval))

    def costs(self, name: str, full_s: Sequence[float], plain_s: Sequence[float]) -> None:
        """Server CPU an operation beside that without."""
        self.samples.append({"cost": name, "full_s": list(full_s), "plain_s": list(plain_s)})
        ratio = statistics.median(full_s) / statistics.median(plain_s)
        interval = median_interval([one / other for one, other in zip(full_s, plain_s, strict=True)])
        self.figures.append(Figure(f"{name}: CPU, over that without", ratio, "times", _COST, interval))


class Depth(Parameters):
    """What `depth` can be told: how much of everything."""

    case: Annotated[Names, among(*CASE_NAMES)] = Field(
        ["scheduled", "groups", "keys"],
        description=f"which of {', '.join(CASE_NAMES)}: the first two take minutes, and what a message costs with as "
        "many of them is in `scale`",
    )
    messages: int = Field(1_000_000, ge=10_000, description="how many wait in the case `deep`")
    topics: int = Field(100_000, ge=100, description="how many there are in the case `topics`")
    scheduled: int = Field(100_000, ge=5_000, description="how many are due later in the case `scheduled`")
    backlog: int = Field(_BACKLOG, ge=5_000, description="how many wait in the cases `groups` and `keys`")
    rounds: int = Field(3, ge=1, description="how often each rate is measured, in turns")
    seconds: int = Field(2, ge=1, description="length of each run of wrk")
    idle_s: float = Field(30.0, ge=1, description="seconds of each window of idleness")


def planned_s(given: Depth) -> float:
    """About how long it takes."""
    return sum(_planned_s(given, case) for case in given.case)


def _planned_s(given: Depth, case: str) -> float:
    filled = given.backlog / _BACKLOG if case in ("groups", "keys") else 1.0
    idle_s = given.idle_s if case in ("topics", "scheduled") else 0.0
    # Of two servers, that with it and that without.
    round_s = (
        2
        * {
            "deep": 2.0 * given.seconds,
            "topics": 0.0,
            "scheduled": given.seconds,
            "groups": 3 * _OPERATIONS * _OPERATION_PLANNED_S,
            "keys": _OPERATIONS * _OPERATION_PLANNED_S,
        }[case]
    )
    return _START_PLANNED_S + _FILLING_PLANNED_S[case] * filled + idle_s + given.rounds * round_s


def run(given: Depth, console: Console) -> Report:
    """Measure the cases. Raises what `measure_each` does."""
    wrk.find_wrk()
    report = Report("depth", "What waits costs nothing", given.model_dump())
    with Work(console, planned_s(given)) as work:

        def measure(case: str) -> None:
            work.step(case)
            found = CASES[case](given)
            work.done(_planned_s(given, case))
            report.figures += [replace(figure, name=f"{case}: {figure.name}") for figure in found.figures]
            report.samples += [{"case": case, **sample} for sample in found.samples]

        measure_each({case: partial(measure, case) for case in given.case}, report)
    return report


def deep(sizes: Depth) -> Found:
    """A million messages of 1 KB, beside an empty topic; synced to disk."""
    found = Found()
    claims = _CLAIMS_MAX * sizes.seconds
    with server_pair("fsync") as (full, plain):
        fill(full, "t", [KILOBYTE] * BATCH, sizes.messages)
        found.figures.append(_rss("resident memory", full, 400))
        found.rates("publish", *_in_turns(full, plain, sizes, lambda server: _publishing(server, "t", KILOBYTE, sizes)))
        _empty(plain, "t")
        fill(plain, "t", [KILOBYTE] * BATCH, claims)
        claim = b'{"lease_s": 3600}'
        found.rates("claim", *_in_turns(full, plain, sizes, lambda server: _claiming(server, "t", claim, sizes)))
        found.figures.append(_rss("resident memory after the claims", full, 400))
    return found


def topics(sizes: Depth) -> Found:
    """A hundred thousand topics with a message each, beside none; written, not synced."""
    found = Found()
    with server_pair("os") as (full, plain):
        before = cpu_seconds(full.child.pid)
        topics_made = wrk.run(full.url, _seconds_for(sizes.topics, 3_000), _each_once("PUT", "/topics/t", b"{}"))
        found.samples.append({"made": topics_made.requests, "cpu_s": cpu_seconds(full.child.pid) - before})
        found.figures.append(Figure("topics made", topics_made.per_second, "a second", Target(">=", 3_000)))
        _make_up_to(full, topics_made.requests, sizes.topics)
        publish_to_each(full, 1, sizes.topics)
        scrapes = [_seconds_of(lambda: call(full.url, "GET", "/metrics")) for _ in range(5)]
        found.samples.append({"scrape_s": scrapes})
        found.figures.append(Figure("scrape of /metrics", statistics.median(scrapes), "s", Target("<=", 0.2)))
        found.figures.append(_rss("resident memory", full, 500))
        found.figures += _idle(full, plain, sizes)
    return found


def scheduled(sizes: Depth) -> Found:
    """A hundred thousand messages due within a day, beside none."""
    found = Found()
    chance = random.Random(7)
    with server_pair("fsync") as (full, plain):
        for _ in range(0, sizes.scheduled, BATCH):
            lines = [orjson.dumps({"body": {"n": n}, "delay_s": chance.uniform(600, _DAY_S)}) for n in range(BATCH)]
            publish_lines(full, "t", lines, ENVELOPES)
        found.figures += _idle(full, plain, sizes)
        for server in (full, plain):
            fill(server, "t", [QUEUE_MESSAGE] * BATCH, _CLAIMS_MAX * sizes.seconds)
        claim = b'{"lease_s": 3600}'
        found.rates("claim", *_in_turns(full, plain, sizes, lambda server: _claiming(server, "t", claim, sizes)))
    return found


def groups(sizes: Depth) -> Found:
    """A hundred groups on a topic with a hundred thousand messages, beside one group."""
    found = Found()
    with server_pair("fsync") as (full, plain):
        for server in (full, plain):
            for number in range(_GROUPS if server is full else 1):
                call(server.url, "PUT", f"/topics/t/groups/g{number}")
            call(server.url, "DELETE", "/topics/t/groups/default")
            fill(server, "t", [QUEUE_MESSAGE] * BATCH, sizes.backlog)
        claim = orjson.dumps({"lease_s": 3600, "group": "g0"})
        for name, measure in (
            ("claim", lambda server: claim_cost(server, "t", claim, _OPERATIONS)),
            ("claim and ack", lambda server: cycle_cost(server, "t", claim, _OPERATIONS // 2)),
            ("publish", lambda server: publish_cost(server, "t", _OPERATIONS)),
        ):
            found.costs(name, *_in_turns(full, plain, sizes, measure))
    return found


def keys(sizes: Depth) -> Found:
    """Ten thousand ordering keys on a topic, beside none."""
    found = Found()
    with server_pair("fsync") as (full, plain):
        for server in (full, plain):
            for first in range(0, sizes.backlog, BATCH):
                numbers = range(first, first + BATCH)
                lines = [
                    orjson.dumps({"body": n, "key": f"k{n % _KEYS}"} if server is full else {"body": n})
                    for n in numbers
                ]
                publish_lines(server, "t", lines, ENVELOPES)
        cycles = _in_turns(full, plain, sizes, lambda server: cycle_cost(server, "t", b"{}", _OPERATIONS // 2))
        found.costs("claim and ack", *cycles)
    return found


CASES: dict[str, Callable[[Depth], Found]] = {
    "deep": deep,
    "topics": topics,
    "scheduled": scheduled,
    "groups": groups,
    "keys": keys,
}


# Two servers


def _in_turns(
    full: Server, plain: Server, sizes: Depth, measure: Callable[[Server], float]
) -> tuple[list[float], list[float]]:
    ours, theirs = [], []
    for _ in range(sizes.rounds):
        ours.append(measure(full))
        theirs.append(measure(plain))
    return ours, theirs


def _idle(full: Server, plain: Server, sizes: Depth) -> Iterator[Figure]:
    window = CpuWindow({"full": full.child.pid, "plain": plain.child.pid})
    time.sleep(sizes.idle_s)
    cores = window.cores()
    # Both are next to nothing, so their difference is what can be told apart.
    yield Figure("CPU while idle, more than without", 100 * (cores["full"] - cores["plain"]), "%", Target("<=", 0.02))


# Loads


def _publishing(server: Server, topic: str, body: bytes, sizes: Depth) -> float:
    return wrk.run(f"{server.url}/messages/{topic}", sizes.seconds, wrk.repeated(body)).per_second


def _claiming(server: Server, topic: str, claim: bytes, sizes: Depth) -> float:
    """Messages a second, not answers: an empty one is a 200 too."""
    before, started = metric(server.url, "wakeq_delivered_messages_total"), time.perf_counter()
    wrk.run(f"{server.url}/messages/{topic}/claim", sizes.seconds, wrk.repeated(claim))
    seconds = time.perf_counter() - started
    return (metric(server.url, "wakeq_delivered_messages_total") - before) / seconds


def _empty(server: Server, topic: str) -> None:
    made(call(server.url, "POST", f"/topics/{topic}/purge"))


def _each_once(method: str, path: str, body: bytes, first: int = 0) -> str:
    """A script that asks for `path` with one number after the other."""
    return (
        f"local n = {first}\n"
        'local headers = {["Content-Type"] = "application/json"}\n'
        "request = function()\n"
        "  n = n + 1\n"
        f'  return wrk.format("{method}", "{path}" .. n, headers, [[{body.decode()}]])\n'
        "end\n"
    )


def _make_up_to(server: Server, reached: int, count: int) -> None:
    # wrk throws the first request away, and has made more topics than it says when its time is over.
    make_topics(server, 1, 1)
    make_topics(server, reached, count)


def _seconds_for(count: int, per_second: int) -> int:
    return max(1, count // per_second // 2)


# Answers


def _seconds_of(once: Callable[[], object]) -> float:
    started = time.perf_counter()
    once()
    return time.perf_counter() - started


def _rss(name: str, server: Server, most: int) -> Figure:
    return Figure(name, memory(server.child.pid).rss_bytes / 1e6, "MB", Target("<=", most))
