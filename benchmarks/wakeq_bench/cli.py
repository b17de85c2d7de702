"""The `wakeq bench` command: parses, calls, prints what was found."""

import os
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wakeq_bench import results as result_files
from wakeq_bench.comparing import Incomparable, compare
from wakeq_bench.environment import environment, same_machine
from wakeq_bench.parameters import InvalidParameter
from wakeq_bench.processes import ending_on_signals
from wakeq_bench.registry import SCENARIOS, Scenario
from wakeq_bench.report import Report
from wakeq_bench.results import NotResults, Results
from wakeq_bench.running import Options, command, duration, left, wanted
from wakeq_bench.running import run as run_all
from wakeq_bench.screen import show, show_comparison

app = typer.Typer(no_args_is_help=True, help="Measure what polling costs, and what waiting costs.")


def _settings(given: list[str] | None) -> list[str]:
    for setting in given or []:
        if not all(setting.partition("=")):
            raise typer.BadParameter(f"{setting!r} is not NAME=VALUE, as in consumers=2,20,100")
    return given or []


def _writable(path: Path | None) -> Path | None:
    # Asked before an hour of measuring, not after. A file of results is put in the place of the one before.
    if path is not None and ((path.exists() and not path.is_file()) or not os.access(path.resolve().parent, os.W_OK)):
        raise typer.BadParameter(f"{path} cannot be written")
    return path


def _output(path: Path) -> Path:
    if path.suffix and path.suffix not in (".html", ".md"):
        raise typer.BadParameter(f"{path} is neither a page (.html) nor tables (.md) nor a folder")
    if path.suffix:
        _writable(path)
    elif path.exists() and not path.is_dir():
        raise typer.BadParameter(f"{path} is a file, not a folder")
    return path


Like = Annotated[
    Path | None,
    typer.Option(metavar="FILE", exists=True, dir_okay=False, help="Run again what that file of --json has."),
]
Json = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", dir_okay=False, callback=_writable, help="Write samples and all else there."
    ),
]


@app.command("list")
def list_(scenario: Annotated[str | None, typer.Argument(help="Show what this one can be told.")] = None) -> None:
    """Show the scenarios, or what one of them can be told."""
    console = Console()
    if scenario is None:
        console.print(_scenarios())
        return
    if scenario not in SCENARIOS:
        raise typer.BadParameter(f"there is no scenario {scenario!r}; there are {', '.join(SCENARIOS)}")
    console.print(_parameters(SCENARIOS[scenario]))


@app.command()
def run(
    scenario: Annotated[
        list[str] | None, typer.Argument(help="Scenarios, as `wakeq bench list` shows; or all.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="How often each is measured, in turns.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Length of each window.")] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="CONTESTANT", help="Only these; repeatable.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", callback=_settings, help="Another parameter; repeatable."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="As short as it goes: to see it work, not to quote.")] = False,
    like: Like = None,
    json: Json = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep what the file of --json has already, and run the rest.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 where a figure misses its target.")] = False,
) -> None:
    """Measure, and show each figure beside its target."""
    shared: dict[str, Any] = dict(part.split("=", 1) for part in setting or [])
    named = {"rounds": rounds, "seconds": seconds, "only": only}
    shared |= {name: value for name, value in named.items() if value not in (None, [])}
    progress = Console(stderr=True)
    try:
        chosen = wanted(scenario or [], Options(shared, quick, result_files.read(like) if like else None))
        results = _begun(json) if resume else None
        if results is None:
            results = Results(command=command(chosen))
        with ending_on_signals():
            run_all(left(chosen, results), results, progress, lambda report: _take(report, results, json))
    except (InvalidParameter, NotResults) as error:
        raise typer.BadParameter(str(error)) from error
    except OSError as error:
        _fail(str(error), error)
    for remark in results.remarks():
        progress.print(f"[yellow]Not a quiet machine.[/yellow] {escape(remark)}", soft_wrap=True)
    if results.failed:
        raise typer.Exit(1)
    if check and any(report.missed() for report in results.reports):
        raise typer.Exit(1)


@app.command("report")
def report_(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", exists=True, dir_okay=False, help="Files of `run --json`.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            metavar="PATH",
            callback=_output,
            help="A page (.html), tables (.md), or a folder with these and each chart as SVG and PNG.",
        ),
    ] = Path("bench-report"),
) -> None:
    """Make a page of what was found, with charts, which needs nothing but itself; and pictures."""
    results = [(path.name, _read(path)) for path in files]
    try:
        # An extra: who only measures needs neither matplotlib nor Jinja.
        from wakeq_bench.pages import page  # noqa: PLC0415
    except ImportError as error:
        _fail(f"A report needs {error.name}, which is not installed. Try `pip install 'wakeq[bench]'`.", error)
    try:
        written = page.write([page.Run(*one) for one in results], output)
    except page.NothingToReport as error:
        raise typer.BadParameter(str(error)) from error
    except OSError as error:
        _fail(str(error), error)
    for path in written:
        typer.echo(path)


@app.command("compare")
def compare_(
    before: Annotated[
        Path, typer.Argument(metavar="BEFORE", exists=True, dir_okay=False, help="A file of `run --json`.")
    ],
    after: Annotated[Path, typer.Argument(metavar="AFTER", exists=True, dir_okay=False, help="Another one.")],
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 where a figure is worse than --bound.")] = False,
    bound: Annotated[float, typer.Option(min=0, metavar="PERCENT", help="How much worse is a regression.")] = 10.0,
    everything: Annotated[bool, typer.Option("--all", help="Show what has not changed, too.")] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Though machines or settings differ.")] = False,
) -> None:
    """Show what changed from one run to another, and which changes are beyond noise."""
    try:
        found = compare(_read(before), _read(after), anyway=anyway)
    except Incomparable as error:
        raise typer.BadParameter(f"{error}. --anyway compares them nevertheless.") from error
    show_comparison(found, bound / 100, Console(), everything=everything)
    regressions = found.regressions(bound / 100)
    if check and regressions:
        _fail(f"{len(regressions)} worse beyond noise, and by more than {bound:g} %.")


def _read(path: Path) -> Results:
    try:
        return result_files.read(path)
    except (NotResults, OSError) as error:
        raise typer.BadParameter(str(error)) from error


def _fail(sentence: str, error: Exception | None = None) -> NoReturn:
    Console(stderr=True).print(f"[red]{escape(sentence)}[/red]", soft_wrap=True)
    raise typer.Exit(1) from error


def _begun(json: Path | None) -> Results | None:
    """What an interrupted run has written; None where there is nothing yet. Raises NotResults, OSError."""
    if json is None:
        raise typer.BadParameter("--resume needs the file of --json that was begun")
    if not json.exists():
        return None
    results = result_files.read(json)
    if not same_machine(results.environment, environment()):
        raise typer.BadParameter(f"{json} was begun on another machine, or with other versions")
    results.failed.clear()
    return results


def _take(report: Report | None, results: Results, json: Path | None) -> None:
    """Show it; written after each, so that what becomes of a later one doesn't lose it."""
    if report is not None:
        show(report, Console())
    if json is not None:
        result_files.write(results, json)


def _scenarios() -> Table:
    table = Table("scenario", "what it measures", "takes about")
    for scenario in SCENARIOS.values():
        table.add_row(scenario.name, scenario.summary, duration(scenario.planned_s(scenario.parameters())))
    return table


def _parameters(scenario: Scenario) -> Table:
    table = Table("parameter", "default", "what it is", title=scenario.summary, title_justify="left")
    for name, field in scenario.parameters.model_fields.items():
        default = ",".join(map(str, field.default)) if isinstance(field.default, list) else str(field.default)
        table.add_row(name, default, escape(field.description or ""))
    return table
