"""Charts as pictures: told apart by marks, dashes and hatches too, so that they can be read without their colours.

A unit of a picture is a pixel at its natural size. There are two layouts: one for a page, and one for a phone, as
narrow as that, with letters of the same size; a page shows either. Text stays text, which can be searched and scaled.
"""

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from wakeq_bench.hdr import Latencies
from wakeq_bench.pages.charts import Chart, latencies_of
from wakeq_bench.report import Series, readable

INK, MUTED, GRID, PAPER = "#1b1f24", "#57606a", "#d8dee4", "#ffffff"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Of Okabe and Ito, who chose them to be told apart by everybody; without their yellow, which paper swallows."""
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))

TINTS = ("#cce3f0", "#faecd0", "#f5e4ed")
_KEPT = {
    "fsync": ("on disk when its publish is confirmed", PALETTE[0], TINTS[0], ""),
    "os": ("written, not synced", PALETTE[4], TINTS[1], "////"),
    "memory": ("in memory alone", PALETTE[3], TINTS[2], "||||"),
}
_PLAIN = ("", PALETTE[0], TINTS[0], "")

_WIDE, _NARROW = 860, 340
_TEXT, _SMALL, _LINE = 12, 11, 15
_TICKS = (50.0, 90.0, 99.0, 99.9, 99.99, 99.999)
_PIXELS_A_INCH = 72
_PNG_SCALE = 2


@dataclass(frozen=True)
class Style:
    """How one series is told from others."""

    color: str
    mark: str
    dashes: Any
    filled: bool


class Styles:
    """Gives a name the same style in all charts, for as many names as anybody could look at."""

    def __init__(self) -> None:
        self._names: dict[str, int] = {}

    def of(self, name: str) -> Style:
        """That of a series."""
        number = self._names.setdefault(name, len(self._names))
        color, mark = PALETTE[number % len(PALETTE)], _MARKS[number % len(_MARKS)]
        return Style(color, mark, _DASHES[number % len(_DASHES)], number < len(PALETTE))


def svg(chart: Chart, styles: Styles, *, group: str | None = None, narrow: bool = False, titled: bool = False) -> str:
    """The picture as SVG, the same for the same chart; bars of one group alone if that is named."""
    with mpl.rc_context(_settings(chart.name)):
        drawn, written = _drawn(chart, styles, group, narrow, titled), BytesIO()
        drawn.savefig(written, format="svg", metadata={"Date": None, "Creator": None, "Title": chart.title})
    return written.getvalue().decode()


def png(chart: Chart, styles: Styles) -> bytes:
    """The picture as PNG, with its title, for screens of twice as many pixels."""
    with mpl.rc_context(_settings(chart.name)):
        drawn, written = _drawn(chart, styles, None, False, True), BytesIO()
        drawn.savefig(written, format="png", dpi=_PNG_SCALE * _PIXELS_A_INCH, metadata={"Software": None})
    return written.getvalue()


def _settings(name: str) -> Any:
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "path.simplify_threshold": 0.5,
        "font.family": "DejaVu Sans",
        "font.size": _TEXT,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": MUTED,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "xtick.labelsize": _SMALL,
        "ytick.labelsize": _SMALL,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "hatch.linewidth": 0.8,
        "legend.frameon": False,
        "legend.fontsize": _SMALL,
        "figure.facecolor": PAPER,
        "axes.facecolor": "none",
    }


def _drawn(chart: Chart, styles: Styles, group: str | None, narrow: bool, titled: bool) -> Figure:
    # In the order of the results, whatever the order in which they are drawn.
    for one in chart.series:
        styles.of(one.name)
    sheet = _Sheet(_NARROW if narrow else _WIDE, chart.title if titled else "")
    if chart.kind == "bars":
        return _bars(chart, sheet, group)
    return (_curves if chart.kind == "curves" else _lines)(chart, styles, sheet)


class _Sheet:
    """A figure that is laid out in pixels from its upper left corner."""

    def __init__(self, width: int, title: str) -> None:
        self.width = width
        self.narrow = width < _WIDE
        self._title = title
        self.top = 44 if title else 12

    def figure(self, height: int) -> Figure:
        """Of that height."""
        figure = Figure(figsize=(self.width / _PIXELS_A_INCH, height / _PIXELS_A_INCH), dpi=_PIXELS_A_INCH)
        if self._title:
            figure.text(16 / self.width, 1 - 16 / height, self._title, fontsize=15, weight="bold", va="top")
        return figure

    def axes(self, figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
        """Axes in that rectangle."""
        whole = figure.get_figheight() * _PIXELS_A_INCH
        return figure.add_axes((left / self.width, 1 - (top + height) / whole, width / self.width, height / whole))


def _handle(style: Style) -> Line2D:
    face = style.color if style.filled else PAPER
    return Line2D([], [], color=style.color, ls=style.dashes, lw=1.8, marker=style.mark, ms=6.5, mfc=face)


# Lines


def _lines(chart: Chart, styles: Styles, sheet: _Sheet) -> Figure:
    lines = chart.lines()
    labels = {name: _line_label(chart, name, 40 if sheet.narrow else 34) for name in lines}
    legend_height = sum(_LINE * (1 + label.count("\n")) + 4 for label in labels.values()) + 12
    left, right = 62, (26 if sheet.narrow else 300)
    plot_height = 260 if sheet.narrow else max(340, legend_height - 40)
    height = sheet.top + plot_height + 52 + (legend_height if sheet.narrow else 0)
    figure = sheet.figure(height)
    axes = sheet.axes(figure, left, sheet.top, sheet.width - left - right, plot_height)
    for name, points in lines.items():
        _line(axes, chart, name, styles.of(name))
        if chart.measure.flat_within is not None and points:
            bounds = points[0].y / (1 + chart.measure.flat_within), points[0].y * (1 + chart.measure.flat_within)
            axes.fill_between([point.x for point in points], *bounds, color=styles.of(name).color, alpha=0.1, lw=0)
    _scales(axes, chart)
    axes.set_xlabel(chart.measure.x_title)
    axes.grid(visible=True)
    place = (0.0, 0.0) if sheet.narrow else ((sheet.width - right + 8) / sheet.width, 1 - sheet.top / height)
    figure.legend(
        [_handle(styles.of(name)) for name in lines], list(labels.values()), bbox_to_anchor=place, handlelength=3.2,
        loc="lower left" if sheet.narrow else "upper left",
    )  # fmt: skip
    return figure


def _line_label(chart: Chart, name: str, width: int) -> str:
    last = chart.lines()[name][-1]
    text = f"{name}: {readable(last.y)}"
    if name in chart.fits:
        text += f", grows as n^{chart.fits[name].exponent:.2f}"
    return textwrap.fill(text, width, break_long_words=False)


def _line(axes: Axes, chart: Chart, name: str, style: Style) -> None:
    points, floor = chart.lines()[name], chart.floor if chart.logarithmic else 0.0
    x, y = [point.x for point in points], [max(floor, point.y) for point in points]
    low = [shown - max(floor, point.low) for shown, point in zip(y, points, strict=True)]
    high = [max(floor, point.high) - shown for shown, point in zip(y, points, strict=True)]
    fitted = name in chart.fits
    axes.errorbar(
        x, y, yerr=[low, high], color=style.color, marker=style.mark, markersize=7,
        markerfacecolor=style.color if style.filled else PAPER, linestyle="none" if fitted else style.dashes,
        linewidth=1.8, elinewidth=1.2, capsize=3,
    )  # fmt: skip
    if fitted:
        sizes, costs = zip(*chart.fitted(name), strict=True)
        axes.plot(sizes, costs, color=style.color, linestyle=style.dashes, linewidth=1.4)


def _scales(axes: Axes, chart: Chart) -> None:
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    if not chart.logarithmic:
        axes.set_ylim(bottom=0)
        return
    points = [point for line in chart.lines().values() for point in line]
    axes.set_xscale("log")
    axes.set_xticks(_apart(sorted({point.x for point in points})))
    axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    axes.xaxis.set_minor_locator(NullLocator())
    _logarithmic(axes, [max(chart.floor, point.y) for point in points])
    if chart.floor:
        shown = [tick for tick in axes.get_yticks() if chart.floor * 2 < tick < axes.get_ylim()[1]]
        axes.set_yticks([chart.floor, *shown], ["0", *map(_plain, shown)])


def _logarithmic(axes: Axes, values: Sequence[float]) -> None:
    """A range of a decade at least, so that what is nearly the same looks it."""
    low, high = min(values), max(values)
    spare = max(0.0, 1 - math.log10(high / low)) / 2 + 0.1
    axes.set_yscale("log")
    axes.set_ylim(low / 10**spare, high * 10**spare)
    few = math.log10(high / low) + 2 * spare < 2.5
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_locator(NullLocator())


def _apart(places: Sequence[float]) -> list[float]:
    """Those of them that are far enough apart for numbers under them."""
    found: list[float] = []
    for place in places:
        if not found or place / found[-1] >= 10 ** ((math.log10(places[-1] / places[0]) or 1) / 9):
            found.append(place)
    return found


def _plain(value: float, _position: int | None = None) -> str:
    return f"{value / 1e6:,.10g} M" if value >= 1e6 else f"{value:,.10g}"


# Bars


def _bars(chart: Chart, sheet: _Sheet, only: str | None) -> Figure:
    groups = {title: group for title, group in chart.groups().items() if only in (None, title)}
    legend = list(groups)[:1] == list(chart.groups())[:1]
    kinds = [kept for kept in _KEPT if legend and kept in {chart.keeps.get(one.name) for one in chart.series}]
    row = 38 if sheet.narrow else 26
    titles = 26 if any(groups) else 0
    above = sheet.top + (len(kinds) * _LINE + 14 if sheet.narrow else 28 if kinds else 0)
    heights = [len(group) * row for group in groups.values()]
    height = above + sum(heights) + len(groups) * (titles + 14)
    figure, top = sheet.figure(height), above
    for (title, group), own in zip(groups.items(), heights, strict=True):
        if titles:
            figure.text(8 / sheet.width, 1 - (top + 6) / height, title, weight="bold", va="top", fontsize=_TEXT)
        left = 8 if sheet.narrow else 286
        axes = sheet.axes(figure, left, top + titles, sheet.width - left - 12, own)
        _bar_group(axes, chart, chart.ranked(group), sheet.narrow)
        top += titles + own + 14
    if kinds:
        handles = [Patch(label=_KEPT[kept][0], **_look(kept)) for kept in kinds]
        place = (0.0 if sheet.narrow else 278 / sheet.width, 1 - (sheet.top - 6) / height)
        figure.legend(handles=handles, loc="upper left", bbox_to_anchor=place, ncols=1 if sheet.narrow else len(kinds))
    return figure


def _look(kept: str | None) -> dict[str, Any]:
    _, color, tint, hatch = _KEPT.get(kept or "", _PLAIN)
    # The hatch is drawn in the edge's colour.
    return {"facecolor": tint, "edgecolor": color, "hatch": hatch, "linewidth": 1.2}


def _bar_group(axes: Axes, chart: Chart, group: Sequence[Series], narrow: bool) -> None:
    points = [chart.point(one) for one in group]
    thick, low = (0.42, 0.2) if narrow else (0.62, 0.0)
    rows = [number + low for number in range(len(group))]
    for row, one, point in zip(rows, group, points, strict=True):
        axes.barh(row, point.y, height=thick, **_look(chart.keeps.get(one.name)))
        axes.errorbar(
            point.y, row, xerr=[[point.y - point.low], [point.high - point.y]],
            fmt="none", color=INK, elinewidth=1.2, capsize=3,
        )  # fmt: skip
        axes.annotate(
            readable(point.y), (max(point.y, point.high), row), (7, 0), textcoords="offset points", va="center",
            fontsize=_SMALL,
        )  # fmt: skip
        samples = [sample / chart.scale.divisor for sample in one.samples] if len(one.samples) > 1 else []
        axes.plot(samples, [row] * len(samples), "o", color=INK, ms=3, mfc=PAPER, mec=INK, mew=0.8)
        if narrow:
            axes.annotate(one.name, (0, row - 0.47), va="center", fontsize=_SMALL)
    axes.set_xlim(
        0, max([*(point.high for point in points), *(point.y for point in points)]) * (1.28 if narrow else 1.18) or 1
    )
    axes.set_ylim(len(group) - 0.5, -0.5)
    axes.set_yticks([] if narrow else rows, [] if narrow else [textwrap.fill(one.name, 44) for one in group])
    axes.tick_params(length=0)
    for label in axes.get_yticklabels():
        label.set_linespacing(0.95)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)


# Curves


def _curves(chart: Chart, styles: Styles, sheet: _Sheet) -> Figure:
    groups = chart.groups()
    columns = 1 if sheet.narrow or len(groups) == 1 else 2
    names = list(dict.fromkeys(one.name for one in chart.series))
    legend_columns = 1 if sheet.narrow else 2
    labels = {name: textwrap.fill(name, 40 if sheet.narrow else 52) for name in names}
    legend_height = 14 + math.ceil(sum(_LINE * (1 + one.count("\n")) + 4 for one in labels.values()) / legend_columns)
    left, gap, title, below = 58, 58, 24, 50
    width = (sheet.width - left - 14 - (columns - 1) * gap) / columns
    plot = 230 if sheet.narrow else 280 if columns == 2 else 340
    rows = math.ceil(len(groups) / columns)
    height = sheet.top + rows * (title + plot + below) + legend_height
    figure = sheet.figure(height)
    values = [seconds / chart.scale.divisor for one in chart.series for seconds in _ends(latencies_of(one))]
    rarest = max(latencies_of(one).total for one in chart.series)
    for number, (name, group) in enumerate(groups.items()):
        row, column = divmod(number, columns)
        axes = sheet.axes(
            figure, left + column * (width + gap), sheet.top + row * (title + plot + below) + title, width, plot
        )
        axes.set_title(name, loc="left", fontsize=_TEXT, weight="bold", pad=8)
        for one in group:
            _curve(axes, chart, one, styles.of(one.name))
        _logarithmic(axes, values)
        _percent_axis(axes, rarest)
    figure.legend(
        [_handle(styles.of(name)) for name in names], list(labels.values()), bbox_to_anchor=(0, 0), loc="lower left",
        ncols=legend_columns, handlelength=3.2,
    )  # fmt: skip
    return figure


def _curve(axes: Axes, chart: Chart, series: Series, style: Style) -> None:
    latencies = latencies_of(series)
    slower, seconds = zip(*latencies.curve(), strict=True)
    # A bucket reaches to the share that the next one begins with, and the last one to the slowest message of all.
    nines = [0.0, *(-math.log10(share) for share in slower[1:]), math.log10(latencies.total)]
    values = [one / chart.scale.divisor for one in (seconds[0], *seconds)]
    shown = [percent for percent in _TICKS if _nines(percent) < nines[-1]]
    axes.plot(nines, values, color=style.color, linestyle=style.dashes, linewidth=1.8)
    axes.plot(
        [*map(_nines, shown), nines[-1]],
        [latencies.percentile(percent) / chart.scale.divisor for percent in (*shown, 100)],
        linestyle="none", marker=style.mark, ms=6.5, mec=style.color, mfc=style.color if style.filled else PAPER,
    )  # fmt: skip


def _percent_axis(axes: Axes, rarest: int) -> None:
    last = math.log10(max(10, rarest))
    ticks = [percent for percent in _TICKS if _nines(percent) <= last]
    axes.set_xlim(0, last * 1.03)
    axes.set_xticks([_nines(percent) for percent in ticks], [f"{percent:g} %" for percent in ticks])
    axes.set_xlabel("of messages are at least as fast")
    axes.grid(visible=True)


def _nines(percent: float) -> float:
    return -math.log10(1 - percent / 100)


def _ends(latencies: Latencies) -> Iterable[float]:
    # The few that are faster than all others would take half of the room.
    return latencies.percentile(10), latencies.percentile(100)
