import json
from pathlib import Path

import pytest
from rich.console import Console

from wakeq_bench.report import Figure, Overview, Report, Target, readable, show, write_json


@pytest.fixture
def report() -> Report:
    figures = [Figure("kept", 3.0, "ms", Target("<=", 4)), Figure("failed", 3.0, "%", Target(">=", 60)), Figure("x", 1)]
    overview = Overview(["what", "n"], [["[red]", "1"]])
    return Report("wake", "Title", {"rounds": 2}, figures, [{"s": [0.1]}], ["a note"], overview)


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
    console = Console(record=True, width=100, file=None, quiet=False)
    with console.capture() as captured:
        show(report, console)
    text = captured.get()
    for part in ("Title", "[red]", "kept", "<= 4 ms", "met", ">= 60 %", "missed", "- a note"):
        assert part in text


def test_json_holds_samples_and_environment(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    write_json(report, path)
    found = json.loads(path.read_text())
    assert found["settings"] == {"rounds": 2}
    assert found["samples"] == [{"s": [0.1]}]
    assert found["figures"][1] == {"name": "failed", "value": 3.0, "unit": "%", "target": ">= 60", "met": False}
    assert found["figures"][2]["met"] is None
    assert {"cpu", "cores", "kernel", "python", "packages"} <= found["environment"].keys()
    assert found["environment"]["packages"]["uvicorn"]
