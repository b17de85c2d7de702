"""What the control plane promises must hold whatever is interleaved, lost or crashes; faults must not go unnoticed."""

from collections import Counter
from functools import cache

import pytest

from tests.simulation.plane.faults import FAULTS, injected
from tests.simulation.plane.run import simulate
from tests.simulation.run import Outcome

STEPS = 500
# What shows a fault shows nothing without one.
SEEDS = sorted({*range(1, 21), *(fault.seed for fault in FAULTS.values())})
ON_DISK = range(101, 105)
FAULT_SEEDS = range(1, 61)


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
    counts: Counter[str] = sum((Counter(outcome_of(seed).counts) for seed in range(1, 5)), Counter())
    assert min(counts[what] for what in ("accepted", "attempts", "succeeded", "redelivered")) > 30
    assert min(counts[what] for what in ("restarts", "cancelled", "timed_out", "retried", "conflicts")) > 5


def test_enough_happens_to_replicas() -> None:
    counts: Counter[str] = sum((Counter(outcome_of(seed).counts) for seed in (12, 48, 66)), Counter())
    assert min(counts["runs"], 10 * counts["gone"], 3 * counts["together"]) > 10


@pytest.mark.parametrize("seed", [7, 8])
def test_a_seed_has_one_history(seed: int) -> None:
    first, second = outcome_of(seed), simulate(seed, STEPS)
    assert first.lines == second.lines
    assert first.counts == second.counts


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_a_fault_is_found(name: str) -> None:
    with injected(name):
        assert any(simulate(seed, STEPS).violation for seed in (FAULTS[name].seed, *FAULT_SEEDS))
