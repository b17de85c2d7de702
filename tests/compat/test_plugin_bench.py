"""`wakeq bench run task`, as short as it goes."""

import pytest
from rich.console import Console

from tests.compat.under_test import python_of
from wakeq_bench.registry import SCENARIOS
from wakeq_bench.scenarios.servers import ORIGINAL_VERSION

pytestmark = [pytest.mark.compat, pytest.mark.slow]


def test_every_deployment_is_measured_and_compared() -> None:
    python_of(ORIGINAL_VERSION, for_wakeq=True)
    scenario = SCENARIOS["task"]
    report = scenario.run(scenario.parameters(**scenario.quick), Console(quiet=True))
    assert {series.name for series in report.series} == {
        "original", "plug-in", "unmodified service", "our worker", "our client and worker",
    }  # fmt: skip
    assert all(series.samples and min(series.samples) > 0 for series in report.series)
    judged = [figure for figure in report.figures if figure.target is not None]
    assert len(judged) == 13
    (lost,) = (figure for figure in judged if "events lost" in figure.name)
    assert lost.met
