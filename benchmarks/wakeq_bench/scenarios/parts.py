"""Parts of a scenario that say something each by themselves: one that fails doesn't lose the others."""

from collections.abc import Callable, Mapping

import httpx

import wakeq
from wakeq_bench.peers.contestant import FAILURES
from wakeq_bench.report import Missing, Report
from wakeq_bench.scenarios.parked import ParkingFailed
from wakeq_bench.scenarios.wrk import WrkFailed


def measure_each(parts: Mapping[str, Callable[[], None]], report: Report) -> None:
    """Measure them in this order; those that fail are named in the report. Raises what the last did if all have."""
    failed = 0
    for name, measure in parts.items():
        try:
            measure()
        except (*FAILURES, ParkingFailed, WrkFailed, wakeq.WakeqError, httpx.HTTPError) as error:
            failed += 1
            if failed == len(parts):
                raise
            report.missing.append(Missing(name, str(error)))
