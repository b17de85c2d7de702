from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from wakeq_bench import cli, demo
from wakeq_bench import results as result_files
from wakeq_bench.peers import PeerUnavailable
from wakeq_bench.registry import SCENARIOS
from wakeq_bench.report import Figure, Missing, Report, Target
from wakeq_bench.running import Options, command, duration, wanted
from wakeq_bench.scenarios import wake
from wakeq_bench.scenarios.parts import measure_each
from wakeq_bench.scenarios.wrk import WrkFailed

run = CliRunner().invoke


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["idle", "--set", "consumers=2,none"], "consumers: 'none' should be a valid integer"),
        (["idle", "--set", "consumers=0"], "should be greater than 0"),
        (["idle", "--set", "consumers="], "is not NAME=VALUE"),
        (["idle", "--only", "nobody"], "only: nobody is not among wakeq-fsync,"),
        (["idle", "--seconds", "0.5"], "seconds: 0.5 should be"),
        (["parked", "--only", "2"], "there is no 'only' here; it takes"),
        (["scale", "--set", "depth=-1"], "should be greater than or equal to 0"),
        (["fanout", "--only", "beanstalkd-always"], "only: beanstalkd-always is not among"),
        (["mixed", "--set", "seed=-1"], "seed: '-1' should be"),
        (["counts", "--set", "kind=seconds"], "seconds is not among calls, blocks, system calls, instructions"),
        (["throughput", "--set", "in_flight=65"], "at most 64 batches"),
        (["idle", "wake", "--set", "wake.consumers=2"], "there is no 'wake.consumers' here"),
        (["parked", "--set", "connections=100000000"], "(`ulimit -Hn`)"),
        (["requests", "--rounds", "0"], "rounds: 0 should be greater than or equal to 1"),
        (["requests", "--set", "durability=none"], "'memory', 'os' or 'fsync'"),
        (["depth", "--set", "case=nothing"], "nothing is not among deep, topics"),
        (["throughput", "--set", "batch=1,1001"], "a batch has at most 1,000 messages"),
        (["throughput", "--set", "in_flight=0"], "in_flight"),
        (["throughput", "--set", "size=11"], "bytes of a message"),
        (["latency", "--set", "rates=0"], "rates"),
        (["writer", "--seconds", "1"], "seconds"),
        (["wake", "--json", "/nowhere/found.json"], "cannot be written"),
        (["wake", "--like", "/nowhere/found.json"], "does not exist"),
        (["unknown"], "there is no scenario 'unknown'; there are idle,"),
        ([], "which scenario?"),
    ],
)
def test_usage_is_answered_by_2(arguments: list[str], said: str) -> None:
    answer = run(cli.app, ["run", *arguments], env={"COLUMNS": "400"})
    assert answer.exit_code == 2
    assert said in answer.output
    assert "Traceback" not in answer.output


def test_scenarios_are_listed_and_each_tells_what_it_takes() -> None:
    answer = run(cli.app, ["list"], env={"COLUMNS": "200"})
    assert answer.exit_code == 0
    assert all(name in answer.output for name in SCENARIOS)
    for name, scenario in SCENARIOS.items():
        answer = run(cli.app, ["list", name], env={"COLUMNS": "400"})
        assert answer.exit_code == 0
        for parameter, field in scenario.parameters.model_fields.items():
            assert parameter in answer.output
            assert field.description, "a parameter has a meaning"


def test_every_quick_form_is_allowed() -> None:
    assert [one.scenario.name for one in wanted(["all"], Options(quick=True))] == list(SCENARIOS)


@pytest.mark.parametrize(("quick", "most_s"), [(False, 55 * 60), (True, 120)])
def test_a_whole_run_is_planned_to_be_over_in_time(quick: bool, most_s: float) -> None:
    assert sum(one.planned_s for one in wanted(["all"], Options(quick=quick))) <= most_s


def test_a_parameter_of_one_scenario_goes_before_the_shared_one() -> None:
    given = {"writer.rounds": "7", "rounds": "2", "seconds": "3"}
    parked, writer = chosen = wanted(["parked", "writer"], Options(given))
    expected = "wakeq bench run parked writer --set parked.seconds=3.0 --set writer.seconds=3 --set writer.rounds=7"
    assert command(chosen) == expected
    assert writer.parameters.model_dump() == {"seconds": 3, "rounds": 7}
    assert parked.parameters.model_dump()["seconds"] == 3


def test_without_wrk_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    answer = run(cli.app, ["run", "requests"])
    assert answer.exit_code == 1
    assert "wrk, which makes the load, is not installed" in answer.output


def stand_in(monkeypatch: pytest.MonkeyPatch, measure: Callable[[wake.Wakes, Console], Report]) -> None:
    monkeypatch.setitem(SCENARIOS, "wake", replace(SCENARIOS["wake"], run=measure))


def test_a_failing_server_is_told_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Report:
        raise WrkFailed("the reason [not markup]")

    stand_in(monkeypatch, fail)
    answer = run(cli.app, ["run", "wake"])
    assert answer.exit_code == 1
    assert answer.output.strip().endswith("the reason [not markup]")


def test_a_peer_that_can_not_be_had_is_told_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(*_: object, **__: object) -> Path:
        raise PeerUnavailable("llama_deploy 0.8.1 could not be installed: no network.")

    monkeypatch.setattr("wakeq_bench.peers.llama_deploy.environment", unavailable)
    answer = run(cli.app, ["run", "task"])
    assert answer.exit_code == 1
    assert answer.output.strip().endswith("llama_deploy 0.8.1 could not be installed: no network.")


def wakes(given: wake.Wakes, _console: Console) -> Report:
    return Report("wake", "Wakes", {}, [Figure("a figure", 1.5, target=Target("<=", given.rounds))])


def test_shown_written_and_run_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(monkeypatch, wakes)
    found = tmp_path / "found.json"
    answer = run(cli.app, ["run", "wake", "--rounds", "3", "--json", str(found)])
    assert answer.exit_code == 0
    assert "a figure" in answer.output
    (report,) = result_files.read(found).reports
    assert report.parameters == {"rounds": 3}
    assert run(cli.app, ["run", "--like", str(found), "--json", str(tmp_path / "again.json")]).exit_code == 0
    assert result_files.read(tmp_path / "again.json").reports == [report]


@pytest.mark.parametrize("names", [["wake", "requests"], ["requests", "wake"], ["requests"]])
def test_what_fails_is_named_and_stops_nothing(
    names: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in(monkeypatch, wakes)
    monkeypatch.setattr("shutil.which", lambda _: None)
    answer = run(cli.app, ["run", *names, "--json", str(tmp_path / "found.json")])
    assert answer.exit_code == 1
    found = result_files.read(tmp_path / "found.json")
    assert [report.scenario for report in found.reports] == [name for name in names if name != "requests"]
    (failed,) = found.failed
    assert failed.name == "requests"
    assert failed.reason.startswith("wrk, which makes the load, is not installed")


def stubs(monkeypatch: pytest.MonkeyPatch, **measures: Callable[..., Report]) -> None:
    for name, measure in measures.items():
        monkeypatch.setitem(SCENARIOS, name, replace(SCENARIOS[name], run=measure))


def broken(*_: object) -> Report:
    raise KeyError("a mistake")


def cut_off(*_: object) -> Report:
    raise KeyboardInterrupt


def writes(*_: object) -> Report:
    return Report("writer", "Writes", {})


def test_a_mistake_in_one_loses_nothing_of_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stubs(monkeypatch, wake=broken, writer=writes)
    answer = run(cli.app, ["run", "wake", "writer", "--json", str(tmp_path / "found.json")])
    assert answer.exit_code == 1
    assert "Traceback" in answer.output
    found = result_files.read(tmp_path / "found.json")
    assert [report.scenario for report in found.reports] == ["writer"]
    assert [(failed.name, failed.reason) for failed in found.failed] == [("wake", "KeyError: 'a mistake'")]


def test_what_was_interrupted_is_kept_and_gone_on_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stubs(monkeypatch, wake=wakes, requests=broken, writer=cut_off)
    file = tmp_path / "found.json"
    command_line = ["run", "wake", "requests", "writer", "--set", "wake.rounds=3", "--json", str(file)]
    assert run(cli.app, command_line).exit_code == 130
    before = result_files.read(file)
    assert [report.scenario for report in before.reports] == ["wake"]
    assert [failed.name for failed in before.failed] == ["requests"]
    stubs(monkeypatch, wake=cut_off, requests=lambda *_: Report("requests", "Requests", {}), writer=writes)
    assert run(cli.app, [*command_line, "--resume"]).exit_code == 0
    after = result_files.read(file)
    assert [report.scenario for report in after.reports] == ["wake", "requests", "writer"]
    assert [noise.scenario for noise in after.noise] == ["wake", "requests", "writer"]
    assert after.failed == []
    assert (after.started, after.command) == (before.started, before.command)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("begun", "arguments", "said"),
    [
        ("wakes", ["--rounds", "4", "--json"], "wake: what is there was measured with other parameters"),
        ("elsewhere", ["--json"], "was begun on another machine, or with other versions"),
        ("no results", ["--json"], "is not a file of `wakeq bench run --json`"),
        ("wakes", [], "--resume needs the file of --json"),
    ],
)
def test_what_can_not_be_gone_on_with(
    begun: str, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stubs(monkeypatch, wake=wakes)
    file = tmp_path / "found.json"
    assert run(cli.app, ["run", "wake", "--json", str(file)]).exit_code == 0
    if begun == "elsewhere":
        file.write_text(file.read_text().replace('"kernel": "', '"kernel": "another '))
    elif begun == "no results":
        file.write_text("{}[]")
    there = file.read_text()
    given = [*arguments, str(file)] if arguments else []
    answer = run(cli.app, ["run", "wake", "--resume", *given], env={"COLUMNS": "400"})
    assert answer.exit_code == 2
    assert said in answer.output
    assert file.read_text() == there


def test_a_file_of_results_is_never_half_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    result_files.write(result_files.Results(command="the one before"), file)

    def cut_off_after_half(self: Path, text: str, **_: object) -> int:
        with self.open("w") as half:
            half.write(text[: len(text) // 2])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", cut_off_after_half)
    with pytest.raises(OSError, match="No space left"):
        result_files.write(result_files.Results(command="the one after"), file)
    assert result_files.read(file).command == "the one before"


def test_parts_that_fail_are_named_and_others_measured() -> None:
    report, measured = Report("wake", "Wakes", {}), []

    def fail() -> None:
        raise WrkFailed("the reason")

    measure_each({"one": fail, "two": lambda: measured.append("two")}, report)
    assert measured == ["two"]
    assert report.missing == [Missing("one", "the reason")]
    with pytest.raises(WrkFailed):
        measure_each({"one": fail, "two": fail}, report)


def test_the_plan_of_several_comes_first_with_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stubs(monkeypatch, wake=wakes, writer=writes)
    lines = run(cli.app, ["run", "wake", "writer"], env={"COLUMNS": "200"}).output.splitlines()
    whole = sum(one.planned_s for one in wanted(["wake", "writer"], Options()))
    footer = next(number for number, line in enumerate(lines) if "all" in line and duration(whole) in line)
    assert footer < next(number for number, line in enumerate(lines) if line.startswith("1 of 2"))


def test_what_is_left_is_told_by_the_pace_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    def plan(name: str, seconds: float) -> None:
        stub = replace(SCENARIOS[name], run=lambda *_: Report("one", "One", {}), planned_s=lambda _: seconds)
        monkeypatch.setitem(SCENARIOS, name, stub)

    plan("wake", 36_000.0)
    plan("writer", 60.0)
    answer = run(cli.app, ["run", "wake", "writer"], env={"COLUMNS": "200"})
    first, second = [line for line in answer.output.splitlines() if line.endswith(" left")]
    assert first == "1 of 2: wake, 10 h 0 min; in all about 10 h 1 min left"
    assert second == "2 of 2: writer, 60 s; in all about 0 s left"


@pytest.mark.parametrize(("rounds", "status"), [(2, 0), (1, 1)])
def test_checked_by_targets(rounds: int, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, wakes)
    assert run(cli.app, ["run", "wake", "--rounds", str(rounds), "--check"]).exit_code == status
    assert run(cli.app, ["run", "wake", "--rounds", str(rounds)]).exit_code == 0


@pytest.mark.parametrize(
    ("seconds", "text"), [(40.2, "40 s"), (99, "99 s"), (130, "2 min"), (5_940, "99 min"), (11_100, "3 h 5 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


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
