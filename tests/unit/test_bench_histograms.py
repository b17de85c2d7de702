import math

import pytest

from wakeq_bench.scenarios.histograms import Histogram, histogram_in

TEXT = """# TYPE wakeq_x histogram
wakeq_x_bucket{le="0.1"} 2.0
wakeq_x_bucket{le="0.2"} 6.0
wakeq_x_bucket{le="+Inf"} 8.0
wakeq_x_count 8.0
wakeq_xy_bucket{le="0.1"} 5.0
wakeq_z_bucket{topic="a",le="1.0"} 1.0
wakeq_z_bucket{topic="b",le="1.0"} 2.0
"""


def test_read_by_name() -> None:
    assert histogram_in(TEXT, "wakeq_x") == Histogram({0.1: 2.0, 0.2: 6.0, math.inf: 8.0})
    assert histogram_in(TEXT, "wakeq_z") == Histogram({1.0: 3.0})
    assert histogram_in(TEXT, "wakeq") == Histogram()


@pytest.mark.parametrize(("share", "value"), [(0.125, 0.05), (0.25, 0.1), (0.5, 0.15), (0.75, 0.2), (0.9, 0.2)])
def test_quantiles_lie_on_a_line_within_their_bucket(share: float, value: float) -> None:
    assert histogram_in(TEXT, "wakeq_x").quantile(share) == pytest.approx(value)


def test_nothing_has_no_quantile() -> None:
    assert math.isnan(Histogram().quantile(0.5))
    assert math.isnan(Histogram({0.1: 0.0, math.inf: 0.0}).quantile(0.5))


def test_what_came_between_two_looks() -> None:
    before, after = Histogram({0.1: 1.0, math.inf: 1.0}), Histogram({0.1: 1.0, math.inf: 3.0})
    assert (after - before).counts == {0.1: 0.0, math.inf: 2.0}
    assert after - Histogram() == after
    assert Histogram() + after == after
    assert (after + after).total == 6.0
