"""Promises that must hold whatever is interleaved, fails or crashes; and faults that must not go unnoticed."""

from collections import Counter
from functools import cache

import pytest

from tests.simulation.faults import FAULTS, injected
from tests.simulation.run import Outcome, simulate

STEPS = 2_500
SEEDS = range(1, 37)
ON_DISK = range(101, 105)
FAULT_SEEDS = range(1, 16)
FAULT_STEPS = 1_200


@cache
def outcome_of(seed: int) -> Outcome:
    """Of a simulation with nothing wrong in it, for all tests that look at one."""
    return simulate(seed, STEPS)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_promised_is_broken(seed: int) -> None:
    outcome = outcome_of(seed)
    assert not outcome.violation, "\n".join([*outcome.lines[-50:], outcome.violation])
    assert outcome.step == STEPS


@pytest.mark.parametrize("seed", ON_DISK)
def test_nothing_promised_is_broken_on_the_real_store(seed: int) -> None:
    outcome = simulate(seed, STEPS, "sqlite")
    assert not outcome.violation, "\n".join([*outcome.lines[-50:], outcome.violation])
    assert outcome.step == STEPS


def test_enough_happens_for_that_to_mean_something() -> None:
    counts: Counter[str] = sum((Counter(outcome_of(seed).counts) for seed in range(1, 4)), Counter())
    assert min(counts[what] for what in ("published", "delivered", "settled", "full")) > 100
    assert counts["restarts"] > 2


@pytest.mark.parametrize("seed", [7, 8])
def test_a_seed_has_one_history(seed: int) -> None:
    first, second = simulate(seed, 1_000), simulate(seed, 1_000)
    assert first.lines == second.lines
    assert first.counts == second.counts


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_a_fault_is_found(name: str) -> None:
    with injected(name):
        assert any(simulate(seed, FAULT_STEPS).violation for seed in (FAULTS[name].seed, *FAULT_SEEDS))
