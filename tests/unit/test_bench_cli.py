from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from wakeq_bench import cli, demo
from wakeq_bench.peers import PeerUnavailable
from wakeq_bench.report import Figure, Report
from wakeq_bench.scenarios import wake as wake_scenario
from wakeq_bench.scenarios.wrk import WrkFailed

run = CliRunner().invoke


@pytest.mark.parametrize(
    "arguments",
    [
        ["idle", "--consumers", "2,none"],
        ["idle", "--consumers", "0"],
        ["idle", "--contestant", "nobody"],
        ["idle", "--seconds", "0"],
        ["parked", "--connections", "100000000"],
        ["requests", "--pairs", "0"],
        ["requests", "--durability", "none"],
        ["depth", "--case", "nothing"],
        ["throughput", "--mode", "nothing"],
        ["throughput", "--contestant", "nobody"],
        ["throughput", "--batch", "1,1001"],
        ["throughput", "--batch", ""],
        ["throughput", "--in-flight", "0"],
        ["throughput", "--size", "11"],
        ["latency", "--rates", "0"],
        ["latency", "--way", "pigeon"],
        ["recovery", "--messages", "0"],
        ["task", "--tasks", "0"],
        ["writer", "--seconds", "1"],
        ["wake", "--json", "/nowhere/found.json"],
        ["unknown"],
    ],
)
def test_usage_is_answered_by_2(arguments: list[str]) -> None:
    answer = run(cli.app, arguments)
    assert answer.exit_code == 2
    assert "Traceback" not in answer.output


def test_without_wrk_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    answer = run(cli.app, ["requests"])
    assert answer.exit_code == 1
    assert "wrk, which makes the load, is not installed" in answer.output


def test_a_failing_server_is_told_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Report:
        raise WrkFailed("the reason [not markup]")

    monkeypatch.setattr(wake_scenario, "run", fail)
    answer = run(cli.app, ["wake"])
    assert (answer.exit_code, answer.output.strip()) == (1, "the reason [not markup]")


def test_a_peer_that_can_not_be_had_is_told_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(*_: object, **__: object) -> Path:
        raise PeerUnavailable("llama_deploy 0.8.1 could not be installed: no network.")

    monkeypatch.setattr("wakeq_bench.peers.llama_deploy.environment", unavailable)
    answer = run(cli.app, ["task"])
    assert (answer.exit_code, answer.output.strip()) == (1, "llama_deploy 0.8.1 could not be installed: no network.")


def test_shown_and_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def succeed(rounds: int, _console: Console) -> Report:
        return Report("wake", "Wakes", {"rounds": rounds}, [Figure("a figure", 1.5)])

    monkeypatch.setattr(wake_scenario, "run", succeed)
    answer = run(cli.app, ["wake", "--rounds", "3", "--json", str(tmp_path / "found.json")])
    assert answer.exit_code == 0
    assert "a figure" in answer.output
    assert '"rounds": 3' in (tmp_path / "found.json").read_text()


def test_demo_without_llama_deploy_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(*_: object) -> Path:
        raise PeerUnavailable("llama_deploy could not be installed: no network.")

    async def shown(console: Console) -> None:
        console.print("wakeq alone")

    monkeypatch.setattr("wakeq_bench.peers.llama_deploy.environment", unavailable)
    monkeypatch.setattr(demo, "_show_alone", shown)
    console = Console(width=200)
    with console.capture() as captured:
        demo._demonstrate(20.0, console)
    for part in ("could not be installed: no network.", "wakeq alone", "wakeq serve"):
        assert part in captured.get()


@pytest.mark.parametrize(
    ("pair", "text"), [([19.0, 0.0], "none left"), ([0.0, 0.0], ""), ([1.2, 0.6], "2"), ([5.0, 0.3], "17")]
)
def test_times_less(pair: list[float], text: str) -> None:
    assert demo.times_less(pair) == text
