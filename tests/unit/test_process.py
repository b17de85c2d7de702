"""What a process sets for itself."""

import gc
from collections.abc import Iterator

import pytest

from wakeq._serving import process


@pytest.fixture(autouse=True)
def thresholds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process keeps its own, and what it has loaded can still be collected."""
    monkeypatch.setattr(gc, "freeze", lambda: None)
    found = gc.get_threshold()
    yield
    gc.set_threshold(*found)


@pytest.mark.parametrize("as_it_comes", sorted(process._AS_IT_COMES))
def test_a_worker_collects_seldom(as_it_comes: tuple[int, int, int]) -> None:
    gc.set_threshold(*as_it_comes)
    process.tune_collector()
    assert gc.get_threshold() == (10_000, 10, 10)


def test_what_the_code_of_others_has_set_stays() -> None:
    gc.set_threshold(321, 5, 5)
    process.tune_collector()
    assert gc.get_threshold() == (321, 5, 5)
