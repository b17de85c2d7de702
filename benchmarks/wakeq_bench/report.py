"""What a scenario has found: figures beside their targets, on the screen and as JSON with the environment."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import psutil
from rich.console import Console
from rich.table import Table
from rich.text import Text

_PACKAGES = ("wakeq", "anyio", "httptools", "httpx", "orjson", "uvicorn", "uvloop")


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Figure:
    """One number that was found, with its unit and, where there is one, its target."""

    name: str
    value: float
    unit: str = ""
    target: Target | None = None

    @property
    def met(self) -> bool | None:
        """Whether it keeps its target; None where there is none."""
        return None if self.target is None else self.target.met_by(self.value)

    def as_json(self) -> dict[str, Any]:
        """For the JSON file."""
        target = None if self.target is None else str(self.target)
        return {"name": self.name, "value": self.value, "unit": self.unit, "target": target, "met": self.met}


@dataclass(frozen=True)
class Overview:
    """A table of its own kind that a scenario shows before its figures."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass
class Report:
    """Everything a scenario hands back."""

    scenario: str
    title: str
    settings: Mapping[str, Any]
    figures: list[Figure] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    overview: Overview | None = None

    def as_json(self) -> dict[str, Any]:
        """For the JSON file."""
        return {
            "scenario": self.scenario,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "environment": environment(),
            "settings": dict(self.settings),
            "figures": [figure.as_json() for figure in self.figures],
            "notes": self.notes,
            "samples": self.samples,
        }


def write_json(report: Report, path: Path) -> None:
    """Write the report with the environment it was made in."""
    path.write_text(json.dumps(report.as_json(), indent=2) + "\n", encoding="utf-8")


def show(report: Report, console: Console) -> None:
    """Print the tables and the notes."""
    if report.overview is not None and report.overview.rows:
        console.print(_overview_table(report.title, report.overview))
    if report.figures:
        console.print(_figures_table("" if report.overview else report.title, report.figures))
    for note in report.notes:
        console.print(Text(f"- {note}"))


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


def environment() -> dict[str, Any]:
    """The machine and the versions that figures are only comparable with."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: _version(name) for name in _PACKAGES},
        "load_average": list(os.getloadavg()),
    }


def cpu_model() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


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
    table.add_column("target", justify="right")
    table.add_column("")
    for figure in figures:
        found = f"{readable(figure.value)} {figure.unit}".strip()
        target = "" if figure.target is None else f"{figure.target} {figure.unit}".strip()
        table.add_row(Text(figure.name), found, target, _verdict(figure))
    return table


def _verdict(figure: Figure) -> Text:
    if figure.met is None:
        return Text("")
    return Text("met", style="green") if figure.met else Text("missed", style="bold red")
