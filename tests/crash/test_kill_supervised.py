"""`wakeq deploy` whose parts are killed, and which is killed itself: to clients of its API server a task ends once."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash.supervised import PARTS, Supervised
from tests.crash.tasks import run_tasks

SEED = 20_265
"""Printed with what is violated; `python -m tests.crash --deploy` draws others."""
TASKS = 24
KILLS = 4


@pytest.mark.slow
def test_every_task_ends_once_whatever_is_killed(tmp_path: Path) -> None:
    with ExitStack() as stack:
        deployment = Supervised(tmp_path, stack)
        outcome = run_tasks(deployment, TASKS, KILLS, SEED)
        deployment.stop()
    assert outcome.violations == [], f"seed {SEED}, {outcome.counts}"
    assert all(outcome.counts.get(f"killed {part}", 0) for part in PARTS), outcome.counts
    assert (outcome.counts["wf: succeeded"], outcome.counts["run"]) == (TASKS * 3 // 4, TASKS // 4)
