import pytest

from wakeq_bench.measure import Memory
from wakeq_bench.scenarios import parked
from wakeq_bench.scenarios.parked import KINDS, Found, figures

BARE, CLAIM = KINDS[:2]


def found(kind: parked.Kind, bytes_each: int, woken: int = 1) -> Found:
    after = Memory(bytes_each * 9, None)
    return Found(kind.name, 10, 0.1, 1.0, Memory(0, None), after, 0.001, woken, [0.002], [0.001])


def test_memory_of_rounds_beside_that_of_the_bare_app() -> None:
    told = figures(
        [BARE, CLAIM],
        {
            BARE.name: [found(BARE, each) for each in (1_000, 1_100, 1_200)],
            CLAIM.name: [found(CLAIM, each) for each in (1_500, 1_540, 1_900)],
        },
    )
    values = {figure.name: figure for figure in told}
    each, beside = values["claim: server memory each"], values["claim: memory, of bare ASGI"]
    assert (each.value, each.met) == (1_540, True)
    assert beside.value == pytest.approx(1.4)
    assert beside.met is True
    assert beside.interval is not None
    assert (beside.interval.low, beside.interval.high) == pytest.approx((1_500 / 1_200, 1_900 / 1_000))


def test_a_round_that_woke_more_than_one_counts() -> None:
    told = figures([BARE, CLAIM], {BARE.name: [found(BARE, 1)] * 2, CLAIM.name: [found(CLAIM, 1), found(CLAIM, 1, 2)]})
    (woken,) = (figure for figure in told if figure.name == "claim: woken by one publish")
    assert woken.met is False


def test_without_a_measurable_growth_nothing_is_compared() -> None:
    told = figures([BARE, CLAIM], {BARE.name: [found(BARE, 0)], CLAIM.name: [found(CLAIM, 1_000)]})
    assert not any("of bare ASGI" in figure.name for figure in told)
