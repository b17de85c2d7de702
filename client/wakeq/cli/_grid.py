"""Tables that fit a terminal, and aren't cut where there is none."""

import sys
from collections.abc import Iterable, Sequence

import typer
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from wakeq.cli import _values

# What is piped is as wide as it has to be.
_ENDLESS = 100_000
_NAME_LEAST = 12


def table(*columns: str, numbers: Sequence[str] = ()) -> Table:
    """An empty one; the first column, of names, is folded where there is no room."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    first, *others = columns
    made.add_column(first, overflow="fold")
    for column in others:
        made.add_column(column, justify="right" if column in numbers else "left", no_wrap=True)
    return made


def pairs(rows: Iterable[tuple[str, str]]) -> Table:
    """What something is, a line each."""
    made = Table.grid(padding=(0, 2))
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(name, text(value))
    return made


def text(value: str) -> Text:
    """As it is, whatever is in it."""
    return Text(_values.visible(value))


def show(*renderables: RenderableType) -> None:
    """Print them, one below the other."""
    typer.echo("\n".join(line.rstrip() for line in rendered(*renderables).split("\n")))


def rendered(*renderables: RenderableType) -> str:
    """As stdout has it. Where a terminal is too narrow, lines are longer: better than a figure that is cut."""
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else _ENDLESS)
    tables = [one for one in renderables if isinstance(one, Table)]
    console.width = max(console.width, *(_least_width(console, table) for table in tables))
    with console.capture() as captured:
        console.print(*renderables, sep="\n")
    return captured.get().rstrip("\n")


def _least_width(console: Console, table: Table) -> int:
    """That with its names folded as far as they may be."""
    longest = max((cell_len(str(cell)) for cell in table.columns[0].cells), default=0)
    whole = Measurement.get(console, console.options.update(width=_ENDLESS), table).maximum
    return whole - longest + min(longest, _NAME_LEAST)
