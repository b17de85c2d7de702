"""What changed from one run to another: ratios with their intervals, and whether they are beyond noise.

Two runs are compared by the samples of their rounds, and a change counts where its interval holds no 1. That interval
knows how rounds of a run differ, not how runs differ: a machine that was slower for the whole of one of them looks like
a change of everything. So machines have to be the same, and the yardstick that each run timed is compared too.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from wakeq_bench.intervals import Interval, ratio_interval
from wakeq_bench.noise import DRIFT_MAX
from wakeq_bench.report import Figure, Report, Series, readable
from wakeq_bench.results import Results

SURE_MIN = 0.9
"""How often an interval has to hold the true ratio to decide anything: what three rounds of each make."""

# Other machines, whose figures say nothing about each other.
_MACHINE = ("cpu", "cores", "governor", "memory_bytes")
# What somebody may have changed to see what it does.
_SOFTWARE = ("kernel", "python")
# How often, and by whom: what is in both runs was still measured alike.
_HARMLESS = ("rounds", "only")
_MEMORY_WITHIN = 0.02
_EPSILON = 1e-9

Direction = Literal["lower", "higher"]
Verdict = Literal["better", "worse", "different", "within noise", "not judged", "now missed", "now met", ""]


class Incomparable(ValueError):
    """Two runs whose figures say nothing about each other; the message says why."""


@dataclass(frozen=True)
class Change:
    """One figure in both runs."""

    scenario: str
    name: str
    unit: str
    before: float
    after: float
    better: Direction | None
    interval: Interval | None = None
    """Of the ratio."""
    kept: tuple[bool, bool] | None = None
    """Whether it met its target in each, where it has one that is not a bound but a number."""

    @property
    def ratio(self) -> float | None:
        """How many times what it was; None where it was nothing."""
        return self.after / self.before if self.before else None

    @property
    def worse_by(self) -> float:
        """By which share; below 0 where it is better, 0 where that can't be said."""
        if self.ratio is None or self.better is None or self.ratio <= 0:
            return 0.0
        return (self.ratio if self.better == "lower" else 1 / self.ratio) - 1

    @property
    def judged(self) -> bool:
        """Whether there were rounds enough to tell a change from noise."""
        return self.interval is not None and self.interval.confidence >= SURE_MIN - _EPSILON

    @property
    def beyond_noise(self) -> bool:
        """Whether it has changed for certain, as far as rounds can tell."""
        return self.judged and self.interval is not None and 1 not in self.interval

    @property
    def verdict(self) -> Verdict:
        """In words."""
        if self.kept is not None and self.kept[0] != self.kept[1]:
            return "now met" if self.kept[1] else "now missed"
        if self.kept is not None or self.before == self.after:
            return ""
        if not self.judged:
            return "not judged"
        if not self.beyond_noise:
            return "within noise"
        if self.better is None:
            return "different"
        return "worse" if self.worse_by > 0 else "better"

    @property
    def changed(self) -> bool:
        """Whether it is worth a look."""
        return self.verdict not in ("", "within noise", "not judged")

    def regressed(self, bound: float) -> bool:
        """Whether it is worse beyond noise, and by more than that share."""
        return self.verdict == "now missed" or (self.beyond_noise and self.worse_by > bound)


@dataclass
class Comparison:
    """What two runs have to say about each other."""

    changes: list[Change] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def regressions(self, bound: float) -> list[Change]:
        """What is worse beyond noise, and by more than that share."""
        return [change for change in self.changes if change.regressed(bound)]

    @property
    def by_chance(self) -> float:
        """How many changes would be beyond noise if nothing had changed at all."""
        return sum(1 - change.interval.confidence for change in self.changes if change.judged and change.interval)


def compare(before: Results, after: Results, *, anyway: bool = False) -> Comparison:
    """Everything that is in both; `anyway` compares machines and settings that differ. Raises Incomparable."""
    others = list(_differing(before.environment, after.environment, _MACHINE))
    if others and not anyway:
        raise Incomparable(f"these runs are from different machines: {'; '.join(others)}")
    found = Comparison(remarks=[*others, *_differing(before.environment, after.environment, _SOFTWARE)])
    found.remarks += _packages(before.environment, after.environment)
    found.remarks += [*_speed(before, after), *_disturbed(before, "first"), *_disturbed(after, "second")]
    refused = []
    for report in before.reports:
        other = after.report(report.scenario)
        if other is None:
            found.remarks.append(f"{report.scenario}: only in the first.")
            continue
        settings = list(_settings(report, other))
        if settings and not anyway:
            refused.append(f"{report.scenario} was measured in another way: {'; '.join(settings)}")
            continue
        found.remarks += [f"{report.scenario}: {setting}" for setting in settings]
        found.remarks += _missing(report, other)
        found.changes += _changes(report, other)
    found.remarks += [
        f"{one.scenario}: only in the second." for one in after.reports if not before.report(one.scenario)
    ]
    if refused and not found.changes:
        raise Incomparable(". ".join(refused))
    if not found.changes:
        raise Incomparable("these runs have no figure in common")
    found.remarks += [f"Left out: {one}." for one in refused]
    return found


def _changes(before: Report, after: Report) -> Iterator[Change]:
    for measure in before.measures:
        others = {(series.name, series.x): series for series in after.of(measure.key)}
        for series in before.of(measure.key):
            other = others.get((series.name, series.x))
            if other is not None and series.samples and other.samples:
                name = ", ".join(part for part in (series.name, _place(series, measure.x_title)) if part)
                yield _change(before.scenario, f"{measure.key}: {name}", measure.unit, series, other, measure.better)
    figures = {figure.name: figure for figure in after.figures}
    for figure in before.figures:
        if figure.name in figures:
            yield _figure_change(before.scenario, figure, figures[figure.name])


def _place(series: Series, title: str) -> str:
    return series.x if isinstance(series.x, str) else f"{readable(series.x)} {title}".strip()


def _change(scenario: str, name: str, unit: str, before: Series, after: Series, better: Direction) -> Change:
    try:
        interval = ratio_interval(after.samples, before.samples)
    except ValueError:
        interval = None
    return Change(scenario, name, unit, before.median, after.median, better, interval)


def _figure_change(scenario: str, before: Figure, after: Figure) -> Change:
    target = after.target or before.target
    if target is not None and target.comparison == "==":
        kept = target.met_by(before.value), target.met_by(after.value)
        return Change(scenario, before.name, before.unit, before.value, after.value, None, kept=kept)
    better: Direction | None = None if target is None else "lower" if target.comparison == "<=" else "higher"
    interval = _quotient(after.interval, before.interval)
    return Change(scenario, before.name, before.unit, before.value, after.value, better, interval)


def _quotient(of: Interval | None, by: Interval | None) -> Interval | None:
    """Holds the ratio where each holds its own, so its confidence is what both leave together."""
    if of is None or by is None or by.low <= 0 or of.low < 0:
        return None
    return Interval(of.low / by.high, of.high / by.low, max(0.0, of.confidence + by.confidence - 1))


def _differing(before: dict[str, Any], after: dict[str, Any], names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        old, new = before.get(name), after.get(name)
        if name == "memory_bytes" and old and new and abs(new / old - 1) <= _MEMORY_WITHIN:
            continue
        if old != new:
            yield f"{name.replace('_', ' ')} {_shown(old)}, then {_shown(new)}"


def _packages(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    old, new = (dict(environment.get("packages") or {}) for environment in (before, after))
    return list(_differing(old, new, tuple(dict.fromkeys([*old, *new]))))


def _settings(before: Report, after: Report) -> Iterator[str]:
    names = [name for name in dict.fromkeys([*before.parameters, *after.parameters]) if name not in _HARMLESS]
    return _differing(before.parameters, after.parameters, tuple(names))


def _speed(before: Results, after: Results) -> Iterator[str]:
    old, new = (
        min((one for noise in results.noise for one in noise.yardstick_s), default=0.0) for results in (before, after)
    )
    if old and new and abs(new / old - 1) > DRIFT_MAX:
        share = 100 * abs(new / old - 1)
        yield (
            f"A fixed piece of work takes {share:.0f} % {'longer' if new > old else 'less'} in the second: "
            "the machine itself was not as fast."
        )


def _disturbed(results: Results, which: str) -> list[str]:
    return [f"The {which} was not on a quiet machine. {remark}" for remark in results.remarks()]


def _missing(before: Report, after: Report) -> Iterator[str]:
    for one, other, where in ((before, after, "first"), (after, before, "second")):
        names = {series.name for series in other.series}
        alone = list(dict.fromkeys(series.name for series in one.series if series.name not in names))
        if alone:
            yield f"{one.scenario}: only in the {where}: {'; '.join(alone)}."


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(_shown, value))
    if isinstance(value, float | int) and not isinstance(value, bool):
        return readable(value)
    return "unknown" if value is None else str(value)
