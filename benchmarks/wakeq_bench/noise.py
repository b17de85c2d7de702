"""Whether the machine was left alone while something was measured; what is not is said, and stands in the results."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from wakeq_bench.intervals import spread
from wakeq_bench.measure import cpu_seconds
from wakeq_bench.report import Series, readable

OTHERS_MAX = 0.1
"""Cores that other processes may use."""
STEAL_MAX = 0.01
"""Share of the time for which the processor may be another machine's."""
DRIFT_MAX = 0.07
"""By which the yardstick may take longer or shorter in the end."""
SPREAD_MAX = 0.2
"""How far the middle half of a series may be apart, of its median."""

_DAMON = Path("/sys/kernel/mm/damon/admin/kdamonds")

_YARDSTICK_STEPS = 200_000
_YARDSTICK_TIMES = 7


@dataclass(config=ConfigDict(extra="forbid"))
class Noise:
    """What went on besides, during one scenario."""

    scenario: str
    seconds: float
    others_cores: float
    steal: float
    yardstick_s: tuple[float, float]
    """A fixed piece of work, before and after."""
    unsteady: list[str] = Field(default_factory=list)
    """Series whose rounds differ much."""
    reclaims: bool = False
    """Whether the kernel takes memory from processes that are at rest."""

    def remarks(self) -> list[str]:
        """Sentences on whatever may have disturbed; none on a quiet machine."""
        before, after = self.yardstick_s
        drift = abs(after - before) / before
        found = []
        if self.others_cores > OTHERS_MAX:
            found.append(f"other processes used {self.others_cores:.2f} cores")
        if self.steal > STEAL_MAX:
            found.append(f"the processor was another machine's for {100 * self.steal:.1f} % of the time")
        if drift > DRIFT_MAX:
            found.append(
                f"a fixed piece of work took {100 * drift:.0f} % {'longer' if after > before else 'less'} later"
            )
        if self.reclaims:
            found.append(
                "the kernel took memory from processes at rest (DAMON, pageout), so that waking costs them more"
            )
        if self.unsteady:
            shown = ", ".join(self.unsteady[:3]) + (", ..." if len(self.unsteady) > 3 else "")
            found.append(f"rounds differ by more than {100 * SPREAD_MAX:.0f} % in {len(self.unsteady)} series: {shown}")
        return found


class Watch:
    """Watches the machine from when it is made until `close`."""

    def __init__(self, scenario: str) -> None:
        self._scenario = scenario
        self._yardstick_s = yardstick_seconds()
        self._started = time.monotonic()
        self._times, self._own_s = psutil.cpu_times(), _own_cpu_s()

    def close(self, series: Sequence[Series]) -> Noise:
        """What has been noticed; `series` is what was measured meanwhile."""
        seconds = time.monotonic() - self._started
        times, own_s = psutil.cpu_times(), _own_cpu_s() - self._own_s
        busy_s = _busy_s(times) - _busy_s(self._times)
        steal_s = getattr(times, "steal", 0.0) - getattr(self._times, "steal", 0.0)
        return Noise(
            self._scenario,
            seconds,
            max(0.0, busy_s - own_s) / seconds,
            steal_s / seconds / (os.cpu_count() or 1),
            (self._yardstick_s, yardstick_seconds()),
            list(dict.fromkeys(_named(one) for one in series if spread(one.samples or [0.0]) > SPREAD_MAX)),
            takes_idle_memory(),
        )


def takes_idle_memory(kdamonds: Path = _DAMON) -> bool:
    """Whether DAMON pages out what nobody has touched for a while: who wakes seldom pays for it, who polls does not."""
    try:
        running = [one.parent for one in kdamonds.glob("*/state") if one.read_text().strip() == "on"]
        actions = [action.read_text().strip() for one in running for action in one.glob("contexts/*/schemes/*/action")]
    except OSError:
        return False
    return "pageout" in actions


def _named(series: Series) -> str:
    return f"{series.name} {series.x if isinstance(series.x, str) else readable(series.x)}".strip()


def yardstick_seconds() -> float:
    """How long a fixed piece of work takes: the best of several, which no interruption has lengthened."""
    return min(_timed() for _ in range(_YARDSTICK_TIMES))


def _timed() -> float:
    started, total = time.perf_counter(), 0
    for step in range(_YARDSTICK_STEPS):
        total += step * step
    return time.perf_counter() - started


def _own_cpu_s() -> float:
    return cpu_seconds(os.getpid())


def _busy_s(times: object) -> float:
    return sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))
