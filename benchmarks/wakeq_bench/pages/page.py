"""The report of one or more runs: a page that needs nothing but itself, its tables as Markdown, and its pictures."""

import base64
import gzip
import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2

from wakeq_bench.pages.charts import Chart, charts_of, contestants_of
from wakeq_bench.pages.drawing import Styles, png, svg
from wakeq_bench.pages.inlining import inlined
from wakeq_bench.report import Figure, Overview, Report, readable
from wakeq_bench.results import Results
from wakeq_bench.running import duration

PAGE, TABLES = "report.html", "report.md"


class NothingToReport(ValueError):
    """Results without a report in them."""


@dataclass(frozen=True)
class Run:
    """One file of results, by the name that a reader knows it by."""

    name: str
    results: Results

    @property
    def machine(self) -> str:
        """Where it was measured, in a sentence's part."""
        found = self.results.environment
        cores = found.get("cores") or "unknown"
        return f"{cores} cores of {found.get('cpu') or 'an unknown processor'}"

    @property
    def system(self) -> str:
        """What it was measured with."""
        found = self.results.environment
        wakeq = (found.get("packages") or {}).get("wakeq")
        parts = [found.get("kernel"), found.get("python"), f"wakeq {wakeq}" if wakeq else None]
        return ", ".join(str(part) for part in parts if part)

    @property
    def started(self) -> str:
        """When."""
        return f"{self.results.started:%Y-%m-%d %H:%M} UTC"

    @property
    def took(self) -> str:
        """How long."""
        return duration(self.results.seconds)

    @property
    def once(self) -> list[str]:
        """Scenarios of which nothing was measured twice: there is nothing to say how far they may be off."""
        measured = [report for report in self.results.reports if report.series]
        return [one.scenario for one in measured if max(len(series.samples) for series in one.series) == 1]

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Its environment, a line each."""
        return list(_flat(self.results.environment))

    @cached_property
    def raw(self) -> str:
        """Its file, packed, as an address that holds all of it."""
        packed = gzip.compress(self.results.model_dump_json().encode(), mtime=0)
        return f"data:application/gzip;base64,{base64.b64encode(packed).decode()}"


@dataclass(frozen=True)
class Picture:
    """A chart and its elements of the page, in both layouts."""

    chart: Chart
    elements: list[str]


@dataclass(frozen=True)
class Section:
    """One scenario of one run."""

    run: Run
    report: Report
    anchor: str
    title: str
    pictures: list[Picture]
    tables: list[Chart]
    """Measures that have numbers and no picture."""

    @property
    def settings(self) -> list[tuple[str, str]]:
        """What the scenario was told, and what it told its contestants all alike."""
        others = {name: value for name, value in self.report.settings.items() if name != "contestants"}
        return list(_flat({**others, **self.report.parameters}))

    @property
    def contestants(self) -> list[dict[str, Any]]:
        """Who took part, with versions and settings."""
        return [dict(one) for one in contestants_of(self.report)]


@dataclass(frozen=True)
class Summary:
    """How many figures keep their targets, and which don't."""

    targets: int
    missed: list[tuple[Section, Figure]]

    @property
    def sentence(self) -> str:
        """In words."""
        if not self.targets:
            return "None of these figures has a target."
        kept = self.targets - len(self.missed)
        if not self.missed:
            return f"All {self.targets} figures that have a target meet it." if kept > 1 else "The one target is met."
        return f"Of {self.targets} figures that have a target, {kept} meet it and {len(self.missed)} miss it."


def page(runs: Sequence[Run]) -> str:
    """The page. Raises NothingToReport."""
    sections = _sections(runs)
    drawn = _Pictures(Styles())
    shown = [drawn.section(section) for section in sections]
    return _environment().get_template("report.html.j2").render(**_values(runs, shown))


def tables(runs: Sequence[Run], *, beside_pictures: bool = False) -> str:
    """Figures and overviews as Markdown, with the pictures of its folder if there are. Raises NothingToReport."""
    values = _values(runs, _sections(runs))
    return _environment().get_template("report.md.j2").render(beside_pictures=beside_pictures, **values)


def pictures(runs: Sequence[Run]) -> Iterator[tuple[str, str, bytes]]:
    """Of each chart its name, SVG and PNG. Raises NothingToReport."""
    styles = Styles()
    for section in _sections(runs):
        for chart in charts_of(section.report):
            if chart.kind is not None:
                name = f"{section.anchor}-{chart.measure.key}"
                yield name, _as_file(svg(chart, styles, titled=True)), png(chart, styles)


def write(runs: Sequence[Run], output: Path) -> list[Path]:
    """A page (`.html`), tables (`.md`) or a folder with these and all pictures. Raises NothingToReport, OSError."""
    if output.suffix in (".html", ".md"):
        output.write_text((page if output.suffix == ".html" else tables)(runs), encoding="utf-8")
        return [output]
    texts = {PAGE: page(runs), TABLES: tables(runs, beside_pictures=True)}
    output.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (output / name).write_text(text, encoding="utf-8")
    written = [output / name for name in texts]
    for name, drawn, dots in pictures(runs):
        written += [output / f"{name}.svg", output / f"{name}.png"]
        written[-2].write_text(drawn, encoding="utf-8")
        written[-1].write_bytes(dots)
    return written


class _Pictures:
    def __init__(self, styles: Styles) -> None:
        self._styles = styles

    def section(self, section: Section) -> Section:
        """With its pictures drawn."""
        charts = charts_of(section.report)
        drawn = [self._picture(section, chart) for chart in charts if chart.kind is not None]
        return Section(
            section.run, section.report, section.anchor, section.title, drawn, [one for one in charts if not one.kind]
        )

    def _picture(self, section: Section, chart: Chart) -> Picture:
        # Bars of many groups would be higher than a sheet of paper.
        groups = list(chart.groups()) if chart.kind == "bars" else [None]
        elements = [
            inlined(
                svg(chart, self._styles, group=group, narrow=layout == "narrow"),
                f"{section.anchor}-{chart.measure.key}-{layout}-{number}",
                chart.words(group),
                layout,
            )
            for number, group in enumerate(groups, 1)
            for layout in ("wide", "narrow")
        ]
        return Picture(chart, elements)


def _sections(runs: Sequence[Run]) -> list[Section]:
    found: list[Section] = []
    for run in runs:
        for report in run.results.reports:
            times = sum(section.report.scenario == report.scenario for section in found)
            again = sum(one.scenario == report.scenario for other in runs for one in other.results.reports) > 1
            anchor = report.scenario + (f"-{times + 1}" if times else "")
            title = f"{report.title} ({run.name})" if again else report.title
            found.append(Section(run, report, anchor, title, [], charts_of(report)))
    if not found:
        names = ", ".join(run.name for run in runs)
        raise NothingToReport(f"{names} has no scenario in it: its run ended before the first was over")
    # What waiting costs is what everybody comes for.
    return sorted(found, key=lambda section: section.report.scenario != "idle")


def _values(runs: Sequence[Run], sections: Sequence[Section]) -> dict[str, Any]:
    judged = [
        (section, figure) for section in sections for figure in section.report.figures if figure.target is not None
    ]
    return {
        "runs": runs,
        "sections": sections,
        "summary": Summary(len(judged), [(section, figure) for section, figure in judged if not figure.met]),
        "machines": len({run.machine for run in runs}),
        "several": len(runs) > 1,
    }


def _environment() -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("wakeq_bench.pages"),
        autoescape=jinja2.select_autoescape(("html", "html.j2")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"cell": _cell, "flat": _flat, "target": _target, "classes": _classes, "prose": _prose}
    return templates


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}".replace("_", " "), _text(value)


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float | int):
        return readable(value)
    return "unknown" if value is None else str(value)


def _classes(content: Overview) -> list[str]:
    """Of its columns: numbers stand at the right, words at the left."""
    return [
        "" if any(cell[:1].isdigit() for cell in column) or not any(column) else "text"
        for column in zip(*content.rows, strict=True)
    ]


def _prose(text: str) -> str:
    """A sentence of the results, with what stands between backticks as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _target(figure: Figure) -> str:
    if figure.target is None:
        return ""
    return figure.target_text.replace("<=", "at most").replace(">=", "at least").replace("==", "exactly")


def _cell(text: str) -> str:
    """For a table in Markdown."""
    return text.replace("|", "\\|")


def _as_file(drawn: str) -> str:
    """In pixels, as other pictures are, and with letters of whoever looks at it."""
    return drawn.replace("'DejaVu Sans'", "system-ui, 'DejaVu Sans', sans-serif").replace('pt" ', '" ', 2)
