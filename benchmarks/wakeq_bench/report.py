"""What a scenario has found: series of raw samples, and figures beside their targets; read and written as JSON."""

import statistics
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from wakeq_bench.hdr import Latencies
from wakeq_bench.intervals import Interval, median_interval

_EXACT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_EXACT)
class Target:
    """A bound that a figure should keep."""

    comparison: Literal["<=", ">=", "=="]
    bound: float

    def met_by(self, value: float) -> bool:
        """Whether `value` keeps it."""
        if self.comparison == "<=":
            return value <= self.bound
        return value >= self.bound if self.comparison == ">=" else value == self.bound

    def __str__(self) -> str:
        return f"{self.comparison} {readable(self.bound)}"


@dataclass(frozen=True, config=_EXACT)
class Figure:
    """One number that was found, with its unit and, where there are, its target and its interval."""

    name: str
    value: float
    unit: str = ""
    target: Target | None = None
    interval: Interval | None = None

    @property
    def met(self) -> bool | None:
        """Whether it keeps its target; None where there is none."""
        return None if self.target is None else self.target.met_by(self.value)

    @property
    def open(self) -> bool:
        """Whether its interval reaches over its target, so that another run may judge otherwise."""
        if self.target is None or self.interval is None:
            return False
        return self.target.met_by(self.interval.low) != self.target.met_by(self.interval.high)

    @property
    def found_text(self) -> str:
        """Its value and unit."""
        return f"{readable(self.value)} {self.unit}".strip()

    @property
    def interval_text(self) -> str:
        """Its interval and how often such a one holds the true value; empty where that is never."""
        if self.interval is None or not self.interval.confidence:
            return ""
        low, high = readable(self.interval.low), readable(self.interval.high)
        return f"{low} to {high} ({100 * self.interval.confidence:.0f} %)"

    @property
    def target_text(self) -> str:
        """Its target with the unit; empty without one."""
        return "" if self.target is None else f"{self.target} {self.unit}".strip()

    @property
    def verdict(self) -> str:
        """Whether it keeps its target, in words; empty without one."""
        if self.met is None:
            return ""
        return ("met" if self.met else "missed") + (", just" if self.open else "")


@dataclass(frozen=True, config=_EXACT)
class Overview:
    """A table of its own kind that a scenario shows before its figures."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, config=_EXACT)
class Measure:
    """Something that is measured of several contestants, and how a chart shows it."""

    key: str
    title: str
    unit: str
    better: Literal["lower", "higher"]
    chart: Literal["lines", "costs", "bars", "curves", "none"] = "bars"
    """`costs` are lines over a size, with a power law fitted to each; `curves` are distributions of `latencies`."""
    x_title: str = ""
    """What `x` of its series is; for bars and curves, the groups they stand in."""
    logarithmic: bool = False
    flat_within: float | None = None
    """For costs that a size should not change: by which share of that at the smallest size they may."""


@dataclass(frozen=True, config=_EXACT)
class Series:
    """What one measure was with one contestant, or in one case: a sample a round."""

    measure: str
    name: str
    samples: list[float] = Field(default_factory=list)
    x: float | str = ""
    latencies: Latencies | None = None
    """Every duration of all rounds, where they were timed one by one."""

    @property
    def median(self) -> float:
        """Of the samples."""
        return statistics.median(self.samples)

    @property
    def interval(self) -> Interval:
        """Of that median."""
        return median_interval(self.samples)


@dataclass(frozen=True, config=_EXACT)
class Missing:
    """A contestant that could not be had, or can't take part."""

    name: str
    reason: str


@dataclass(config=_EXACT)
class Report:
    """Everything a scenario hands back."""

    scenario: str
    title: str
    settings: dict[str, Any]
    figures: list[Figure] = Field(default_factory=list)
    samples: list[dict[str, Any]] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    overview: Overview | None = None
    measures: list[Measure] = Field(default_factory=list)
    series: list[Series] = Field(default_factory=list)
    missing: list[Missing] = Field(default_factory=list)
    parameters: dict[str, Any] = Field(default_factory=dict)
    """By which it can be run again."""

    def of(self, measure: str) -> list[Series]:
        """Its series of one measure."""
        return [series for series in self.series if series.measure == measure]

    def missed(self) -> list[Figure]:
        """Its figures that don't keep their targets."""
        return [figure for figure in self.figures if figure.met is False]


def readable(value: float) -> str:
    """Three significant digits, without an exponent; whole numbers in full."""
    if value == int(value):
        return f"{int(value):,}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 2
    while abs(value) < 10 ** (1 - digits) and digits < 9:
        digits += 1
    return f"{value:.{digits if abs(value) < 10 else 1}f}"
