"""Messages a second from publish to ack, through each queue's own client, in turns.

A run has a server of its own in an empty directory, and one client process that publishes and consumes. Every message
is numbered, so that a queue can neither lose one nor deliver one twice unseen.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field
from rich.console import Console

from wakeq_bench.intervals import ratio_interval
from wakeq_bench.measure import CpuWindow
from wakeq_bench.parameters import Counts, Names, Parameters, among
from wakeq_bench.peers.contestant import FAILURES, Contestant
from wakeq_bench.peers.everyone import BY_KEY, keys_of, prepared, remarks
from wakeq_bench.report import Figure, Measure, Missing, Overview, Report, Series, Target, readable
from wakeq_bench.scenarios.progress import Work

MODES = ("batches", "concurrent")
BATCH_MAX = 1_000
"""What one claim may ask for."""
CALLS_MAX, SIZE_MIN, SIZE_MAX = 1_000, 12, 1_000_000
_BATCH_MAX_BYTES = 8_000_000


def _at_once(batches: list[int]) -> list[int]:
    if max(batches) > BATCH_MAX:
        raise ValueError(f"a batch has at most {BATCH_MAX:,} messages")
    return batches


def _calls(calls: list[int]) -> list[int]:
    if max(calls) > CALLS_MAX:
        raise ValueError(f"at most {CALLS_MAX:,} calls are made at a time")
    return calls


def _bytes(sizes: list[int]) -> list[int]:
    if not all(SIZE_MIN <= size <= SIZE_MAX for size in sizes):
        raise ValueError(f"bytes of a message are {SIZE_MIN} to {SIZE_MAX:,}")
    return sizes


_WARM_UP_S = 1.0
_STARTING_PLANNED_S = 2.0
# A queue that delivers nothing more is given up by the load itself.
_DRAIN_MAX_S = 120.0
_BUSY = 0.9
_OURS = "wakeq-fsync"
_USUAL_IN_FLIGHT = 4
_FIRST, _FIRST_OR_SECOND = Target("<=", 1), Target("<=", 2)


@dataclass(frozen=True)
class Load:
    """What is published at a time; the bounds are of wakeq's rate over that of others."""

    name: str
    options: tuple[str, ...]
    batches: bool = False
    """Whether it takes a client that has batches."""
    bounds: tuple[tuple[str, Target], ...] = ()
    ranked: bool = False
    """Whether wakeq's place among the others has a target."""


@dataclass(frozen=True)
class Found:
    """One run."""

    load: str
    contestant: str
    per_second: float
    client_cpu_s: float
    server_cpu_s: float
    """CPU seconds a message."""
    client_cores: float
    server_cores: float
    lost: int
    doubled: int


KEYS = keys_of()
# Who has batches, which are what a queue can do at its best.
_AS_A_RULE = [key for key in KEYS if BY_KEY[key].batches and key not in ("wakeq-os", "beanstalkd-default")]
_SINGLY = ["wakeq-fsync", "redis-everysec", "nats-default"]
_DURABILITIES = ("memory", "os", "fsync")
_IN_FLIGHT_MAX = 64


def _in_flight(batches: list[int]) -> list[int]:
    if max(batches) > _IN_FLIGHT_MAX:
        raise ValueError(f"at most {_IN_FLIGHT_MAX} batches are published at a time")
    return batches


class Throughput(Parameters):
    """What `throughput` can be told."""

    mode: Annotated[Names, among(*MODES)] = Field(list(MODES), description="in batches, or singly but concurrently")
    only: Annotated[Names, among(*KEYS)] = Field(_AS_A_RULE, description="the contestants that take part")
    singly: Annotated[Names, among(*KEYS)] = Field(
        _SINGLY, description="of these, who is measured with single publishes too; all, where none of them takes part"
    )
    durability: Annotated[Names, among(*_DURABILITIES)] = Field(
        list(_DURABILITIES), description="where a message is when its publish is confirmed: only those that keep it so"
    )
    batch: Annotated[Counts, AfterValidator(_at_once)] = Field([100], description="messages a batch")
    in_flight: Annotated[Counts, AfterValidator(_in_flight)] = Field([4], description="batches published at a time")
    calls: Annotated[Counts, AfterValidator(_calls)] = Field([100], description="single publishes at a time")
    size: Annotated[Counts, AfterValidator(_bytes)] = Field([100], description="bytes of a message, 12 to 1000000")
    seconds: float = Field(3.0, ge=0.1, description="length of each window")
    rounds: int = Field(3, ge=1, description="how often each is measured, in turns")

    @property
    def contestants(self) -> list[str]:
        """Those that take part and keep messages as asked for."""
        return [key for key in self.only if BY_KEY[key].keeps in self.durability]

    def taking(self, load: "Load") -> list[str]:
        """Those that a load is for."""
        if load.batches:
            return [key for key in self.contestants if BY_KEY[key].batches]
        return [key for key in self.contestants if key in self.singly] or self.contestants


def planned_s(given: Throughput) -> float:
    """About how long it takes."""
    return sum(given.rounds * len(given.taking(load)) * _turn_s(given) for load in loads_of(given))


def run(given: Throughput, console: Console) -> Report:
    """Measure the contestants; one that can't be had, or fails, is named."""
    report = Report("throughput", "From publish to ack, messages a second", given.model_dump())
    pythons = prepared(given.contestants, report, console)
    loads = loads_of(given)
    found: list[Found] = []
    with Work(console, planned_s(given)) as work:
        for load in loads:
            for number in range(given.rounds):
                for broker, python in _taking(given, load, pythons).items():
                    work.step(f"{load.name}, round {number + 1} of {given.rounds}: {broker.title}")
                    try:
                        found.append(_measure(load, broker, python, given))
                    except FAILURES as error:
                        report.missing.append(Missing(f"{broker.title}, {load.name}", str(error)))
                    work.done(_turn_s(given))
    cases = [(load, BY_KEY[key]) for load in loads for key in _keys([one for one in found if one.load == load.name])]
    report.samples = [asdict(one) for one in found]
    report.overview = Overview(
        ["medians", "by", "a second", "client CPU", "server CPU", "lost", "doubled"],
        [_row(load, broker, found) for load, broker in cases],
    )
    report.measures = [Measure("rate", "From publish to ack", "messages a second", "higher")]
    report.series = [Series("rate", broker.title, _rates(load, broker.key, found), load.name) for load, broker in cases]
    report.figures = [figure for load in loads for figure in figures(load, found)]
    report.notes += [*_notes(found, given), *remarks(pythons)]
    return report


def _turn_s(given: Throughput) -> float:
    return given.seconds + _WARM_UP_S + _STARTING_PLANNED_S


def loads_of(sizes: Throughput) -> list[Load]:
    """What the modes consist of."""
    loads = []
    for size in sizes.size:
        if "batches" in sizes.mode:
            loads += [
                _batches(batch, in_flight, size)
                for batch in sizes.batch
                for in_flight in sizes.in_flight
                if batch * size <= _BATCH_MAX_BYTES
            ]
        if "concurrent" in sizes.mode:
            loads += [_single_calls(calls, size) for calls in sizes.calls]
    return loads


def _single_calls(calls: int, size: int) -> Load:
    bounds = (("nats-default", Target(">=", 1.5)), ("redis-everysec", Target(">=", 1.2)))
    options = ("--singly", "--in-flight", str(calls), "--size", str(size))
    return Load(f"{calls} single calls{_of(size)}", options, False, bounds if (calls, size) == (100, 100) else ())


def _batches(batch: int, in_flight: int, size: int) -> Load:
    bounds = (("redis-always", Target(">=", 1.5)), ("nats-always", Target(">=", 10)))
    options = ("--batch", str(batch), "--in-flight", str(in_flight), "--size", str(size))
    usual = (batch, in_flight, size) == (100, _USUAL_IN_FLIGHT, 100)
    at_a_time = "" if in_flight == _USUAL_IN_FLIGHT else f", {in_flight} at a time"
    return Load(f"batches of {batch}{_of(size)}{at_a_time}", options, True, bounds if usual else (), ranked=usual)


def _of(size: int) -> str:
    return "" if size == 100 else f", {size:,} bytes"


def figures(load: Load, found: Sequence[Found]) -> list[Figure]:
    """wakeq's rate over those that it is held against, and what it has lost."""
    rates = {key: rates for key in _keys(found) if (rates := _rates(load, key, found))}
    if _OURS not in rates:
        return []
    shown = [
        _times(f"{load.name}: {_OURS} over {key}", rates[_OURS], rates[key], target)
        for key, target in load.bounds
        if min(rates.get(key, [0.0]))
    ]
    wrong = sum(one.lost + one.doubled for one in found if one.load == load.name and one.contestant == _OURS)
    if load.ranked:
        shown += _places(load, rates)
    return [*shown, Figure(f"{load.name}: {_OURS}, lost or doubled", wrong, "", Target("==", 0))]


def _places(load: Load, rates: dict[str, list[float]]) -> list[Figure]:
    """Its place among those that sync too, and among all; wakeq in its other ways is no other."""
    others = [key for key in rates if BY_KEY[key].client != BY_KEY[_OURS].client]
    synced = [key for key in others if BY_KEY[key].keeps == "fsync"]
    return [
        Figure(f"{load.name}: place of {_OURS} among {whom}", _place(rates, among), "", target)
        for whom, among, target in (("those that sync", synced, _FIRST), ("all", others, _FIRST_OR_SECOND))
        if among
    ]


def _place(rates: dict[str, list[float]], others: Sequence[str]) -> int:
    ours = statistics.median(rates[_OURS])
    return 1 + sum(statistics.median(rates[key]) > ours for key in others)


def _times(name: str, ours: list[float], theirs: list[float], target: Target) -> Figure:
    ratio = statistics.median(ours) / statistics.median(theirs)
    return Figure(name, ratio, "times", target, ratio_interval(ours, theirs))


def _taking(given: Throughput, load: Load, pythons: dict[Contestant, Path]) -> dict[Contestant, Path]:
    return {one: python for one, python in pythons.items() if one.key in given.taking(load)}


def _measure(load: Load, broker: Contestant, python: Path, sizes: Throughput) -> Found:
    options = ("--seconds", str(sizes.seconds), "--warm-up", str(_WARM_UP_S), *load.options)
    if broker.takes_per_s is not None:
        # What is published and not taken in the window would be waited for after it.
        options += ("--ahead", str(math.ceil(broker.takes_per_s)))
    with broker.loaded(python, "load", options) as (server, client):
        client.wait_for_record("opened")
        window = CpuWindow({"server": server.child.pid})
        closed = client.wait_for_record("in_window", sizes.seconds + _DRAIN_MAX_S)
        server_s = window.spent()["server"]
        judged = client.wait_for_record("finished", _DRAIN_MAX_S)
    seconds, acked = float(closed["seconds"]), int(closed["in_window"])
    return Found(
        load.name,
        broker.key,
        acked / seconds,
        closed["cpu_s"] / max(1, acked),
        server_s / max(1, acked),
        closed["cpu_s"] / seconds,
        server_s / seconds,
        judged["lost"],
        judged["doubled"],
    )


def _keys(found: Sequence[Found]) -> list[str]:
    return list(dict.fromkeys(one.contestant for one in found))


def _rates(load: Load, key: str, found: Sequence[Found]) -> list[float]:
    return [one.per_second for one in found if one.load == load.name and one.contestant == key]


def _row(load: Load, broker: Contestant, found: Sequence[Found]) -> list[str]:
    runs = [one for one in found if one.load == load.name and one.contestant == broker.key]
    return [
        load.name,
        broker.key,
        f"{statistics.median(one.per_second for one in runs):,.0f}",
        f"{readable(1e6 * statistics.median(one.client_cpu_s for one in runs))} µs",
        f"{readable(1e6 * statistics.median(one.server_cpu_s for one in runs))} µs",
        str(sum(one.lost for one in runs)),
        str(sum(one.doubled for one in runs)),
    ]


def _notes(found: Sequence[Found], sizes: Throughput) -> list[str]:
    synced = [key for key in _keys(found) if BY_KEY[key].keeps == "fsync"]
    notes = [
        f"{_USUAL_IN_FLIGHT} batches, or as many as is said, are in flight at a time. CPU is that of one "
        "message. Servers have their default settings, but for what the contestants' names say.",
        f"Of these, {', '.join(synced) or 'none'} have a message on disk when its publish is confirmed.",
        "Publishers and consumers share one process, on asyncio's own loop, and the server shares the machine's cores.",
    ]
    busy = sorted({f"{one.contestant} ({one.load})" for one in found if one.client_cores > _BUSY})
    if busy:
        notes.append(f"The client, not the server, was at its limit with {', '.join(busy)}.")
    return notes
