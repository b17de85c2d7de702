"""The file of a run: where, when and how it was measured, every sample, and what it takes to run it again."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wakeq_bench.environment import environment
from wakeq_bench.noise import Noise
from wakeq_bench.report import Missing, Report


class NotResults(ValueError):
    """A file that isn't one of these."""


class Results(BaseModel):
    """One run of one or more scenarios."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    started: datetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    seconds: float = 0.0
    command: str = "wakeq bench run"
    """Runs the same again."""
    environment: dict[str, Any] = Field(default_factory=environment)
    noise: list[Noise] = Field(default_factory=list)
    reports: list[Report] = Field(default_factory=list)
    failed: list[Missing] = Field(default_factory=list)
    """Scenarios that were to be run and ended without a report."""

    def remarks(self) -> list[str]:
        """What may have disturbed the run, a sentence a scenario; none on a quiet machine."""
        return [f"During {one.scenario}, {'; '.join(remarks)}." for one in self.noise if (remarks := one.remarks())]

    def report(self, scenario: str) -> Report | None:
        """Of one scenario, if it was run."""
        return next((report for report in self.reports if report.scenario == scenario), None)


def write(results: Results, path: Path) -> None:
    """Write the file, whole or not at all: what stood there stays when this is cut off. Raises OSError."""
    # Of a link, what it leads to; and the new file beside it, since a rename does not cross file systems.
    path = path.resolve()
    new = path.with_name(f".{path.name}.new")
    new.write_text(results.model_dump_json(indent=1) + "\n", encoding="utf-8")
    new.replace(path)


def read(path: Path) -> Results:
    """Read one. Raises NotResults, OSError."""
    try:
        return Results.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        where = f" at {'.'.join(map(str, first['loc']))}: {first['msg']}" if first else ""
        raise NotResults(f"{path} is not a file of `wakeq bench run --json`{where}") from error
