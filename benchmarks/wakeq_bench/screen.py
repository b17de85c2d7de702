"""Reports on a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

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
        found = f"{readable(figure.value)} {figure.unit}".strip()
        target = "" if figure.target is None else f"{figure.target} {figure.unit}".strip()
        table.add_row(Text(figure.name), found, interval_text(figure), target, _verdict(figure))
    return table


def interval_text(figure: Figure) -> str:
    """Its interval and how often such a one holds the true value."""
    if figure.interval is None:
        return ""
    low, high = readable(figure.interval.low), readable(figure.interval.high)
    return f"{low} to {high} ({100 * figure.interval.confidence:.0f} %)"


def _verdict(figure: Figure) -> Text:
    if figure.met is None:
        return Text("")
    word, style = ("met", "green") if figure.met else ("missed", "bold red")
    return Text(f"{word}, just" if figure.open else word, style=style)
