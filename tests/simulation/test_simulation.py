"""A hundred thousand steps of the engine, and faults that must be found.

A violation is replayed by `python -m tests.simulation --seed N --steps M`.
"""

import pytest

from tests.simulation.faults import FAULTS
from tests.simulation.run import simulate

SEEDS = range(1, 21)
STEPS = 4_500
SQLITE_SEEDS = range(101, 106)
SQLITE_STEPS = 2_000
FAULTY_SEEDS = range(201, 241)
FAULTY_STEPS = 2_000


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_promised_holds(seed: int) -> None:
    outcome = simulate(seed, STEPS)
    assert not outcome.violation, _replay(seed, outcome.step, outcome.lines)


@pytest.mark.parametrize("seed", SQLITE_SEEDS)
def test_what_is_promised_holds_on_a_database(seed: int) -> None:
    outcome = simulate(seed, SQLITE_STEPS, "sqlite")
    assert not outcome.violation, _replay(seed, outcome.step, outcome.lines)


def test_a_seed_gives_the_same_history_each_time() -> None:
    assert simulate(7, 1_000).lines == simulate(7, 1_000).lines


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(name: str) -> None:
    with FAULTS[name]():
        assert any(simulate(seed, FAULTY_STEPS).violation for seed in FAULTY_SEEDS)


def _replay(seed: int, step: int, lines: list[str]) -> str:
    return "\n".join([f"replay: python -m tests.simulation --seed {seed} --steps {step}", *lines[-50:]])
