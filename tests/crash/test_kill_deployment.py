"""A whole deployment whose processes are killed: every task ends once, and no stream has lost anything."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.compat.under_test import python_of
from tests.crash.deployment import PARTS, Deployment
from tests.crash.tasks import EVENTS, Seen, _wrong_with, run_tasks

SEED = 20_264
"""Printed with what is violated; `python -m tests.crash --plane` draws others."""
TASKS = 48
KILLS = 4


@pytest.mark.slow
@pytest.mark.compat
def test_every_task_ends_once_whatever_is_killed(tmp_path: Path) -> None:
    with ExitStack() as stack:
        outcome = run_tasks(Deployment(tmp_path, python_of("0.8.1"), stack), TASKS, KILLS, SEED)
    assert outcome.violations == [], f"seed {SEED}, {outcome.counts}"
    assert sum(outcome.counts.get(f"killed {part}", 0) for part in PARTS) >= len(PARTS), outcome.counts
    assert outcome.counts["wf: succeeded"] == TASKS * 3 // 4


# The checker, on histories that can't be.


def seen(*numbers: int, of_ours: bool = True, ends: int = 2) -> Seen:
    service, wanted = ("wf", f"done: {EVENTS}") if of_ours else ("unmodified", "echo: T")
    events = [{"number": number} for number in numbers]
    return Seen("T", "S", service, wanted, of_ours, events, [("succeeded", wanted)] * ends)


def ended(*ends: tuple[str, str], of_ours: bool = True) -> Seen:
    one = seen(of_ours=of_ours)
    one.ends = [*ends]
    return one


def test_a_history_that_can_be() -> None:
    assert list(_wrong_with(seen(*range(EVENTS)))) == []
    failed = seen(0, 1, 2, of_ours=False)
    failed.ends = [("timed_out", "TASK_TIMED_OUT")] * 2
    assert list(_wrong_with(failed)) == []


@pytest.mark.parametrize(
    "wrong",
    [
        seen(*range(EVENTS - 1)),
        seen(*range(EVENTS - 1), of_ours=False),
        seen(1, 0, *range(2, EVENTS)),
        seen(0, *range(EVENTS)),
        ended(("failed", "x")),
        ended(("succeeded", "x"), ("timed_out", "y"), of_ours=False),
        ended(of_ours=False),
    ],
)
def test_a_history_that_can_not_be(wrong: Seen) -> None:
    assert list(_wrong_with(wrong))
