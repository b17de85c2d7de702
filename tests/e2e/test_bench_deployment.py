"""`wakeq bench run deployment`, as short as it goes, without llama_deploy."""

import pytest
from rich.console import Console

from wakeq_bench.scenarios import deployment

pytestmark = pytest.mark.slow


def test_a_start_a_command_and_idleness() -> None:
    given = deployment.Deployment(only=["start", "run", "idle"], rounds=1, seconds=1.0)
    report = deployment.run(given, Console(quiet=True))
    start, command, imports, idle, *_ = (figure.value for figure in report.figures)
    assert min(start, command, imports) > 0
    assert 0 <= idle < 100
    assert [series.name for series in report.series] == [figure.name for figure in report.figures[:3]]
