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


def test_a_worker_collects_seldom() -> None:
    gc.set_threshold(*process._FOUND)
    process.tune_collector()
    assert gc.get_threshold() == (10_000, 10, 10)


def test_what_the_code_of_others_has_set_stays() -> None:
    gc.set_threshold(321, 5, 5)
    process.tune_collector()
    assert gc.get_threshold() == (321, 5, 5)
