"""Reports on a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from wakeq_bench.comparing import Change, Comparison
from wakeq_bench.report import Figure, Overview, Report, readable


def show(report: Report, console: Console) -> None:
    """Print the tables and the notes."""
    if report.overview is not None and report.overview.rows:
        console.print(_overview_table(report.title, report.overview))
    if report.figures:
        console.print(_figures_table("" if report.overview else report.title, report.figures))
    for missing in report.missing:
        console.print(Text(f"- Not measured: {missing.name}. {missing.reason}"))
    for note in report.notes:
        console.print(Text(f"- {note}"))


def _overview_table(title: str, overview: Overview) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(overview.columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in overview.rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _figures_table(title: str, figures: Sequence[Figure]) -> Table:
    table = Table(title=title or None, title_justify="left")
    table.add_column("figure")
    table.add_column("found", justify="right")
    table.add_column("interval", justify="right")
    table.add_column("target", justify="right")
    table.add_column("")
    for figure in figures:
        style = "" if figure.met is None else "green" if figure.met else "bold red"
        verdict = Text(figure.verdict, style=style)
        table.add_row(Text(figure.name), figure.found_text, figure.interval_text, figure.target_text, verdict)
    return table


def show_comparison(comparison: Comparison, bound: float, console: Console, *, everything: bool = False) -> None:
    """Print what changed beyond noise, or everything, and what has to be known besides."""
    for scenario in dict.fromkeys(change.scenario for change in comparison.changes):
        changes = [
            change for change in comparison.changes if change.scenario == scenario and (everything or change.changed)
        ]
        if changes:
            console.print(_changes_table(scenario, changes, bound))
    for remark in comparison.remarks:
        console.print(Text(f"- {remark}"))
    judged = [change for change in comparison.changes if change.judged]
    beyond = sum(change.beyond_noise for change in judged)
    console.print(
        f"{beyond} of {len(judged)} that could be judged changed beyond noise; about {comparison.by_chance:.0f} would "
        f"by chance alone. Of {len(comparison.changes) - len(judged)} there are too few rounds to judge.",
        highlight=False,
        soft_wrap=True,
    )


def _changes_table(title: str, changes: Sequence[Change], bound: float) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("figure")
    for column in ("before", "after", "times", "interval"):
        table.add_column(column, justify="right")
    table.add_column("")
    for change in changes:
        regressed = change.regressed(bound)
        style = "bold red" if regressed else "green" if change.verdict in ("better", "now met") else ""
        unit = f" {change.unit}" if change.unit else ""
        table.add_row(
            Text(change.name),
            f"{readable(change.before)}{unit}",
            f"{readable(change.after)}{unit}",
            "" if change.ratio is None else f"{change.ratio:.3f}",
            _ratio_interval_text(change),
            Text(change.verdict, style=style),
        )
    return table


def _ratio_interval_text(change: Change) -> str:
    if change.interval is None or not change.interval.confidence:
        return ""
    return f"{change.interval.low:.3f} to {change.interval.high:.3f} ({100 * change.interval.confidence:.0f} %)"
