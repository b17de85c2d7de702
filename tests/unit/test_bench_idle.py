from pathlib import Path

import pytest

from wakeq_bench.peers.everyone import BY_KEY
from wakeq_bench.report import Report
from wakeq_bench.scenarios import idle
from wakeq_bench.scenarios.idle import Found, figures, times_less


def found(contestant: str, consumers: int, cores: float, requests_per_s: float | None = 0.0) -> Found:
    half = [cores / 2] * 3
    return Found(contestant, consumers, 1.0, half, half, 1.0, requests_per_s, 1.0, 1.0, [0.1])


def test_compared_with_as_many_polling_consumers() -> None:
    everything = [found("original-50ms", 2, 0.1), found("original-50ms", 100, 1.0), found("wakeq-memory", 100, 0.002)]
    assert times_less(everything, "wakeq-memory", 100) == pytest.approx(500)
    assert times_less([*everything, found("wakeq-memory", 20, 0.002)], "wakeq-memory", 20) is None
    assert times_less([*everything, found("wakeq-memory", 2, 0.0)], "wakeq-memory", 2) is None


def test_the_target_is_for_a_hundred_consumers_that_stream() -> None:
    everything = [found("original-50ms", 100, 1.0), found("wakeq-memory", 100, 0.0025), found("nchan", 100, 0.1)]
    (figure,) = figures(everything)
    assert figure.value == pytest.approx(400)
    assert figure.met is False
    assert figure.interval is not None
    assert figures([found("original-50ms", 100, 1.0), found("wakeq-memory", 20, 0.001)]) == []


def test_the_unmodified_client_asks_seldom_each() -> None:
    two, many = figures([found("original-wakeq", 2, 0.1, 0.04), found("original-wakeq", 20, 0.1, 2.0)])
    assert (two.value, two.met) == (0.02, True)
    assert (many.value, many.met) == (0.1, False)


def test_what_was_not_counted_is_left_out_and_not_zero() -> None:
    assert {one.measure for one in idle._series([found("nchan", 2, 0.1, None)])} == {
        "cores",
        "wake_ups",
        "bytes",
        "wake",
    }


def test_beyond_what_a_contestant_can_it_is_named_once() -> None:
    report = Report("idle", "Idle", {})
    pythons = {BY_KEY[key]: Path("python") for key in ("wakeq-memory", "original-50ms")}
    for count in (100, 1_000, 10_000):
        able = [one.key for one in idle._able(pythons, count, report)]
        assert able == (["wakeq-memory", "original-50ms"] if count == 100 else ["wakeq-memory"])
    (missing,) = report.missing
    assert "not asked for more than 100" in missing.reason


def test_the_pair_is_measured_longer_and_in_turns_where_its_target_is() -> None:
    given = idle.Idle()
    assert given.turns(100) == [
        idle.Turns(["wakeq-memory", "original-50ms"], 120.0, 2),
        idle.Turns(["redis-everysec", "original-wakeq"], 15.0, 1),
    ]
    assert [given.turns(count) for count in (1, 10_000)] == [[idle.Turns(list(idle.PAIR), 15.0, 1)]] * 2


def test_without_the_number_that_targets_are_for_everybody_is_measured() -> None:
    given = idle.Idle(consumers=[20], only=["wakeq-memory", "nats-default", "original-50ms"])
    assert given.turns(20) == [idle.Turns(given.only, 15.0, 1)]


@pytest.mark.parametrize(
    "given", [idle.Idle(pair_rounds=0), idle.Idle(only=["wakeq-memory", "nats-default"])], ids=["like all", "one alone"]
)
def test_half_a_pair_is_measured_like_all_others(given: idle.Idle) -> None:
    assert given.turns(100) == [idle.Turns(given.only, given.seconds, given.rounds)]


def test_no_window_misses_what_comes_once_in_a_while() -> None:
    turns = idle.Turns([], 20.0, 1)
    assert {key: turns.window_s(BY_KEY[key]) for key in ("wakeq-memory", "original-50ms", "original-wakeq")} == {
        "wakeq-memory": 20.0,
        "original-50ms": 20.0,
        "original-wakeq": 55.0,
    }
