import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from wakeq_bench.measure import CpuWindow, ProcessGone, cpu_seconds, memory, percentile

BURN = "import time, sys; end = time.process_time() + 0.2\nwhile time.process_time() < end: pass\nsys.stdout.write('x')"


@pytest.fixture
def burner() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has burnt 0.2 s of CPU, and waits for its input to end."""
    code = f"{BURN}; sys.stdout.flush(); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        yield process


def test_cpu_of_another_process_is_what_it_has_burnt(burner: subprocess.Popen[bytes]) -> None:
    assert 0.2 <= cpu_seconds(burner.pid) < 2.0


def test_an_idle_process_costs_nothing(burner: subprocess.Popen[bytes]) -> None:
    before = cpu_seconds(burner.pid)
    assert cpu_seconds(burner.pid) - before < 0.01


def test_cpu_of_this_process_agrees_with_its_own_clock() -> None:
    before = time.process_time()
    measured = cpu_seconds(os.getpid())
    # Children that were waited for are counted too.
    assert measured >= before


def test_a_thread_that_has_ended_stays_counted() -> None:
    def burn() -> None:
        end = time.thread_time() + 0.1
        while time.thread_time() < end:
            pass

    before = cpu_seconds(os.getpid())
    thread = threading.Thread(target=burn)
    thread.start()
    thread.join()
    assert cpu_seconds(os.getpid()) - before >= 0.1


def test_children_are_counted(burner: subprocess.Popen[bytes]) -> None:
    own = time.process_time()
    assert cpu_seconds(os.getpid()) - own >= 0.15


def test_memory(burner: subprocess.Popen[bytes]) -> None:
    found = memory(burner.pid)
    assert found.rss_bytes > 1_000_000
    assert found.pss_bytes is None or 0 < found.pss_bytes <= found.rss_bytes * 1.1


def test_a_process_that_has_ended_is_named(burner: subprocess.Popen[bytes]) -> None:
    window = CpuWindow({"burner": burner.pid})
    burner.communicate()
    with pytest.raises(ProcessGone, match=str(burner.pid)):
        window.spent()
    with pytest.raises(ProcessGone, match=str(burner.pid)):
        memory(burner.pid)


@pytest.mark.parametrize(("percent", "expected"), [(0, 1.0), (50, 2.0), (75, 3.0), (76, 4.0), (99, 4.0), (100, 4.0)])
def test_percentile_is_one_of_the_values(percent: float, expected: float) -> None:
    assert percentile([3.0, 1.0, 4.0, 2.0], percent) == expected


def test_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)
