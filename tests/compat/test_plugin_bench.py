"""`wakeq bench run task`, as short as it goes."""

import pytest
from rich.console import Console

from tests.compat.under_test import python_of
from wakeq_bench.scenarios import task
from wakeq_bench.scenarios.servers import ORIGINAL_VERSION

pytestmark = [pytest.mark.compat, pytest.mark.slow]


def test_both_are_measured_and_compared() -> None:
    python_of(ORIGINAL_VERSION, for_wakeq=True)
    report = task.run(1, 1, Console(quiet=True))
    assert [sample["system"] for sample in report.samples] == ["SimpleMessageQueue", "plug-in"]
    assert all(len(seconds) == 1 for sample in report.samples for seconds in sample["seconds"].values())
    assert len(report.figures) == 2
    assert all(figure.value > 0 and figure.target is not None for figure in report.figures)
