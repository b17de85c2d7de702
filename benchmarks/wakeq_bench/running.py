"""From what was asked for on a command line to results: scenarios with their parameters, run one after the other."""

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wakeq_bench.measure import ProcessGone
from wakeq_bench.noise import Watch
from wakeq_bench.parameters import InvalidParameter, Parameters, filled
from wakeq_bench.peers import PeerUnavailable
from wakeq_bench.processes import ProcessFailed
from wakeq_bench.registry import SCENARIOS, Scenario
from wakeq_bench.report import Missing, Report
from wakeq_bench.results import Results
from wakeq_bench.scenarios.parked import ParkingFailed
from wakeq_bench.scenarios.raw import BrokenAnswer
from wakeq_bench.scenarios.wrk import WrkFailed

EXPECTED = (PeerUnavailable, ProcessFailed, ProcessGone, BrokenAnswer, ParkingFailed, WrkFailed, OSError)
"""What a scenario may fail with; each has a sentence for whoever reads it. All else is shown with its traceback."""


@dataclass(frozen=True)
class Wanted:
    """One scenario and what it is told."""

    scenario: Scenario
    parameters: Parameters

    @property
    def planned_s(self) -> float:
        """About how long it takes."""
        return self.scenario.planned_s(self.parameters)

    @property
    def told(self) -> dict[str, Any]:
        """The parameters, as files of results have them."""
        return self.parameters.model_dump(mode="json")


@dataclass(frozen=True)
class Options:
    """What stands on the command line for all scenarios, or as `SCENARIO.NAME` for one."""

    shared: Mapping[str, Any] = field(default_factory=dict)
    quick: bool = False
    like: Results | None = None


def wanted(names: Sequence[str], options: Options) -> list[Wanted]:
    """What is to be run; an option that none of them takes is refused. Raises InvalidParameter."""
    chosen = [SCENARIOS[name] for name in _names(names, options.like)]
    own = [_own_options(scenario, options.shared) for scenario in chosen]
    for name in options.shared:
        if not any(name.rpartition(".")[2] in given for given in own):
            taken = sorted({parameter for scenario in chosen for parameter in scenario.parameters.model_fields})
            raise InvalidParameter(f"there is no {name!r} here; it takes {', '.join(taken)}")
    return [_wanted(scenario, given, options) for scenario, given in zip(chosen, own, strict=True)]


def left(all_wanted: Sequence[Wanted], results: Results) -> list[Wanted]:
    """Those that have no report in `results` yet. Raises InvalidParameter where that is of something else."""
    found = []
    for one in all_wanted:
        report = results.report(one.scenario.name)
        if report is None:
            found.append(one)
        elif report.parameters != one.told:
            raise InvalidParameter(f"{one.scenario.name}: what is there was measured with other parameters")
    return found


def run(
    all_wanted: Sequence[Wanted],
    results: Results,
    console: Console,
    each: Callable[[Report | None], None] = lambda _: None,
) -> None:
    """Run them, and add what they find to `results`; `each` is called after every one, with its report if it has one.

    One that fails, however it does, is named in `results`, and the others go on. Raises what `each` does.
    """
    started, before_s = time.monotonic(), results.seconds
    if len(all_wanted) > 1:
        console.print(plan(all_wanted))
    for number, one in enumerate(all_wanted):
        # By the pace so far: plans are for a machine as fast as the one that they were made on.
        done_s = sum(earlier.planned_s for earlier in all_wanted[:number])
        pace = (time.monotonic() - started) / done_s if done_s else 1.0
        left_s = pace * sum(later.planned_s for later in all_wanted[number:])
        of_all = f"{number + 1} of {len(all_wanted)}: {one.scenario.name}"
        console.print(f"{of_all}, {duration(one.planned_s)}; in all about {duration(left_s)} left", highlight=False)
        report = _measured(one, results, console)
        results.seconds = round(before_s + time.monotonic() - started, 1)
        each(report)


def plan(all_wanted: Sequence[Wanted]) -> Table:
    """How long each takes, and all of them."""
    table = Table("scenario", "takes about", title="Planned", title_justify="left", show_footer=True)
    table.columns[0].footer, table.columns[1].footer = "all", duration(sum(one.planned_s for one in all_wanted))
    for one in all_wanted:
        table.add_row(one.scenario.name, duration(one.planned_s))
    return table


def _measured(one: Wanted, results: Results, console: Console) -> Report | None:
    watch = Watch(one.scenario.name)
    try:
        report = one.scenario.run(one.parameters, console)
    except EXPECTED as error:
        console.print(f"[red]{escape(str(error))}[/red]", soft_wrap=True)
        results.failed.append(Missing(one.scenario.name, str(error)))
        return None
    except Exception as error:
        # A mistake of ours in one of them is no reason to lose an hour of the others.
        console.print_exception()
        results.failed.append(Missing(one.scenario.name, f"{type(error).__name__}: {error}"))
        return None
    report.parameters = one.told
    results.noise.append(watch.close(report.series))
    results.reports.append(report)
    return report


def command(all_wanted: Sequence[Wanted]) -> str:
    """What runs the same, typed anew."""
    words = ["wakeq", "bench", "run", *(one.scenario.name for one in all_wanted)]
    for one in all_wanted:
        for name, value in one.parameters.model_dump(mode="json", exclude_defaults=True).items():
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            words += ["--set", f"{one.scenario.name}.{name}={text}"]
    return shlex.join(words)


def duration(seconds: float) -> str:
    """So that it can be read: 40 s, 12 min, 3 h 5 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _names(names: Sequence[str], like: Results | None) -> list[str]:
    if like is not None and not names:
        names = [report.scenario for report in like.reports]
    if "all" in names:
        names = list(SCENARIOS)
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        raise InvalidParameter(f"there is no scenario {unknown[0]!r}; there are {', '.join(SCENARIOS)}, and all")
    if not names:
        raise InvalidParameter(f"which scenario? There are {', '.join(SCENARIOS)}, and all")
    return list(dict.fromkeys(names))


def _own_options(scenario: Scenario, shared: Mapping[str, Any]) -> dict[str, Any]:
    """Of the shared options, those that it takes; one with its name in front goes before one without."""
    own: dict[str, Any] = {}
    for name in sorted(shared, key=lambda name: "." in name):
        owner, _, parameter = name.rpartition(".")
        if owner in ("", scenario.name) and parameter in scenario.parameters.model_fields:
            own[parameter] = shared[name]
    return own


def _wanted(scenario: Scenario, own: Mapping[str, Any], options: Options) -> Wanted:
    before = options.like.report(scenario.name) if options.like else None
    layers = [scenario.quick if options.quick else {}, before.parameters if before else {}, own]
    try:
        return Wanted(scenario, filled(scenario.parameters, *layers))
    except InvalidParameter as error:
        raise InvalidParameter(f"{scenario.name}: {error}") from error
