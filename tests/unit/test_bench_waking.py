import os
import signal
import subprocess
import sys
import time

from wakeq_bench.measure import switches
from wakeq_bench.waking import WakeWindow, bare_process

OURS = "import sys\nfor line in sys.stdin:\n    print(line, flush=True)"


def test_a_process_is_measured_by_a_bare_one_that_wakes_as_often() -> None:
    with (
        bare_process(0.04) as bare_pid,
        subprocess.Popen(
            [sys.executable, "-c", OURS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as ours,
    ):

        def wake() -> None:
            assert ours.stdin is not None
            assert ours.stdout is not None
            ours.stdin.write("x\n")
            ours.stdin.flush()
            ours.stdout.readline()

        wake()
        window = WakeWindow(ours.pid, bare_pid)
        before = switches(bare_pid) or 0
        deadline = time.monotonic() + 30.0
        while (switches(bare_pid) or 0) < before + 3:
            wake()
            assert time.monotonic() < deadline
        times, bare = window.figures("ours")
        assert times.name == "ours, of a bare process that wakes as often"
        assert times.value > 0.0
        assert bare.value > 0.0


def test_who_has_not_woken_has_no_figures() -> None:
    with subprocess.Popen([sys.executable, "-c", OURS], stdin=subprocess.PIPE, text=True) as stopped:
        stopped.send_signal(signal.SIGSTOP)
        os.waitpid(stopped.pid, os.WUNTRACED)
        assert WakeWindow(stopped.pid, os.getpid()).figures("stopped") == []
        stopped.send_signal(signal.SIGCONT)
