"""One publish to many groups, each of which has every message: until the last one has it, and what a copy costs."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field
from rich.console import Console

from wakeq_bench.growth import growth
from wakeq_bench.hdr import Latencies
from wakeq_bench.measure import CpuWindow
from wakeq_bench.parameters import Counts, Names, Parameters, among
from wakeq_bench.peers.contestant import FAILURES, Contestant
from wakeq_bench.peers.everyone import BY_KEY, CONTESTANTS, keys_of, prepared, remarks
from wakeq_bench.processes import raise_open_files
from wakeq_bench.report import Figure, Measure, Missing, Overview, Report, Series, Target, readable
from wakeq_bench.scenarios.progress import Work

KEYS = keys_of(lambda one: one.groups)
_AS_A_RULE = ["wakeq-memory", "redis-everysec"]

_STARTING_PLANNED_S = 2.5
_EACH_PLANNED_S = 0.02
_START_MAX_S = 120.0
_PATIENCE_S = 60.0
_OURS = "wakeq-"


class Fanout(Parameters):
    """What `fanout` can be told."""

    only: Annotated[Names, among(*KEYS)] = Field(_AS_A_RULE, description="the contestants that take part")
    groups: Counts = Field([1, 10, 100], description="groups that each have every message, one measurement each")
    deliveries: int = Field(
        500, ge=1, description="copies due a second: publishes are as many fewer as groups are more"
    )
    size: int = Field(100, ge=12, le=1_000_000, description="bytes of a message")
    seconds: float = Field(3.0, ge=0.1, description="length of each window")
    rounds: int = Field(3, ge=1, description="how often each is measured, in turns")


@dataclass(frozen=True)
class Found:
    """One window."""

    contestant: str
    groups: int
    each: Latencies
    """From when a message was due until a group had it."""
    last: Latencies
    """Until the last group had it."""
    server_cpu_s: float
    """A copy."""
    client_cpu_s: float
    behind: int
    """Copies that had not come some seconds later; they count as they stood then."""
    doubled: int


def planned_s(given: Fanout) -> float:
    """About how long it takes."""
    return given.rounds * len(given.only) * sum(_turn_s(given, groups) for groups in given.groups)


def run(given: Fanout, console: Console) -> Report:
    """Measure; one that can't be had, or fails, is named."""
    raise_open_files()
    report = Report("fanout", "One publish to many groups", given.model_dump())
    report.missing += [
        Missing(one.title, "It has no groups that each have every message.")
        for one in CONTESTANTS
        if not one.groups and not one.waits_only
    ]
    pythons = prepared(given.only, report, console)
    found: list[Found] = []
    with Work(console, planned_s(given)) as work:
        for groups in given.groups:
            for number in range(given.rounds):
                for contestant, python in pythons.items():
                    work.step(f"{groups:,} groups, round {number + 1} of {given.rounds}: {contestant.title}")
                    try:
                        found.append(_measure(contestant, python, groups, given))
                    except FAILURES as error:
                        report.missing.append(Missing(f"{contestant.title}, {groups:,} groups", str(error)))
                    work.done(_turn_s(given, groups))
    cases = list(dict.fromkeys((one.contestant, one.groups) for one in found))
    report.samples = [_sample(one) for one in found]
    report.overview = Overview(
        ["", "groups", "each p50", "the last p50", "p99", "server CPU a copy", "client", "not in time", "doubled"],
        [_row(found, *case) for case in cases],
    )
    report.measures = list(MEASURES)
    report.series = [series for case in cases for series in _series(found, *case)]
    report.figures = figures(found)
    report.notes += [
        f"{given.deliveries:,} copies are due a second, whatever the number of groups, so that any number makes as "
        "much work. A copy counts from when its message was due; one that had not come five seconds after the last was "
        "due counts as it stood then. The publisher and all consumers are one process.",
        *remarks(pythons),
    ]
    return report


MEASURES = (
    Measure("last", "Until the last group has a message", "s", "lower", "lines", "groups", True),
    Measure("each", "Until a group has a message", "s", "lower", "none", "groups", True),
    Measure("copy", "Server CPU of a copy", "s", "lower", "none", "groups", True),
)


def _turn_s(given: Fanout, groups: int) -> float:
    return _STARTING_PLANNED_S + _EACH_PLANNED_S * groups + given.seconds


def _measure(contestant: Contestant, python: Path, groups: int, given: Fanout) -> Found:
    rate = given.deliveries / groups
    options = ("--groups", str(groups), "--rate", str(rate), "--size", str(given.size), "--seconds", str(given.seconds))
    with contestant.loaded(python, "fanout", options) as (server, client):
        client.wait_for_record("opened", _START_MAX_S)
        window = CpuWindow({"server": server.child.pid, "client": client.pid})
        record = client.wait_for_record("last_us", given.seconds + _PATIENCE_S)
        spent = window.spent()
    copies = len(record["each_us"])
    each, last = (Latencies.of(one / 1e6 for one in record[key]) for key in ("each_us", "last_us"))
    server_s, client_s = (spent[name] / copies for name in ("server", "client"))
    return Found(contestant.key, groups, each, last, server_s, client_s, record["behind"], record["doubled"])


def _of(found: Sequence[Found], key: str, groups: int) -> list[Found]:
    return [one for one in found if (one.contestant, one.groups) == (key, groups)]


def figures(found: Sequence[Found]) -> list[Figure]:
    """How a copy's cost grows with the groups, and what wakeq has lost or delivered twice."""
    shown = []
    for key in dict.fromkeys(one.contestant for one in found):
        by_groups = {one.groups: _of(found, key, one.groups) for one in found if one.contestant == key}
        costs = {float(groups): [run.server_cpu_s for run in runs] for groups, runs in by_groups.items()}
        whole = len({len(one) for one in costs.values()}) == 1
        if len(costs) > 1 and whole and min(min(one) for one in costs.values()) > 0:
            grown = growth(costs)
            name = f"{key}: a copy's CPU, exponent in the number of groups"
            shown.append(Figure(name, grown.exponent, "", None, grown.interval))
        if key.startswith(_OURS):
            wrong = sum(one.behind + one.doubled for runs in by_groups.values() for one in runs)
            shown.append(Figure(f"{key}: copies late or doubled", wrong, "", Target("==", 0)))
    return shown


def _series(found: Sequence[Found], key: str, groups: int) -> list[Series]:
    runs, title = _of(found, key, groups), BY_KEY[key].title
    return [
        Series(
            "last", title, [one.last.percentile(50) for one in runs], groups, sum((o.last for o in runs), Latencies())
        ),
        Series(
            "each", title, [one.each.percentile(50) for one in runs], groups, sum((o.each for o in runs), Latencies())
        ),
        Series("copy", title, [one.server_cpu_s for one in runs], groups),
    ]


def _row(found: Sequence[Found], key: str, groups: int) -> list[str]:
    runs = _of(found, key, groups)
    each, last = (sum((getattr(one, name) for one in runs), Latencies()) for name in ("each", "last"))
    return [
        key,
        f"{groups:,}",
        *(
            f"{readable(1000 * found_s)} ms"
            for found_s in (each.percentile(50), last.percentile(50), last.percentile(99))
        ),
        f"{readable(1e6 * statistics.median(one.server_cpu_s for one in runs))} µs",
        f"{readable(1e6 * statistics.median(one.client_cpu_s for one in runs))} µs",
        f"{sum(one.behind for one in runs):,}",
        f"{sum(one.doubled for one in runs):,}",
    ]


def _sample(found: Found) -> dict[str, object]:
    return {
        "contestant": found.contestant,
        "groups": found.groups,
        "each": found.each.counts,
        "last": found.last.counts,
        "server_cpu_s": found.server_cpu_s,
        "client_cpu_s": found.client_cpu_s,
        "behind": found.behind,
        "doubled": found.doubled,
    }
