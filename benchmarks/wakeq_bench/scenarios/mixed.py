"""A day of a deployment of agents: a quiet night, people at work, tasks of several services; the same for everybody.

The day follows from a seed (`peers/scripts/_day.py`), so it can be had again. Tasks go the way that they go in
llama_deploy: client, control plane, services, events and results, all through the queue.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field
from rich.console import Console

from wakeq_bench.hdr import Latencies
from wakeq_bench.measure import CpuWindow
from wakeq_bench.parameters import Names, Parameters, among
from wakeq_bench.peers.contestant import FAILURES, Contestant
from wakeq_bench.peers.everyone import BY_KEY, keys_of, prepared, remarks
from wakeq_bench.report import Figure, Measure, Missing, Overview, Report, Series, Target, readable
from wakeq_bench.scenarios.progress import Work

KEYS = keys_of(ways=True)
_AS_A_RULE = ["wakeq-fsync", "redis-everysec", "original-50ms"]

_STARTING_PLANNED_S = 5.0
_START_MAX_S = 60.0
_PATIENCE_S = 60.0
_OURS = "wakeq-"


class Mixed(Parameters):
    """What `mixed` can be told."""

    only: Annotated[Names, among(*KEYS)] = Field(_AS_A_RULE, description="the contestants that take part")
    seed: int = Field(1, ge=0, description="what the day follows from")
    tasks: int = Field(50, ge=1, description="how many come on that day")
    seconds: float = Field(10.0, ge=1, description="length of the day")
    rounds: int = Field(3, ge=1, description="how often each lives through it, in turns")


@dataclass(frozen=True)
class Found:
    """One day."""

    contestant: str
    hops: Latencies
    """From a publish to the handler, of every message."""
    waited: Latencies
    """Of every task, from when it was due until its answer, less what its services took for it."""
    night_cores: float
    day_cores: float
    """Of server and clients, before the morning and on the whole."""
    unfinished: int
    """Tasks that had no answer some seconds after the day."""
    doubled: int


def planned_s(given: Mixed) -> float:
    """About how long it takes."""
    return given.rounds * len(given.only) * (_STARTING_PLANNED_S + given.seconds)


def run(given: Mixed, console: Console) -> Report:
    """Let everybody live through it; one that can't be had, or fails, is named."""
    report = Report("mixed", "A day of a deployment of agents", given.model_dump())
    pythons = prepared(given.only, report, console)
    found: list[Found] = []
    failed: set[Contestant] = set()
    with Work(console, planned_s(given)) as work:
        for number in range(given.rounds):
            for contestant in (one for one in pythons if one not in failed):
                work.step(f"day {number + 1} of {given.rounds}: {contestant.title}")
                try:
                    found.append(_measure(contestant, pythons[contestant], given))
                except FAILURES as error:
                    failed.add(contestant)
                    report.missing.append(Missing(contestant.title, str(error)))
                work.done(_STARTING_PLANNED_S + given.seconds)
    keys = list(dict.fromkeys(one.contestant for one in found))
    report.samples = [_sample(one) for one in found]
    report.overview = Overview(
        ["", "a hop p50", "p99", "a task waits p50", "p99", "cores at night", "all day", "unfinished", "doubled"],
        [_row(found, key) for key in keys],
    )
    report.measures = list(MEASURES)
    report.series = [series for key in keys for series in _series(found, key)]
    report.figures = [
        Figure(f"{key}: tasks unfinished, messages doubled", _wrong(found, key), "", Target("==", 0))
        for key in keys
        if key.startswith(_OURS)
    ]
    report.notes += [
        f"The day of the seed {given.seed} has {given.tasks:,} tasks in {given.seconds:g} s. A "
        "hop is one message, from its publish to its handler. What a task waits is all that is not its services' own "
        "time. Client, control plane and services are one process; cores are those of it and of the server.",
        *remarks(pythons),
    ]
    return report


MEASURES = (
    Measure("waited", "What a task waits for its queue", "s", "lower", "bars", "", True),
    Measure("hop", "From a publish to its handler", "s", "lower", "none", "", True),
    Measure("night", "CPU at night, of server and clients", "cores", "lower", "none", "", True),
    Measure("day", "CPU on the whole day, of server and clients", "cores", "lower", "none", "", True),
)


def _measure(contestant: Contestant, python: Path, given: Mixed) -> Found:
    options = ("--seed", str(given.seed), "--tasks", str(given.tasks), "--seconds", str(given.seconds))
    with contestant.loaded(python, "mixed", options) as (server, client):
        client.wait_for_record("opened", _START_MAX_S)
        window = CpuWindow({"server": server.child.pid, "client": client.pid})
        client.wait_for_record("morning", given.seconds)
        night = sum(window.cores().values())
        record = client.wait_for_record("waited_us", given.seconds + _PATIENCE_S)
        whole = sum(window.cores().values())
    hops, waited = (Latencies.of(max(0, one) / 1e6 for one in record[key]) for key in ("hops_us", "waited_us"))
    return Found(contestant.key, hops, waited, night, whole, record["unfinished"], record["doubled"])


def _of(found: Sequence[Found], key: str) -> list[Found]:
    return [one for one in found if one.contestant == key]


def _wrong(found: Sequence[Found], key: str) -> int:
    return sum(one.unfinished + one.doubled for one in _of(found, key))


def _series(found: Sequence[Found], key: str) -> list[Series]:
    runs, title = _of(found, key), BY_KEY[key].title
    shown = [
        Series(
            "hop", title, [one.hops.percentile(50) for one in runs], "", sum((one.hops for one in runs), Latencies())
        ),
        Series("night", title, [one.night_cores for one in runs]),
        Series("day", title, [one.day_cores for one in runs]),
    ]
    if finished := [one.waited for one in runs if one.waited.total]:
        every = sum(finished, Latencies())
        shown.append(Series("waited", title, [one.percentile(50) for one in finished], "", every))
    return shown


def _row(found: Sequence[Found], key: str) -> list[str]:
    runs = _of(found, key)
    hops, waited = (sum((getattr(one, name) for one in runs), Latencies()) for name in ("hops", "waited"))
    return [
        key,
        *(_milliseconds(kind, percent) for kind in (hops, waited) for percent in (50, 99)),
        readable(statistics.median(one.night_cores for one in runs)),
        readable(statistics.median(one.day_cores for one in runs)),
        f"{sum(one.unfinished for one in runs):,}",
        f"{sum(one.doubled for one in runs):,}",
    ]


def _milliseconds(found: Latencies, percent: float) -> str:
    return f"{readable(1000 * found.percentile(percent))} ms" if found.total else ""


def _sample(found: Found) -> dict[str, object]:
    return {
        "contestant": found.contestant,
        "hops": found.hops.counts,
        "waited": found.waited.counts,
        "night_cores": found.night_cores,
        "day_cores": found.day_cores,
        "unfinished": found.unfinished,
        "doubled": found.doubled,
    }
