"""`wakeq bench run task`, as short as it goes."""

import pytest
from rich.console import Console

from tests.compat.under_test import python_of
from wakeq_bench.registry import SCENARIOS
from wakeq_bench.scenarios.servers import ORIGINAL_VERSION

pytestmark = [pytest.mark.compat, pytest.mark.slow]


def test_an_unmodified_service_loses_nothing_and_an_idle_deployment_costs_little() -> None:
    python_of(ORIGINAL_VERSION, for_wakeq=True)
    scenario = SCENARIOS["task"]
    given = scenario.parameters(**{**scenario.quick, "only": ["losses", "idleness"]})
    report = scenario.run(given, Console(quiet=True))
    lost, cpu, requests = report.figures
    assert "events lost" in lost.name
    assert lost.met
    assert 0 <= cpu.value < 1
    assert requests.value >= 0
