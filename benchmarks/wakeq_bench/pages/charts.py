"""What a chart shows, before anything is drawn: its series in order and in readable units, in words, and as a table."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from wakeq_bench.growth import Growth, growth
from wakeq_bench.hdr import Latencies
from wakeq_bench.report import Measure, Overview, Report, Series, readable

Kind = Literal["lines", "costs", "bars", "curves"]
PERCENTS = (50, 90, 99, 99.9)
"""Of distributions, in tables."""

_SCALES = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")),
    "bytes": ((1024.0**2, "MiB"), (1024.0, "KiB"), (1.0, "bytes")),
}
_NAMED_MAX = 6


@dataclass(frozen=True)
class Scale:
    """By what values are divided to be readable, and the unit they then have."""

    divisor: float
    unit: str

    def text(self, value: float) -> str:
        """A value without its unit."""
        return readable(value / self.divisor)


@dataclass(frozen=True)
class Point:
    """One median with its interval, in the chart's unit."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Chart:
    """One measure of one scenario."""

    scenario: str
    measure: Measure
    series: Sequence[Series]
    keeps: Mapping[str, str] = field(default_factory=dict)
    """By contestant: where a message is for certain when its publish is confirmed."""

    @property
    def name(self) -> str:
        """For files and anchors."""
        return f"{self.scenario}-{self.measure.key}"

    @property
    def title(self) -> str:
        """What it shows, with the unit."""
        return f"{self.measure.title}, {self.scale.unit}"

    @cached_property
    def kind(self) -> Kind | None:
        """How it is drawn; lines need two places to go through. None where there is nothing to draw."""
        wanted = self.measure.chart
        if wanted == "none" or not self.series:
            return None
        if wanted in ("lines", "costs") and (len(self._places) < 2 or not self._can_be_lines()):
            return "bars"
        return wanted

    def _can_be_lines(self) -> bool:
        lines = self.lines().values()
        return bool(lines) and (not self.logarithmic or any(point.y > 0 for points in lines for point in points))

    @property
    def logarithmic(self) -> bool:
        """Whether both of its axes are."""
        return self.measure.logarithmic or self.measure.chart == "costs"

    @cached_property
    def _places(self) -> set[float]:
        numbers = {one.x for one in self.series if isinstance(one.x, float | int)}
        return numbers if len(numbers) == len({one.x for one in self.series}) else set()

    @cached_property
    def scale(self) -> Scale:
        """That of its typical value."""
        typical = statistics.median(map(self._typical, self.series))
        known = _SCALES.get(self.measure.unit, ())
        return next(
            (Scale(divisor, unit) for divisor, unit in known if divisor <= typical),
            Scale(*known[-1]) if known else Scale(1.0, self.measure.unit),
        )

    def _typical(self, series: Series) -> float:
        # What is read of a distribution is its slow end.
        distribution = self.measure.chart == "curves"
        return latencies_of(series).percentile(99) if distribution else series.median

    @property
    def reading(self) -> str:
        """How to read it."""
        parts = {
            "lines": "Marks are medians, whiskers their intervals; the legend has the values at the right end.",
            "costs": "Marks are medians, whiskers their intervals; lines are powers of the size that fit them.",
            "bars": "Bars are medians, whiskers their intervals, rings single rounds.",
            "curves": "Farther right is rarer, up to the slowest of all. Time is logarithmic.",
        }
        lines = self.kind in ("lines", "costs") and self.logarithmic
        axes = f" Both axes are logarithmic{', with a place for 0' if self.floor else ''}." if lines else ""
        band = " A band is where a flat one stays." if self.kind == "costs" and self.measure.flat_within else ""
        return f"{self.measure.better.capitalize()} is better. {parts[self.kind or 'bars']}{axes}{band}"

    def groups(self) -> dict[str, list[Series]]:
        """By what stands in `x`, in order of appearance."""
        found: dict[str, list[Series]] = {}
        for one in self.series:
            found.setdefault(self._group_title(one), []).append(one)
        return found

    def _group_title(self, series: Series) -> str:
        return series.x if isinstance(series.x, str) else f"{readable(series.x)} {self.measure.x_title}".strip()

    def ranked(self, group: Sequence[Series]) -> list[Series]:
        """The best first."""
        return sorted(group, key=lambda one: one.median, reverse=self.measure.better == "higher")

    def lines(self) -> dict[str, list[Point]]:
        """By name, the largest at the right end first; a size of 0 has no place on a logarithmic scale."""
        found: dict[str, list[Point]] = {}
        for one in sorted(self.series, key=lambda one: float(one.x)):
            if not self.logarithmic or float(one.x) > 0:
                found.setdefault(one.name, []).append(self.point(one))
        return dict(sorted(found.items(), key=lambda item: (item[1][-1].x, item[1][-1].y), reverse=True))

    @property
    def floor(self) -> float:
        """Where a logarithmic scale shows what is 0, so that nobody is left out for costing nothing; else 0."""
        values = [value for points in self.lines().values() for point in points for value in (point.y, point.low)]
        return min(value for value in values if value > 0) / 3 if 0 in values else 0.0

    def point(self, series: Series) -> Point:
        """Its median and interval."""
        values = (series.median, series.interval.low, series.interval.high)
        median, low, high = (value / self.scale.divisor for value in values)
        return Point(series.x if isinstance(series.x, float | int) else 0.0, median, low, high)

    @cached_property
    def fits(self) -> dict[str, Growth]:
        """How each cost grows, where it can be told."""
        if self.kind != "costs":
            return {}
        found = {}
        for name in dict.fromkeys(one.name for one in self.series):
            samples = {float(one.x): one.samples for one in self.series if one.name == name}
            try:
                found[name] = growth(samples)
            except ValueError:
                continue
        return found

    def fitted(self, name: str) -> list[tuple[float, float]]:
        """The curve of its fit, at the level that is nearest to the medians."""
        points, exponent = self.lines()[name], self.fits[name].exponent
        level = statistics.median(point.y / point.x**exponent for point in points)
        return [(point.x, level * point.x**exponent) for point in points]

    def table(self) -> Overview:
        """Everything that is drawn, in numbers."""
        unit, group = self.scale.unit, self.measure.x_title
        grouped = any(one.x != "" for one in self.series)
        first = ["of", *([group or "with"] if grouped else [])]
        if self.measure.chart == "curves":
            columns = [*first, "timed", *(f"p{percent}, {unit}" for percent in PERCENTS), f"worst, {unit}"]
            return Overview(columns, [[*self._names(one, grouped), *self._percentiles(one)] for one in self.series])
        columns = [*first, f"median, {unit}", "interval", "samples"]
        if self.fits:
            columns.append(f"grows with {group or 'size'} to the power of")
        return Overview(columns, [[*self._names(one, grouped), *self._medians(one)] for one in self.series])

    def _names(self, series: Series, grouped: bool) -> list[str]:
        group = series.x if isinstance(series.x, str) else readable(series.x)
        return [series.name, *([group] if grouped else [])]

    def _percentiles(self, series: Series) -> list[str]:
        latencies = latencies_of(series)
        found = (self.scale.text(latencies.percentile(percent)) for percent in (*PERCENTS, 100))
        return [readable(latencies.total), *found]

    def _medians(self, series: Series) -> list[str]:
        interval = series.interval
        between = f"{self.scale.text(interval.low)} to {self.scale.text(interval.high)}"
        shown = f"{between} ({100 * interval.confidence:.0f} %)" if len(series.samples) > 1 else ""
        found = [self.scale.text(series.median), shown, str(len(series.samples))]
        return [*found, exponent_text(self.fits.get(series.name))] if self.fits else found

    def words(self, only: str | None = None) -> str:
        """What is to be seen, or of one group, for whoever can't see it."""
        kinds = {"lines": "Lines", "costs": "Lines with fits", "bars": "Bars", "curves": "Curves of percentiles"}
        spoken = self._spoken().items()
        parts = (self._group_words(title, group) for title, group in spoken if only in (None, title))
        axis = f", over {self.measure.x_title}" if self.kind in ("lines", "costs") else ""
        return f"{kinds[self.kind or 'bars']}: {self.title}{axis}. {' '.join(parts)} All values are in the table."

    def _spoken(self) -> dict[str, list[Series]]:
        groups = self.groups()
        if self.kind not in ("lines", "costs"):
            return groups
        largest = max(self._places)
        return {title: group for title, group in groups.items() if group[0].x == largest}

    def _group_words(self, title: str, group: Sequence[Series]) -> str:
        if self.kind == "curves":
            said = [f"{one.name} p50 {self._percent(one, 50)}, p99 {self._percent(one, 99)}" for one in group]
        else:
            said = [f"{one.name} {self.scale.text(one.median)}" for one in self.ranked(group)]
        if len(said) > _NAMED_MAX:
            left_out = len(said) - _NAMED_MAX + 1
            said = [*said[: _NAMED_MAX - 1], f"and {left_out} more"]
        return f"{title + ': ' if title else ''}{'; '.join(said)}."

    def _percent(self, series: Series, percent: float) -> str:
        return self.scale.text(latencies_of(series).percentile(percent))


def charts_of(report: Report) -> list[Chart]:
    """One a measure that has anything to show, pictures or a table alone."""
    found = (Chart(report.scenario, measure, _shown(report, measure), _keeps(report)) for measure in report.measures)
    return [chart for chart in found if chart.series]


def contestants_of(report: Report) -> list[dict[str, object]]:
    """What a report says of its contestants, where it says anything."""
    described = report.settings.get("contestants")
    return [one for one in described.values() if "title" in one] if isinstance(described, dict) else []


def exponent_text(grown: Growth | None) -> str:
    """The exponent of a growth with its interval; empty where there is none."""
    if grown is None:
        return ""
    low, high, sure = grown.interval.low, grown.interval.high, 100 * grown.interval.confidence
    return f"{grown.exponent:.2f}, {low:.2f} to {high:.2f} ({sure:.0f} %)"


def latencies_of(series: Series) -> Latencies:
    """Its distribution. Raises ValueError if it has none."""
    if series.latencies is None:
        raise ValueError(f"{series.name} has no latencies")
    return series.latencies


def _shown(report: Report, measure: Measure) -> list[Series]:
    if measure.chart == "curves":
        return [one for one in report.of(measure.key) if one.latencies and one.latencies.total]
    return [one for one in report.of(measure.key) if one.samples]


def _keeps(report: Report) -> dict[str, str]:
    return {str(one["title"]): str(one["keeps"]) for one in contestants_of(report) if "keeps" in one}
