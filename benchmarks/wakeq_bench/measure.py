"""What a process costs: CPU seconds to the nanosecond, and memory.

An idle queue spends hundredths of a percent of a core, which the 10 ms ticks of `ps` and psutil cannot show. On Linux
the CPU clock of the process is read instead: nanoseconds, summed over its threads, those that have ended included
(/proc/PID/task/*/schedstat has the same nanoseconds, but forgets a thread when it ends).
"""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

_CPUCLOCK_SCHED = 2


class ProcessGone(RuntimeError):
    """A process ended while it was measured."""


@dataclass(frozen=True)
class Memory:
    """What a process occupies; PSS shares out the pages that several processes map, and is not known everywhere."""

    rss_bytes: int
    pss_bytes: int | None


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, its living children, and the children it has waited for. Raises ProcessGone."""
    try:
        process = psutil.Process(pid)
        living = [child.pid for child in process.children(recursive=True)]
        times = process.cpu_times()
        waited_for = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
        return float(_own_cpu_seconds(pid) + waited_for + sum(_own_cpu_seconds(child) for child in living))
    except (psutil.NoSuchProcess, OSError) as error:
        raise ProcessGone(f"process {pid} ended while it was measured") from error


def memory(pid: int) -> Memory:
    """What a process occupies now. Raises ProcessGone."""
    try:
        process = psutil.Process(pid)
        pss = getattr(process.memory_full_info(), "pss", None)
        return Memory(rss_bytes=int(process.memory_info().rss), pss_bytes=pss)
    except psutil.NoSuchProcess as error:
        raise ProcessGone(f"process {pid} ended while it was measured") from error


class CpuWindow:
    """CPU seconds that named processes have spent since the window was opened."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._opened_at = time.perf_counter()
        self._before = self._read()

    @property
    def seconds(self) -> float:
        """How long it has been open."""
        return time.perf_counter() - self._opened_at

    def spent(self) -> dict[str, float]:
        """By name. Raises ProcessGone."""
        return {name: after - self._before[name] for name, after in self._read().items()}

    def cores(self) -> dict[str, float]:
        """By name, as a share of one core. Raises ProcessGone."""
        spent, seconds = self.spent(), self.seconds
        return {name: used / seconds for name, used in spent.items()}

    def _read(self) -> dict[str, float]:
        return {name: cpu_seconds(pid) for name, pid in self._pids.items()}


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of them do not exceed (nearest rank). Raises ValueError if empty."""
    if not values:
        raise ValueError("no values")
    rank = max(1, math.ceil(len(values) * percent / 100))
    return sorted(values)[rank - 1]


def _own_cpu_seconds(pid: int) -> float:
    if sys.platform == "linux":
        return time.clock_gettime(_cpu_clock(pid))
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _cpu_clock(pid: int) -> int:
    # What clock_getcpuclockid(3) returns, which Python does not offer for other processes.
    return (~pid << 3) | _CPUCLOCK_SCHED
