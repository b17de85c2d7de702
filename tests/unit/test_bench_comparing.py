"""What two runs say about each other, by numbers that can be counted by hand."""

from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from wakeq_bench.comparing import Change, Incomparable, compare
from wakeq_bench.intervals import Interval
from wakeq_bench.noise import Noise
from wakeq_bench.report import Figure, Measure, Report, Series, Target
from wakeq_bench.results import Results
from wakeq_bench.screen import show_comparison

MACHINE: dict[str, Any] = {
    "cpu": "one",
    "cores": 2,
    "governor": None,
    "memory_bytes": 1_000_000,
    "kernel": "Linux 6",
    "python": "CPython 3.11",
    "packages": {"wakeq": "1"},
    "load_average": [0.1],
}
RATES = [100.0, 110.0, 120.0]


def results(rates: list[float], *figures: Figure, machine: dict[str, Any] = MACHINE, **parameters: object) -> Results:
    report = Report("throughput", "Rates", {}, list(figures), parameters={"size": [100], "rounds": 3, **parameters})
    report.measures = [Measure("rate", "Rate", "a second", "higher"), Measure("wake", "Wakes", "s", "lower")]
    report.series = [Series("rate", "wakeq", rates, "batches")] if rates else []
    return Results(environment=machine, reports=[report])


def only(before: Results, after: Results, *, anyway: bool = False) -> Change:
    (change,) = compare(before, after, anyway=anyway).changes
    return change


def bounds(change: Change) -> tuple[float, float, float]:
    assert change.interval is not None
    return change.interval.low, change.interval.high, change.interval.confidence


@pytest.mark.parametrize(
    ("rates", "ratio", "verdict", "worse_by"),
    [
        ([50.0, 55.0, 60.0], 0.5, "worse", 1.0),
        ([200.0, 220.0, 240.0], 2.0, "better", -0.5),
        ([99.0, 112.0, 121.0], 112 / 110, "within noise", 110 / 112 - 1),
        ([121.0], 1.1, "not judged", 1 / 1.1 - 1),
        (RATES, 1.0, "", 0.0),
    ],
)
def test_a_change_of_a_rate(rates: list[float], ratio: float, verdict: str, worse_by: float) -> None:
    change = only(results(RATES), results(rates))
    assert (change.name, change.before, change.verdict) == ("rate: wakeq, batches", 110.0, verdict)
    assert change.ratio == pytest.approx(ratio)
    assert change.worse_by == pytest.approx(worse_by)


def test_its_interval_is_that_of_all_pairs() -> None:
    change = only(results(RATES), results([50.0, 55.0, 60.0]))
    assert bounds(change) == pytest.approx((50 / 120, 60 / 100, 0.9))


def test_less_is_worse_only_where_more_is_better() -> None:
    change = Change("s", "n", "s", 1.0, 2.0, "lower", Interval(1.5, 2.5, 0.95))
    assert (change.verdict, change.worse_by) == ("worse", 1.0)
    assert replace(change, better="higher").verdict == "better"
    assert replace(change, better=None).verdict == "different"


@pytest.mark.parametrize(("bound", "regressed"), [(0.5, True), (0.99, True), (1.0, False)])
def test_a_regression_is_worse_by_more_than_the_bound(bound: float, regressed: bool) -> None:
    change = Change("s", "n", "s", 1.0, 2.0, "lower", Interval(1.5, 2.5, 0.95))
    assert change.regressed(bound) is regressed
    assert not replace(change, interval=Interval(0.9, 2.5, 0.95)).regressed(bound), "within noise"
    assert not replace(change, interval=Interval(1.5, 2.5, 0.75)).regressed(bound), "not judged"


def test_of_nothing_there_is_no_ratio() -> None:
    change = only(results([0.0, 0.0, 0.0]), results(RATES))
    assert (change.ratio, change.verdict, change.worse_by) == (None, "not judged", 0.0)


def test_a_number_that_has_to_be_kept_is_judged_without_rounds() -> None:
    lost = Figure("lost", 0, target=Target("==", 0))
    change = only(results([], lost), results([], replace(lost, value=2)))
    assert change.verdict == "now missed"
    assert change.regressed(100.0)
    back = only(results([], replace(lost, value=2)), results([], lost))
    assert (back.verdict, back.regressed(0.0)) == ("now met", False)
    assert only(results([], lost), results([], lost)).verdict == ""


def test_figures_are_compared_by_their_intervals() -> None:
    before = Figure("share", 50, "%", Target(">=", 40), Interval(48, 52, 0.96))
    after = replace(before, value=30, interval=Interval(29, 32, 0.97))
    change = only(results([], before), results([], after))
    assert bounds(change) == pytest.approx((29 / 52, 32 / 48, 0.93))
    assert change.verdict == "worse"
    assert change.worse_by == pytest.approx(50 / 30 - 1)
    assert only(results([], before), results([], replace(after, interval=None))).verdict == "not judged"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("cpu", "another", "cpu one, then another"),
        ("cores", 4, "cores 2, then 4"),
        ("memory_bytes", 2_000_000, "memory bytes"),
    ],
)
def test_other_machines_are_refused(name: str, value: object, said: str) -> None:
    other = results(RATES, machine={**MACHINE, name: value})
    with pytest.raises(Incomparable, match=f"different machines: {said}"):
        compare(results(RATES), other)
    assert compare(results(RATES), other, anyway=True).remarks[0].startswith(said)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"kernel": "Linux 7"}, "kernel Linux 6, then Linux 7"),
        ({"python": "CPython 3.13"}, "python CPython 3.11, then CPython 3.13"),
        ({"packages": {"wakeq": "2", "orjson": "3"}}, "wakeq 1, then 2"),
        ({"memory_bytes": 1_000_001, "load_average": [9.0]}, None),
    ],
)
def test_what_else_is_new_is_said(changed: dict[str, object], said: str | None) -> None:
    remarks = compare(results(RATES), results(RATES, machine={**MACHINE, **changed})).remarks
    assert remarks[:1] == ([said] if said else [])


def test_other_settings_are_refused_but_for_how_often_and_by_whom() -> None:
    assert compare(results(RATES), results(RATES, rounds=5, only=["wakeq"])).remarks == []
    with pytest.raises(Incomparable, match="throughput was measured in another way: size 100, then 100,1,000"):
        compare(results(RATES), results(RATES, size=[100, 1_000]))
    assert compare(results(RATES), results(RATES, size=[1_000]), anyway=True).remarks == [
        "throughput: size 100, then 1,000"
    ]


def test_a_scenario_that_was_measured_in_another_way_is_left_out_and_said() -> None:
    before, after = results(RATES), results(RATES, size=[7])
    for one in (before, after):
        one.reports.append(replace(one.reports[0], scenario="other", parameters={}))
    found = compare(before, after)
    assert {change.scenario for change in found.changes} == {"other"}
    assert found.remarks == ["Left out: throughput was measured in another way: size 100, then 7."]


def test_who_is_in_one_of_them_alone_is_named() -> None:
    after = results(RATES)
    after.reports[0].series.append(Series("rate", "another", RATES, "batches"))
    after.reports.append(Report("idle", "Idle", {}))
    assert compare(results(RATES), after).remarks == [
        "throughput: only in the second: another.",
        "idle: only in the second.",
    ]
    assert "idle: only in the first." in compare(after, results(RATES)).remarks


def test_nothing_in_common_is_said() -> None:
    with pytest.raises(Incomparable, match="no figure in common"):
        compare(results(RATES), Results(environment=MACHINE))


def test_a_machine_that_was_slower_itself_is_said() -> None:
    before, after = results(RATES), results(RATES)
    before.noise = [Noise("throughput", 1.0, 0.0, 0.0, (1.0, 1.0))]
    after.noise = [Noise("throughput", 1.0, 0.5, 0.0, (1.2, 1.2))]
    slower, disturbed = compare(before, after).remarks
    assert slower.startswith("A fixed piece of work takes 20 % longer in the second")
    assert disturbed == ("The second was not on a quiet machine. During throughput, other processes used 0.50 cores.")


def test_shown_with_what_chance_alone_would_find() -> None:
    found = compare(results(RATES), results([50.0, 55.0, 60.0]))
    console = Console(width=160)
    with console.capture() as captured:
        show_comparison(found, 0.1, console)
    for part in ("throughput", "rate: wakeq, batches", "110 a second", "55 a second", "0.500", "0.417 to 0.600 (90 %)"):
        assert part in captured.get()
    assert "1 of 1 that could be judged changed beyond noise; about 0 would by chance alone." in captured.get()


def test_what_has_not_changed_is_shown_when_asked_for() -> None:
    found = compare(results(RATES), results([99.0]))
    console = Console(width=160)
    for everything in (False, True):
        with console.capture() as captured:
            show_comparison(found, 0.1, console, everything=everything)
        assert ("not judged" in captured.get()) is everything
        assert "Of 1 there are too few rounds to judge." in captured.get()
