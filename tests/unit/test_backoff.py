"""How long a client waits before it tries again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wakeq._backoff import Backoff


def almost_one() -> float:
    return 1.0 - 2.0**-53


def test_the_longest_delay_doubles_up_to_its_bound() -> None:
    backoff = Backoff(lambda: 1.0, base_s=0.5, max_s=3.0)
    assert [backoff.next_delay_s() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_the_first_delays_by_default_are_short_and_ten_seconds_the_longest() -> None:
    backoff = Backoff(lambda: 1.0)
    assert [backoff.next_delay_s() for _ in range(9)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0])


def test_jitter_is_full() -> None:
    numbers = iter([0.0, 0.25, 0.5])
    backoff = Backoff(lambda: next(numbers), base_s=1.0, max_s=100.0)
    assert [backoff.next_delay_s() for _ in range(3)] == [0.0, 0.5, 2.0]


def test_success_ends_the_series() -> None:
    backoff = Backoff(lambda: 1.0, base_s=1.0, max_s=100.0)
    assert [backoff.next_delay_s(), backoff.next_delay_s()] == [1.0, 2.0]
    backoff.succeeded()
    assert [backoff.next_delay_s(), backoff.next_delay_s()] == [1.0, 2.0]


def test_the_servers_wish_comes_on_top() -> None:
    backoff = Backoff(lambda: 0.5, base_s=1.0, max_s=100.0)
    assert [backoff.next_delay_s(30.0), backoff.next_delay_s(), backoff.next_delay_s(7.0)] == [30.5, 1.0, 9.0]


def test_a_long_outage_overflows_nothing() -> None:
    backoff = Backoff(almost_one, base_s=0.1, max_s=10.0)
    assert all(backoff.next_delay_s() <= 10.0 for _ in range(5_000))


@given(
    st.lists(st.floats(0.0, 1.0, exclude_max=True), min_size=1, max_size=50),
    st.floats(0.001, 10.0),
    st.floats(10.0, 1_000.0),
    st.floats(0.0, 100.0),
)
def test_a_delay_is_never_under_the_wish_nor_over_its_bound(
    numbers: list[float], base_s: float, max_s: float, wish_s: float
) -> None:
    jitter = iter(numbers)
    backoff = Backoff(lambda: next(jitter), base_s, max_s)
    for failures in range(len(numbers)):
        assert wish_s <= backoff.next_delay_s(wish_s) <= wish_s + min(max_s, base_s * 2.0**failures)
