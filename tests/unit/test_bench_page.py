"""The page of a run: everything is in it, everybody can read it, and it asks for nothing from anywhere."""

import base64
import gzip
import re
import shutil
import struct
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from wakeq_bench import cli
from wakeq_bench import results as result_files
from wakeq_bench.hdr import Latencies
from wakeq_bench.pages import page
from wakeq_bench.pages.charts import Chart, charts_of
from wakeq_bench.pages.drawing import Styles, svg
from wakeq_bench.report import Measure, Series
from wakeq_bench.results import Results

KEPT = Path(__file__).parents[1] / "recordings" / "bench-results.json"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
VOID = {"meta", "link", "br", "img", "hr", "input"}

invoke = CliRunner().invoke


class Elements(HTMLParser):
    """The elements of a page; fails on one that isn't closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.data: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"{tag} has an attribute twice"
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.data.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def results() -> Results:
    return result_files.read(KEPT)


@pytest.fixture(scope="module")
def text(results: Results) -> str:
    return page.page([page.Run("bench-results.json", results)])


@pytest.fixture(scope="module")
def elements(text: str) -> Elements:
    return Elements(text)


def test_each_kind_of_chart_is_there_in_both_layouts(results: Results, elements: Elements) -> None:
    kinds = {chart.kind for report in results.reports for chart in charts_of(report)}
    assert kinds == {"lines", "costs", "bars", "curves", None}
    drawn = [chart for report in results.reports for chart in charts_of(report) if chart.kind]
    assert len(elements.all("figure")) == len(drawn)
    parts = sum(len(chart.groups()) if chart.kind == "bars" else 1 for chart in drawn)
    assert Counter(one["class"] for one in elements.all("svg")) == {"wide": parts, "narrow": parts}


def test_it_asks_for_nothing_from_anywhere(text: str, elements: Elements) -> None:
    assert not elements.all("script")
    assert not elements.all("iframe")
    for name, attributes in elements.found:
        for attribute in ("src", "srcset", "href", "xlink:href", "poster", "action", "data"):
            value = attributes.get(attribute) or "#"
            assert value.startswith(("#", "data:")), (name, attribute, value)
    assert all(address.startswith("#") for address in re.findall(r"url\(([^)]*)\)", text))
    assert "@import" not in text
    assert "://" not in re.sub(r"`[^`]*`", "", text)


def test_names_are_unique_and_what_refers_to_them_finds_them(text: str, elements: Elements) -> None:
    names = Counter(attributes["id"] for _, attributes in elements.found if "id" in attributes)
    assert max(names.values()) == 1
    referred = [str(attributes.get("href")) for _, attributes in elements.found if "href" in attributes]
    referred += re.findall(r"url\(([^)]*)\)", text)
    labels = [str(attributes["aria-labelledby"]) for _, attributes in elements.found if "aria-labelledby" in attributes]
    assert {one.removeprefix("#") for one in referred if one.startswith("#")} | set(labels) <= set(names)


def test_every_picture_is_said_in_words_and_has_a_table(elements: Elements) -> None:
    for element in elements.all("svg"):
        assert element["role"] == "img"
        assert re.match(r"(Lines|Lines with fits|Bars|Curves of percentiles): .{40,}", str(element["aria-label"]))
    assert elements.data.count("The same in numbers") == len(elements.all("figure"))
    assert all(one.get("scope") in ("col", "row") for one in elements.all("th"))


def test_headings_go_down_step_by_step(elements: Elements) -> None:
    levels = [int(name[1]) for name, _ in elements.found if re.fullmatch(r"h\d", name)]
    assert levels[0] == levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_what_was_found_stands_beside_its_target_in_words(results: Results, elements: Elements) -> None:
    said = " ".join(elements.data)
    for figure in (figure for report in results.reports for figure in report.figures):
        assert figure.name in said
        assert figure.found_text in said
    verdicts = [attributes["class"] for attributes in elements.all("td") if "verdict" in str(attributes.get("class"))]
    assert {"verdict met", "verdict missed", "verdict none"} == set(verdicts)
    assert "met, just" in elements.data
    assert "figures that have a target" in said


def test_where_how_and_who_is_missing_are_said(results: Results, elements: Elements) -> None:
    said = " ".join(elements.data)
    for part in (
        "AMD EPYC 7B13", "CPython 3.11.7", "uvloop", results.command, "client==4.5", "A remark.",
        "Not measured: ElasticMQ.", "Not measured: requests.", "Not a quiet machine.", "2026-11-28 09:30 UTC",
    ):  # fmt: skip
        assert part in said
    assert said.index("Idle for 120 s") < said.index("From publish to ack"), "the headline comes first"


def test_the_page_holds_the_results_that_it_was_made_of(results: Results, elements: Elements) -> None:
    (address,) = [str(one["href"]) for one in elements.all("a") if "download" in one]
    packed = base64.b64decode(address.removeprefix("data:application/gzip;base64,"))
    assert Results.model_validate_json(gzip.decompress(packed)) == results


def test_it_can_be_read_in_the_dark_in_print_and_on_a_phone(text: str) -> None:
    for rule in ("prefers-color-scheme: dark", "@media print", "max-width: 40rem", 'name="viewport"'):
        assert rule in text
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert not re.findall(r"#[0-9a-f]{6}\b", drawn), "colours are the page's"
    assert "stroke-dasharray" in drawn
    assert "<pattern" in drawn


def test_the_same_results_make_the_same_page(results: Results, text: str) -> None:
    assert page.page([page.Run("bench-results.json", results)]) == text


@pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [320, 1280])
def test_a_browser_has_nothing_to_complain_of(text: str, width: int, tmp_path: Path) -> None:
    measuring = (
        "<script>addEventListener('load', () => {"
        "const wide = document.documentElement.scrollWidth;"
        "const shown = [...document.querySelectorAll('svg')].filter(one => one.getClientRects().length).length;"
        "document.body.dataset.found = `${wide} ${shown} ${document.compatMode}`})</script>"
    )
    # Chromium's own window is never narrower than 500, a frame is.
    (tmp_path / "report.html").write_text(text.replace("</head>", f"{measuring}</head>"), encoding="utf-8")
    frame = f'<!doctype html><title>-</title><iframe src="report.html" width="{width}" height="800"></iframe>'
    frame += (
        "<script>addEventListener('load', () => { document.title ="
        " document.querySelector('iframe').contentDocument.body.dataset.found })</script>"
    )
    (tmp_path / "frame.html").write_text(frame, encoding="utf-8")
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
        "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,900", "--dump-dom",
        (tmp_path / "frame.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in done.stderr
    scroll, shown, mode = re.findall(r"<title>(\d+) (\d+) (\w+)</title>", done.stdout)[0]
    assert int(scroll) <= width, "nothing reaches over the edge"
    assert int(shown) == text.count("<svg ") / 2, "one layout of each chart"
    assert mode == "CSS1Compat"


def test_a_folder_has_the_page_the_tables_and_each_chart_as_pictures(results: Results, tmp_path: Path) -> None:
    answer = invoke(cli.app, ["report", str(KEPT), "--output", str(tmp_path / "found")])
    assert answer.exit_code == 0, answer.output
    written = {path.name for path in (tmp_path / "found").iterdir()}
    names = {chart.name for report in results.reports for chart in charts_of(report) if chart.kind}
    assert written == {"report.html", "report.md"} | {f"{name}.{kind}" for name in names for kind in ("svg", "png")}
    assert {Path(line).name for line in answer.output.split()} == written
    beside = re.findall(r"!\[(?:Lines|Bars|Curves)[^]]*\]\(([^)]*)\)", (tmp_path / "found" / "report.md").read_text())
    assert sorted(beside) == sorted(f"{name}.svg" for name in names)
    for name in names:
        root = ElementTree.parse(tmp_path / "found" / f"{name}.svg").getroot()
        assert (root.get("width"), root.get("viewBox", "").split()[2]) == ("860", "860")
        assert any("".join(one.itertext()).strip() for one in root.iter() if one.tag.endswith("}text"))
        dots = (tmp_path / "found" / f"{name}.png").read_bytes()
        assert struct.unpack(">I", dots[16:20]) == (1720,)


def test_tables_as_markdown(results: Results) -> None:
    text = page.tables([page.Run("a.json", results)])
    lines = text.splitlines()
    assert lines[0] == "# Results of the benchmark"
    assert "![" not in text, "pictures are beside it in a folder only"
    for part in (
        "| figure | found | interval | target | |",
        "| missed |",
        "- Not measured: ElasticMQ.",
        results.command,
    ):
        assert part in text
    for before, line in pairwise(lines):
        if before.startswith("|") and line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", before)) == len(re.findall(r"(?<!\\)\|", line))


def test_what_was_measured_once_is_not_to_be_quoted(results: Results) -> None:
    found = results.model_copy(deep=True)
    for one in found.reports[0].series:
        del one.samples[1:]
    runs = [page.Run("a.json", found)]
    assert "Not to be quoted." in page.page(runs)
    assert "- Not to be quoted: measured once: throughput." in page.tables(runs)
    assert "Not to be quoted" not in page.tables([page.Run("a.json", results)])


def test_several_runs_are_told_apart(results: Results) -> None:
    other = results.model_copy(update={"environment": {**results.environment, "cpu": "Another"}, "failed": []})
    said = " ".join(Elements(page.page([page.Run("one.json", results), page.Run("two.json", other)])).data)
    assert "Several machines." in said
    assert "Idle for 120 s (one.json)" in said
    assert "Idle for 120 s (two.json)" in said


def test_text_of_results_is_text(results: Results) -> None:
    found = results.model_copy(deep=True)
    found.reports[0].title = "<script>alert(1)</script>"
    found.reports[0].notes = ["a `<script>` and <script>"]
    found.reports[0].series = [Series("rate", '<b>"&', [1.0], "<i>")]
    elements = Elements(page.page([page.Run("<a>", found)]))
    assert not elements.all("script")
    assert {"<script>alert(1)</script>", "<script>", " and <script>"} <= set(elements.data)


# What a chart shows


def chart(measure: Measure, *series: Series) -> Chart:
    return Chart("s", measure, series)


def test_lines_with_one_place_are_bars() -> None:
    lines = Measure("m", "M", "s", "lower", "lines", "consumers", True)
    one = chart(lines, Series("m", "a", [1.0], 20.0), Series("m", "b", [2.0], 20.0))
    assert (one.kind, list(one.groups())) == ("bars", ["20 consumers"])
    assert chart(lines, Series("m", "a", [1.0], 1.0), Series("m", "a", [2.0], 10.0)).kind == "lines"
    assert chart(lines, Series("m", "a", [0.0], 1.0), Series("m", "a", [0.0], 10.0)).kind == "bars"


def test_what_costs_nothing_has_a_place_too() -> None:
    lines = Measure("m", "M", "cores", "lower", "lines", "consumers", True)
    polling = [Series("m", "polling", [size * 0.03], size) for size in (1.0, 10.0)]
    found = chart(lines, *polling, *(Series("m", "waiting", [0.0, 0.0, 0.006], size) for size in (1.0, 10.0)))
    assert list(found.lines()) == ["polling", "waiting"]
    assert found.floor == pytest.approx(0.01)
    assert "with a place for 0" in found.reading
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg(found, Styles()))
    assert {"0", "waiting: 0", "polling: 0.30"} <= set(texts)
    assert chart(lines, *polling).floor == 0


def test_units_are_readable() -> None:
    seconds = Measure("m", "M", "s", "lower", "bars")
    assert chart(seconds, Series("m", "a", [0.0021, 0.0023])).title == "M, ms"
    assert chart(seconds, Series("m", "a", [21e-6])).table().rows[0][1] == "21"
    assert chart(Measure("m", "M", "bytes", "lower"), Series("m", "a", [11_264.0])).table().rows[0][1] == "11"
    assert chart(Measure("m", "M", "bytes", "lower"), Series("m", "a", [0.0])).title == "M, bytes"


def test_a_growth_is_in_the_table() -> None:
    costs = Measure("m", "M", "s", "lower", "costs", "messages", flat_within=0.2)
    found = chart(costs, *(Series("m", "a", [2.0 * size] * 3, float(size)) for size in (1, 10, 100)))
    assert found.table().rows[0][-1].startswith("1.00, 1.00 to 1.00 (")
    assert "Lower is better." in found.reading
    assert "A band is where a flat one stays." in found.reading


def test_the_best_is_named_first_and_of_many_some() -> None:
    rates = Measure("m", "Rate", "a second", "higher")
    words = chart(rates, *(Series("m", f"n{number}", [float(number)]) for number in range(1, 11))).words()
    assert words == "Bars: Rate, a second. n10 10; n9 9; n8 8; n7 7; n6 6; and 5 more. All values are in the table."
    costs = Measure("m", "Cost", "cores", "lower")
    assert "b 1; a 2." in chart(costs, Series("m", "a", [2.0]), Series("m", "b", [1.0])).words()
    curves = Measure("m", "Wake", "s", "lower", "curves")
    words = chart(curves, Series("m", "a", [0.01], "", Latencies.of([0.01] * 100))).words()
    assert words == "Curves of percentiles: Wake, ms. a p50 10.0, p99 10.0. All values are in the table."


# The command


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    (tmp_path / "other.json").write_text("{}[")
    (tmp_path / "empty.json").write_text(Results(environment={}).model_dump_json())
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing argument"),
        (["{folder}/nothing.json"], "does not exist"),
        (["{folder}/other.json"], "is not a file of `wakeq bench run --json`"),
        (["{folder}/empty.json", "--output", "{folder}/found"], "empty.json has no scenario in it: its run ended"),
        ([str(KEPT), "--output", "{folder}/found.pdf"], "is neither a page (.html) nor tables (.md) nor a folder"),
        ([str(KEPT), "--output", "{folder}/none/found.html"], "cannot be written"),
        ([str(KEPT), "--output", "{folder}/Makefile"], "is a file, not a folder"),
    ],
)
def test_usage_is_answered_by_2(arguments: list[str], said: str, broken: Path) -> None:
    (broken / "Makefile").write_text("")
    answer = invoke(cli.app, ["report", *(one.format(folder=broken) for one in arguments)], env={"COLUMNS": "400"})
    assert answer.exit_code == 2, answer.output
    assert said in answer.output
    assert "Traceback" not in answer.output
    assert not (broken / "found").exists()


def test_without_the_extra_it_says_what_installs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in sys.modules if name.startswith("wakeq_bench.pages")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("wakeq_bench.pages.page")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    answer = invoke(cli.app, ["report", str(KEPT), "--output", str(tmp_path / "found.html")])
    assert answer.exit_code == 1
    assert (
        answer.output.strip() == "A report needs matplotlib, which is not installed. Try `pip install 'wakeq[bench]'`."
    )


def test_compared_on_the_command_line(results: Results, tmp_path: Path) -> None:
    slower = results.model_copy(deep=True)
    for one in slower.reports[0].series:
        one.samples[:] = [sample / 2 for sample in one.samples]
    other = tmp_path / "slower.json"
    result_files.write(slower, other)
    env = {"COLUMNS": "200"}
    assert "worse" in invoke(cli.app, ["compare", str(KEPT), str(other)], env=env).output
    assert invoke(cli.app, ["compare", str(KEPT), str(other)], env=env).exit_code == 0
    failed = invoke(cli.app, ["compare", str(KEPT), str(other), "--check"], env=env)
    assert failed.exit_code == 1
    assert "worse beyond noise, and by more than 10 %" in failed.output
    assert invoke(cli.app, ["compare", str(KEPT), str(other), "--check", "--bound", "150"], env=env).exit_code == 0
    assert invoke(cli.app, ["compare", str(KEPT), str(KEPT), "--check", "--bound", "0"], env=env).exit_code == 0


def test_other_machines_are_not_compared_unless_told_to(results: Results, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    result_files.write(results.model_copy(update={"environment": {**results.environment, "cores": 64}}), other)
    refused = invoke(cli.app, ["compare", str(KEPT), str(other)], env={"COLUMNS": "400"})
    assert refused.exit_code == 2
    assert "different machines: cores 2, then 64. --anyway compares them nevertheless." in refused.output
    assert invoke(cli.app, ["compare", str(KEPT), str(other), "--anyway"]).exit_code == 0
