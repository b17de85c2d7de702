import math

import pytest

from wakeq_bench.growth import dearest, exponent, growth

SIZES = (1, 10, 100, 1_000)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, -0.25])
def test_a_power_is_found(power: float) -> None:
    assert exponent({size: 3e-6 * size**power for size in SIZES}) == pytest.approx(power, abs=1e-9)


def test_a_logarithm_is_a_small_exponent_and_not_flat() -> None:
    assert 0.1 < exponent({size: 1 + math.log(size) for size in SIZES}) < 0.6


def test_one_disturbed_point_does_not_move_it() -> None:
    curve = {float(10**decade): 1.0 for decade in range(6)}
    assert exponent({**curve, 1_000.0: 3.0}) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("curve", [{}, {1.0: 1.0}, {0.0: 1.0, 1.0: 1.0}, {1.0: 0.0, 2.0: 1.0}])
def test_what_is_no_curve_is_refused(curve: dict[float, float]) -> None:
    with pytest.raises(ValueError):
        exponent(curve)


def test_rounds_are_fitted_by_themselves() -> None:
    found = growth({1.0: [1.0, 1.0, 1.0], 100.0: [1.0, 10.0, 100.0]})
    assert found.exponent == pytest.approx(0.5)
    assert (found.interval.low, found.interval.high) == pytest.approx((0, 1))
    assert found.over_all == pytest.approx(10)
    assert (found.over_all_interval.low, found.over_all_interval.high) == pytest.approx((1, 100))


def test_no_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="no rounds"):
        growth({1.0: [], 2.0: []})


def test_the_dearest_size_is_seen_where_a_fit_would_hide_it() -> None:
    assert dearest({1.0: [2.0, 2.0, 9.0], 10.0: [5.0, 5.0, 5.0], 100.0: [2.0, 2.0, 2.0]}) == pytest.approx(2.5)
