"""What a process costs: CPU seconds to the nanosecond, and memory.

An idle queue spends hundredths of a percent of a core, which the 10 ms ticks of `ps` and psutil cannot show. On Linux
the CPU clock of the process is read instead: nanoseconds, summed over its threads, those that have ended included
(/proc/PID/task/*/schedstat has the same nanoseconds, but forgets a thread when it ends).
"""

import contextlib
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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


def switches(pid: int) -> int | None:
    """How often the threads of a process and its living children have gone to sleep and been woken so far.

    None where the system doesn't tell. Raises ProcessGone.
    """
    if sys.platform != "linux":
        return None
    try:
        family = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
        return sum(_own_switches(one) for one in family)
    except (psutil.NoSuchProcess, OSError) as error:
        raise ProcessGone(f"process {pid} ended while it was measured") from error


@dataclass(frozen=True)
class Traffic:
    """What has gone over the loopback interface, whoever has sent it."""

    byte_count: int
    packets: int

    @classmethod
    def so_far(cls) -> "Traffic | None":
        """Since the machine's start; None where there is no such interface."""
        interfaces = psutil.net_io_counters(pernic=True, nowrap=True)
        found = next((interfaces[name] for name in ("lo", "lo0") if name in interfaces), None)
        return None if found is None else cls(found.bytes_sent, found.packets_sent)


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


def _own_switches(pid: int) -> int:
    # Of every thread: psutil's number is that of the first alone.
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        # A thread may end meanwhile.
        with contextlib.suppress(OSError):
            total += _switches_in(status.read_text())
    return total


def _switches_in(status: str) -> int:
    lines = (line.partition(":") for line in status.splitlines())
    return sum(int(value) for name, _, value in lines if name == "voluntary_ctxt_switches")


def _own_cpu_seconds(pid: int) -> float:
    if sys.platform == "linux":
        return time.clock_gettime(_cpu_clock(pid))
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _cpu_clock(pid: int) -> int:
    # What clock_getcpuclockid(3) returns, which Python does not offer for other processes.
    return (~pid << 3) | _CPUCLOCK_SCHED
