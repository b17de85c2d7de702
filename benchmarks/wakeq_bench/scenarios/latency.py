"""From when a message was due to its handler, at several rates, through each queue's own client, in turns.

Every turn has a server and a client of its own. A message counts from the moment it was due, whatever the queue did
meanwhile (no coordinated omission), and every single one of them stands in the histograms.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field
from rich.console import Console

from wakeq_bench.hdr import Latencies
from wakeq_bench.intervals import ratio_interval
from wakeq_bench.parameters import Counts, Names, Parameters, among
from wakeq_bench.peers.contestant import FAILURES, Contestant
from wakeq_bench.peers.everyone import BY_KEY, keys_of, prepared, remarks
from wakeq_bench.report import Figure, Measure, Missing, Overview, Report, Series, Target, readable
from wakeq_bench.scenarios import commit_latency
from wakeq_bench.scenarios.progress import Work

PARTS = ("clients", "half", "alone")
KEYS = keys_of(ways=True)
_AS_A_RULE = ["wakeq-memory", "redis-everysec", "nchan"]
OURS = "wakeq-memory"

_PERCENTS = commit_latency.PERCENTS
_WARM_UP_S = 1.0
_STARTING_PLANNED_S = 1.5
_PATIENCE_S = 30.0
_HALF = "half of its full rate"
_FULL_CALLS = 100
_FULL_S = 3.0
_DRAIN_MAX_S = 120.0
_OF_BEST_MAX = Target("<=", 1.3)
_P99_MAX_MS = Target("<=", 5)


class Latency(Parameters):
    """What `latency` can be told."""

    part: Annotated[Names, among(*PARTS)] = Field(
        list(PARTS),
        description="through clients; at half of what each HTTP queue takes in full; wakeq without a client",
    )
    only: Annotated[Names, among(*KEYS)] = Field(_AS_A_RULE, description="the contestants that take part")
    rates: Counts = Field([100, 1_000], description="messages a second through clients, one measurement each")
    alone: Counts = Field([100], description="messages a second without a client")
    size: int = Field(100, ge=12, le=1_000_000, description="bytes of a message")
    seconds: float = Field(4.0, ge=0.1, description="length of each window")
    rounds: int = Field(3, ge=1, description="how often each is measured, in turns")


@dataclass(frozen=True)
class Found:
    """One window of one contestant."""

    contestant: str
    rate: str
    """Messages a second, or `half of its full rate`."""
    per_second: float
    came: Latencies
    late: Latencies
    """From when messages were due until they were sent."""
    behind: int
    """Messages that had not come some seconds later; they count as they stood then."""
    doubled: int


def planned_s(given: Latency) -> float:
    """About how long it takes."""
    each = {
        "clients": len(given.only) * (_STARTING_PLANNED_S + len(given.rates) * (given.seconds + _WARM_UP_S)),
        "half": len(_speaking_http(given.only)) * _half_s(given),
        "alone": _alone(given).planned_s / given.rounds,
    }
    return given.rounds * sum(each[part] for part in given.part)


def run(given: Latency, console: Console) -> Report:
    """Measure; one that can't be had, or fails, is named. Raises ProcessFailed, BrokenAnswer, OSError."""
    report = Report("latency", "From when a message was due to its handler", given.model_dump())
    found: list[Found] = []
    with Work(console, planned_s(given)) as work:
        if set(given.part) & {"clients", "half"}:
            pythons = prepared(given.only, report, console)
            found = _in_turns(given, pythons, report, work)
            report.notes += [*_notes(found), *remarks(pythons)]
        rows = [_row(*case, found) for case in _cases(found)]
        report.measures = list(MEASURES)
        report.series = [series for case in _cases(found) for series in _series(*case, found)]
        report.samples = [_sample(one) for one in found]
        report.figures = figures(found)
        if "alone" in given.part:
            rows += commit_latency.measure(_alone(given), report, work)
    columns = ["a second", "", *(f"p{percent}" for percent in _PERCENTS), "not in time"]
    report.overview = Overview(columns, rows)
    return report


MEASURES = (
    Measure("wake", "From when a message was due to its handler", "s", "lower", "curves", "messages a second", True),
    Measure("p50", "Half of the messages came within", "s", "lower", "none", "messages a second", True),
    Measure("p99", "99 % of the messages came within", "s", "lower", "none", "messages a second", True),
    Measure("alone", "wakeq alone, from when a message was due", "s", "lower", "none", "messages a second", True),
)


def _alone(given: Latency) -> commit_latency.Plan:
    return commit_latency.Plan(given.alone, given.seconds, _WARM_UP_S, given.rounds)


def _speaking_http(keys: Sequence[str]) -> list[str]:
    """Those whose full rate is worth half of it: not those that are bound by a pause, nor by a disk."""
    able = [BY_KEY[key] for key in keys]
    return [one.key for one in able if one.http and one.takes_per_s is None and one.keeps == "memory"]


def _half_s(given: Latency) -> float:
    return 2 * (_STARTING_PLANNED_S + _WARM_UP_S) + _FULL_S + given.seconds


def _in_turns(given: Latency, pythons: dict[Contestant, Path], report: Report, work: Work) -> list[Found]:
    found: list[Found] = []
    failed: set[Contestant] = set()
    half = _speaking_http([one.key for one in pythons])
    for number in range(given.rounds):
        for contestant in (one for one in pythons if one not in failed):
            work.step(f"round {number + 1} of {given.rounds}: {contestant.title}")
            try:
                if "clients" in given.part:
                    found += _at_rates(contestant, pythons[contestant], given, sorted(given.rates))
                    work.done(_STARTING_PLANNED_S + len(given.rates) * (given.seconds + _WARM_UP_S))
                if "half" in given.part and contestant.key in half:
                    found += _at_half(contestant, pythons[contestant], given)
                    work.done(_half_s(given))
            except FAILURES as error:
                failed.add(contestant)
                report.missing.append(Missing(contestant.title, str(error)))
    report.missing += _left_out(given, found)
    return found


def _at_rates(
    contestant: Contestant, python: Path, given: Latency, rates: Sequence[float], name: str | None = None
) -> list[Found]:
    options = ["--seconds", str(given.seconds), "--warm-up", str(_WARM_UP_S), "--size", str(given.size)]
    found: list[Found] = []
    with contestant.loaded(python, "latency", [*options, "--rates", *map(str, rates)]) as (_, client):
        for rate in rates:
            record = client.wait_for_record("came_us", _WARM_UP_S + given.seconds + _PATIENCE_S)
            came, late = (Latencies.of(one / 1e6 for one in record[key]) for key in ("came_us", "late_us"))
            behind, doubled = int(record["behind"]), int(record["doubled"])
            found.append(Found(contestant.key, name or f"{rate:,}", rate, came, late, behind, doubled))
            if behind:
                break
    return found


def _at_half(contestant: Contestant, python: Path, given: Latency) -> list[Found]:
    options = ["--singly", "--in-flight", str(_FULL_CALLS), "--size", str(given.size), "--seconds", str(_FULL_S)]
    with contestant.loaded(python, "load", [*options, "--warm-up", str(_WARM_UP_S)]) as (_, client):
        window = client.wait_for_record("in_window", _FULL_S + _DRAIN_MAX_S)
    full = float(window["in_window"]) / float(window["seconds"])
    return _at_rates(contestant, python, given, [max(1.0, full / 2)], _HALF)


def _left_out(given: Latency, found: Sequence[Found]) -> list[Missing]:
    left_out = []
    for key in dict.fromkeys(one.contestant for one in found):
        behind = [one.per_second for one in found if one.contestant == key and one.behind and one.rate != _HALF]
        more = [f"{rate:,}" for rate in sorted(given.rates) if behind and rate > min(behind)]
        if more:
            reason = f"It was behind at {min(behind):g} already, so it was not asked for {' and '.join(more)} a second."
            left_out.append(Missing(BY_KEY[key].title, reason))
    return left_out


# What is made of it


def _cases(found: Sequence[Found]) -> list[tuple[str, str]]:
    order = {rate: place for place, rate in enumerate(dict.fromkeys(one.rate for one in found))}
    cases = dict.fromkeys((one.rate, one.contestant) for one in found)
    return sorted(cases, key=lambda case: order[case[0]])


def _of(rate: str, key: str, found: Sequence[Found]) -> list[Found]:
    return [one for one in found if (one.rate, one.contestant) == (rate, key)]


def _together(rate: str, key: str, found: Sequence[Found]) -> Latencies:
    return sum((one.came for one in _of(rate, key, found)), Latencies())


def _percentiles(rate: str, key: str, found: Sequence[Found], percent: float) -> list[float]:
    return [one.came.percentile(percent) for one in _of(rate, key, found)]


def _series(rate: str, key: str, found: Sequence[Found]) -> list[Series]:
    title, x = BY_KEY[key].title, rate if rate == _HALF else int(rate.replace(",", ""))
    p50, p99 = (_percentiles(rate, key, found, percent) for percent in (50, 99))
    return [
        Series("wake", title, p50, x, _together(rate, key, found)),
        Series("p50", title, p50, x),
        Series("p99", title, p99, x),
    ]


def figures(found: Sequence[Found]) -> list[Figure]:
    """wakeq beside the best of the others that speak HTTP, and its p99 at half of its full rate."""
    return [figure for rate in dict.fromkeys(one.rate for one in found) for figure in _figures(rate, found)]


def _figures(rate: str, found: Sequence[Found]) -> Iterator[Figure]:
    # Half of what each takes is another rate for each, so the times are not compared.
    for percent in (50, 99) if rate != _HALF else ():
        ours, best = _percentiles(rate, OURS, found, percent), _best_http(rate, found, percent)
        if best and ours:
            theirs = _percentiles(rate, best, found, percent)
            ratio = statistics.median(ours) / statistics.median(theirs)
            name = f"{rate} a second: p{percent} of {OURS}, over that of {best}"
            yield Figure(name, ratio, "times", _OF_BEST_MAX, ratio_interval(ours, theirs))
    if rate == _HALF and (p99 := _percentiles(rate, OURS, found, 99)):
        yield Figure(f"{_HALF}: p99 of {OURS}", 1000 * statistics.median(p99), "ms", _P99_MAX_MS)


def _best_http(rate: str, found: Sequence[Found], percent: float) -> str | None:
    others = {
        one.contestant
        for one in found
        if one.rate == rate and BY_KEY[one.contestant].http and BY_KEY[one.contestant].client != "wakeq"
    }
    medians = {key: statistics.median(_percentiles(rate, key, found, percent)) for key in others}
    return min(medians, key=medians.__getitem__) if medians else None


def _row(rate: str, key: str, found: Sequence[Found]) -> list[str]:
    together, runs = _together(rate, key, found), _of(rate, key, found)
    shown = f"{statistics.median(one.per_second for one in runs):,.0f}" + (" (half)" if rate == _HALF else "")
    percents = [f"{readable(1000 * together.percentile(percent))} ms" for percent in _PERCENTS]
    return [shown, key, *percents, f"{sum(one.behind for one in runs):,}"]


def _sample(found: Found) -> dict[str, object]:
    return {
        "contestant": found.contestant,
        "rate": found.rate,
        "per_second": found.per_second,
        "came": found.came.counts,
        "late_p99_s": found.late.percentile(99),
        "behind": found.behind,
        "doubled": found.doubled,
    }


def _notes(found: Sequence[Found]) -> list[str]:
    late = {one.late.percentile(99): one.contestant for one in found if not one.behind}
    latest_s = max(late, default=0.0)
    return [
        "Publishers and consumer are one process, on asyncio's own loop; a message counts from when it was due until "
        "its handler had it. What had not come five seconds after the last was due counts as it stood then. "
        f"Sending was late by {readable(1000 * latest_s)} ms at most (p99, {late.get(latest_s, 'nobody')}) where a "
        "queue kept up, which counts too.",
        "Histograms hold every message of all rounds, within 1 %.",
    ]
