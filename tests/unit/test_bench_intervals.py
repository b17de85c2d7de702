"""What intervals and histograms claim, against counting by hand."""

import math
import random

import pytest

from wakeq_bench.hdr import Latencies
from wakeq_bench.intervals import median_interval, ratio_interval, spread


@pytest.mark.parametrize(
    ("count", "low", "high", "confidence"),
    [
        (1, 0, 0, 0.0),
        (3, 0, 2, 0.75),
        (5, 0, 4, 0.9375),
        # The known table of order statistics: the first and last of 6, the second and eighth of 9.
        (6, 0, 5, 0.96875),
        (9, 1, 7, 0.9609375),
        (20, 5, 14, 0.958610534667969),
    ],
)
def test_interval_of_a_median(count: int, low: int, high: int, confidence: float) -> None:
    samples = [float(number) for number in range(count)]
    random.Random(1).shuffle(samples)
    found = median_interval(samples)
    assert [found.low, found.high, found.confidence] == pytest.approx([low, high, confidence])


def test_it_holds_the_true_median_as_often_as_it_says() -> None:
    chance, times = random.Random(2), 2_000
    intervals = [median_interval([chance.lognormvariate(0, 2) for _ in range(9)]) for _ in range(times)]
    assert sum(1.0 in interval for interval in intervals) / times == pytest.approx(0.961, abs=0.015)


@pytest.mark.parametrize(
    ("ours", "theirs", "confidence", "cut"),
    # The critical values of the test of Mann and Whitney: 3 and 3 have none, 4 and 4 have 0, 5 and 5 have 2.
    [(3, 3, 0.9, 0), (4, 4, 1 - 2 / 70, 0), (5, 5, 1 - 2 * 4 / 252, 2)],
)
def test_interval_of_a_ratio(ours: int, theirs: int, confidence: float, cut: int) -> None:
    mine = [2.0 + 0.01 * number for number in range(ours)]
    others = [1.0 + 0.013 * number for number in range(theirs)]
    ratios = sorted(one / other for one in mine for other in others)
    found = ratio_interval(mine, others)
    assert [found.low, found.high, found.confidence] == pytest.approx([ratios[cut], ratios[-1 - cut], confidence])


def test_a_ratio_holds_the_true_one_as_often_as_it_says() -> None:
    chance, times = random.Random(3), 1_000
    found = [
        ratio_interval(
            [3 * chance.lognormvariate(0, 1) for _ in range(5)], [chance.lognormvariate(0, 1) for _ in range(5)]
        )
        for _ in range(times)
    ]
    assert sum(3.0 in interval for interval in found) / times == pytest.approx(found[0].confidence, abs=0.02)


@pytest.mark.parametrize(("ours", "theirs"), [([], [1.0]), ([1.0], []), ([0.0], [1.0]), ([1.0], [-1.0])])
def test_no_ratio_of_nothing(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match="value"):
        ratio_interval(ours, theirs)


def test_no_median_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        median_interval([])


def test_spread() -> None:
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2 / 3)
    assert spread([7.0, 7.0]) == 0.0
    assert spread([0.0, 0.0, 0.0]) == 0.0


def test_latencies_are_within_a_hundredth() -> None:
    chance = random.Random(4)
    durations = sorted(math.exp(chance.uniform(math.log(2e-6), math.log(100))) for _ in range(5_000))
    found = Latencies.of(durations)
    assert found.total == 5_000
    for percent in (1, 50, 99, 99.9, 100):
        exact = durations[max(1, math.ceil(5_000 * percent / 100)) - 1]
        assert found.percentile(percent) == pytest.approx(exact, rel=0.01)


def test_latencies_add_up() -> None:
    both = Latencies.of([0.001, 0.002]) + Latencies.of([0.001, 0.5])
    assert both == Latencies.of([0.001, 0.5, 0.002, 0.001])
    curve = list(both.curve())
    assert [share for share, _ in curve] == [1.0, 0.5, 0.25]
    assert [round(seconds, 3) for _, seconds in curve] == pytest.approx([0.001, 0.002, 0.5], rel=0.01)


def test_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        Latencies().percentile(50)
