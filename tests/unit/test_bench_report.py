from pathlib import Path

import pytest
from rich.console import Console

from wakeq_bench import results as result_files
from wakeq_bench.hdr import Latencies
from wakeq_bench.intervals import Interval
from wakeq_bench.noise import Noise, takes_idle_memory
from wakeq_bench.report import Figure, Measure, Missing, Overview, Report, Series, Target, readable
from wakeq_bench.results import NotResults, Results
from wakeq_bench.screen import show


@pytest.fixture
def report() -> Report:
    figures = [
        Figure("kept", 3.0, "ms", Target("<=", 4), Interval(2.0, 5.0, 0.75)),
        Figure("failed", 3.0, "%", Target(">=", 60)),
        Figure("x", 1),
    ]
    overview = Overview(["what", "n"], [["[red]", "1"]])
    found = Report("wake", "Title", {"rounds": 2}, figures, [{"s": [0.1]}], ["a note"], overview)
    found.measures = [Measure("wake", "Wakes", "s", "lower", "curves")]
    found.series = [Series("wake", "wakeq", [0.1, 0.2], 7, Latencies.of([0.1, 0.2]))]
    found.missing = [Missing("redis", "It is not installed.")]
    return found


@pytest.mark.parametrize(
    ("target", "value", "met"),
    [
        (Target("<=", 2), 2, True),
        (Target("<=", 2), 2.1, False),
        (Target(">=", 2), 2, True),
        (Target(">=", 2), 1.9, False),
        (Target("==", 1), 1, True),
        (Target("==", 1), 2, False),
    ],
)
def test_targets(target: Target, value: float, met: bool) -> None:
    assert Figure("x", value, target=target).met is met


def test_a_target_within_the_interval_is_open(report: Report) -> None:
    assert [figure.open for figure in report.figures] == [True, False, False]
    assert [figure.name for figure in report.missed()] == ["failed"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (12345.0, "12,345"),
        (1234.5, "1,234"),
        (12.345, "12.3"),
        (1.5, "1.50"),
        (0.05, "0.050"),
        (-0.004, "-0.0040"),
    ],
)
def test_readable(value: float, text: str) -> None:
    assert readable(value) == text


def test_shown_with_targets_and_verdicts(report: Report) -> None:
    console = Console(record=True, width=120, file=None, quiet=False)
    with console.capture() as captured:
        show(report, console)
    text = captured.get()
    parts = ("Title", "[red]", "kept", "<= 4 ms", "met, just", "2 to 5 (75 %)", ">= 60 %", "missed", "- a note")
    for part in (*parts, "- Not measured: redis. It is not installed."):
        assert part in text


def test_results_are_read_as_they_were_written(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    noise = Noise("wake", 1.0, 0.5, 0.0, (1.0, 1.0), ["a", "b"])
    written = Results(reports=[report], noise=[noise])
    result_files.write(written, path)
    found = result_files.read(path)
    assert found == written
    assert {"cpu", "cores", "kernel", "python", "packages"} <= found.environment.keys()
    assert found.report("wake") == report
    assert found.report("idle") is None


@pytest.mark.parametrize("content", ["", "[]", '{"format": 2}', '{"format": 1, "unknown": 1}', "\udcff"])
def test_another_file_is_refused_in_a_sentence(content: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(content, errors="surrogateescape")
    with pytest.raises(NotResults, match=r"other\.json is not a file of `wakeq bench run --json`"):
        result_files.read(path)


def test_noise_is_said_and_quiet_is_not() -> None:
    assert Noise("idle", 10.0, 0.05, 0.0, (1.0, 1.05)).remarks() == []
    loud = Noise("idle", 10.0, 0.5, 0.02, (1.0, 0.9), ["a 1", "b", "c", "d"])
    others, steal, yardstick, unsteady = loud.remarks()
    assert "0.50 cores" in others
    assert "2.0 %" in steal
    assert "10 % less" in yardstick
    assert "4 series: a 1, b, c, ..." in unsteady
    (sentence,) = Results(noise=[loud]).remarks()
    assert sentence.startswith("During idle, other processes used")


@pytest.mark.parametrize(
    ("state", "action", "takes"), [("on", "pageout", True), ("off", "pageout", False), ("on", "stat", False)]
)
def test_a_kernel_that_takes_idle_memory_is_noticed(tmp_path: Path, state: str, action: str, takes: bool) -> None:
    scheme = tmp_path / "0/contexts/0/schemes/0"
    scheme.mkdir(parents=True)
    (scheme / "action").write_text(f"{action}\n")
    (tmp_path / "0/state").write_text(f"{state}\n")
    assert takes_idle_memory(tmp_path) is takes
    assert takes_idle_memory(tmp_path / "nowhere") is False
    assert any("at rest" in remark for remark in Noise("idle", 1.0, 0.0, 0.0, (1.0, 1.0), reclaims=True).remarks())
