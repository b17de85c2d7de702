"""What a message costs as there is more and more of something: curves, and how steep they are.

Each size is measured beside a server that has next to nothing, in turns, so that what the machine does meanwhile falls
on both; what grows is their ratio.
"""

import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from pydantic import Field
from rich.console import Console

from wakeq_bench.growth import dearest, growth
from wakeq_bench.measure import CpuWindow
from wakeq_bench.parameters import Counts, Names, Parameters, Sizes, among
from wakeq_bench.processes import Server, raise_open_files
from wakeq_bench.report import Figure, Measure, Overview, Report, Series, Target, readable
from wakeq_bench.scenarios import parked
from wakeq_bench.scenarios.costs import round_trip_cost
from wakeq_bench.scenarios.filling import BATCH, KILOBYTE, fill
from wakeq_bench.scenarios.parts import measure_each
from wakeq_bench.scenarios.progress import Work
from wakeq_bench.scenarios.servers import server_pair
from wakeq_bench.scenarios.topic_making import make_topics

AXES = ("parked", "topics", "depth")

_FLAT = Target("<=", 1.2)
_WAKE_SHARE = 0.2
_ROUND_PLANNED_S = 1.7
_START_PLANNED_S = 3.0
_EACH_PLANNED_S = {"parked": 1 / 700, "topics": 1 / 3_000, "depth": 1 / 15_000}
_SEED = 7


class Scale(Parameters):
    """What `scale` can be told."""

    axis: Annotated[Names, among(*AXES)] = Field(list(AXES), description="what there is more and more of")
    parked: Counts = Field([1, 100, 1_000, 10_000], description="consumers parked on one topic")
    topics: Counts = Field([1, 100, 10_000, 100_000], description="topics, any of which is used")
    depth: Sizes = Field([0, 10_000, 100_000, 1_000_000], description="messages of 1 KB that wait on the topic")
    durability: Literal["memory", "os", "fsync"] = Field("os", description="how wakeq keeps what is published")
    messages: int = Field(500, ge=10, description="how many each measurement takes; of wakes a fifth of it")
    rounds: int = Field(3, ge=1, description="how often each size is measured, in turns")

    @property
    def wakes(self) -> int:
        """Each takes milliseconds, and what is parked must not end meanwhile."""
        return max(1, round(self.messages * _WAKE_SHARE))

    def sizes(self, axis: str) -> list[int]:
        """Those of one axis, ascending."""
        return sorted({"parked": self.parked, "topics": self.topics, "depth": self.depth}[axis])


@dataclass(frozen=True)
class Found:
    """One size: server CPU of a message, a sample a round, with so much of it and with next to nothing."""

    axis: str
    size: int
    full_s: list[float]
    plain_s: list[float]
    full_wakes_s: list[float]
    plain_wakes_s: list[float]
    """From a publish to the consumer, where there is one parked."""

    @property
    def ratios(self) -> list[float]:
        """Of the two, round by round."""
        return [full / plain for full, plain in zip(self.full_s, self.plain_s, strict=True)]


@dataclass(frozen=True)
class Turn:
    """What one server is measured by."""

    cost_s: Callable[[], float]
    wakes_s: list[float]


def planned_s(given: Scale) -> float:
    """About how long it takes."""
    return sum(_planned_s(given, axis, size) for axis in given.axis for size in given.sizes(axis))


def run(given: Scale, console: Console) -> Report:
    """Measure the axes. Raises what `measure_each` does."""
    raise_open_files()
    report = Report("scale", "What a message costs as there is more of everything", given.model_dump())
    found: list[Found] = []
    with Work(console, planned_s(given)) as work:

        def measure(axis: str) -> None:
            found.extend(_AXES[axis](given, work))

        measure_each({axis: partial(measure, axis) for axis in given.axis}, report)
    report.samples = [{**one.__dict__} for one in found]
    report.measures = list(MEASURES)
    report.series = [series for one in found for series in _series(one)]
    report.overview = Overview(
        ["of", "how many", "CPU a message", "with next to nothing", "times"], list(map(_row, found))
    )
    report.figures = [figure for axis in given.axis for figure in figures(axis, [o for o in found if o.axis == axis])]
    report.notes += [
        "CPU is the server's. With `parked` a message is a publish, the wake of one consumer and its parking again; "
        "otherwise a publish, a claim and its ack, of topics at random or of the one that is full.",
        "A size is measured in turns with a server that has next to nothing, and the ratio of the two is fitted: its "
        "exponent is 0 where the size costs nothing, 1 where the cost is in proportion to it.",
    ]
    return report


MEASURES = (
    Measure("cost", "Server CPU of a message", "s", "lower", "lines", "how many", True),
    Measure(
        "ratio",
        "Server CPU of a message, over that with next to nothing",
        "times",
        "lower",
        "costs",
        "how many",
        True,
        flat_within=_FLAT.bound - 1,
    ),
)


def figures(axis: str, found: Sequence[Found]) -> list[Figure]:
    """How flat the curve of one axis is; none of a single point."""
    costs = {float(max(1, one.size)): one.ratios for one in found}
    if len(costs) < 2:
        return []
    fitted = growth(costs)
    span = f"{axis}, {min(one.size for one in found):,} to {max(one.size for one in found):,}"
    return [
        Figure(f"{span}: cost of the last, of the first, fitted", fitted.over_all, "times", _FLAT,
               fitted.over_all_interval),
        Figure(f"{span}: the dearest, of the first", dearest(costs), "times", _FLAT),
        Figure(f"{span}: exponent", fitted.exponent, "", None, fitted.interval),
    ]  # fmt: skip


def _planned_s(given: Scale, axis: str, size: int) -> float:
    return _START_PLANNED_S + size * _EACH_PLANNED_S[axis] + given.rounds * _round_s(given)


def _round_s(given: Scale) -> float:
    return _ROUND_PLANNED_S * given.messages / 500


def _in_turns(axis: str, size: int, full: Turn, plain: Turn, given: Scale, work: Work) -> Found:
    # What a first request of each sort allocates once is no cost of a size.
    for turn in (full, plain):
        turn.cost_s()
        turn.wakes_s.clear()
    full_s, plain_s = [], []
    for number in range(given.rounds):
        work.step(f"{axis}, {size:,}: round {number + 1} of {given.rounds}")
        full_s.append(full.cost_s())
        plain_s.append(plain.cost_s())
        work.done(_round_s(given))
    return Found(axis, size, full_s, plain_s, full.wakes_s, plain.wakes_s)


# The axes


def _parked(given: Scale, work: Work) -> Iterator[Found]:
    """With servers of their own for each size: a claim that is parked ends after a minute."""
    for size in given.sizes("parked"):
        work.step(f"parked, {size:,}: parking")
        with _parked_turn(size, given) as full, _parked_turn(1, given) as plain:
            work.done(_START_PLANNED_S + size * _EACH_PLANNED_S["parked"])
            yield _in_turns("parked", size, full, plain, given, work)


@contextmanager
def _parked_turn(count: int, given: Scale) -> Iterator[Turn]:
    with parked.filled_place(parked.CLAIM, count) as place:
        wakes_s: list[float] = []

        def wakes() -> float:
            window = CpuWindow({"server": place.server.child.pid})
            wakes_s.extend(place.parker.wakes(place.publisher, given.wakes))
            return window.spent()["server"] / given.wakes

        yield Turn(wakes, wakes_s)


def _any_of(server: Server, topics: int, given: Scale) -> Turn:
    chance = random.Random(_SEED)
    return _round_trips(server, lambda: f"t{chance.randint(1, topics)}", given)


def _round_trips(server: Server, topics: Callable[[], str], given: Scale) -> Turn:
    return Turn(lambda: round_trip_cost(server, topics, given.messages), [])


def _topics(given: Scale, work: Work) -> Iterator[Found]:
    there = 0
    with server_pair(given.durability) as (full, plain):
        make_topics(plain, 1, 1)
        for size in given.sizes("topics"):
            work.step(f"topics, {size:,}: making them")
            make_topics(full, there + 1, size)
            work.done(_START_PLANNED_S + size * _EACH_PLANNED_S["topics"])
            there = size
            yield _in_turns("topics", size, _any_of(full, size, given), _any_of(plain, 1, given), given, work)


def _depth(given: Scale, work: Work) -> Iterator[Found]:
    there = 0
    with server_pair(given.durability) as (full, plain):
        for size in given.sizes("depth"):
            work.step(f"depth, {size:,}: filling")
            fill(full, "t", [KILOBYTE] * BATCH, size - there)
            work.done(_START_PLANNED_S + size * _EACH_PLANNED_S["depth"])
            there = size
            deep, empty = (_round_trips(server, lambda: "t", given) for server in (full, plain))
            yield _in_turns("depth", size, deep, empty, given, work)


_AXES: dict[str, Callable[[Scale, Work], Iterator[Found]]] = {"parked": _parked, "topics": _topics, "depth": _depth}


def _series(found: Found) -> list[Series]:
    # A curve with logarithmic axes has no place for 0.
    x = max(1, found.size)
    return [Series("cost", found.axis, found.full_s, x), Series("ratio", found.axis, found.ratios, x)]


def _row(found: Found) -> list[str]:
    full, plain = statistics.median(found.full_s), statistics.median(found.plain_s)
    shown = (f"{readable(1e6 * one)} µs" for one in (full, plain))
    return [found.axis, f"{found.size:,}", *shown, readable(statistics.median(found.ratios))]
