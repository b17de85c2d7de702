"""What it costs a process to wake now and then, whatever it is: beside ours, a bare one of asyncio that is sent a byte.

Who rests finds the processor's caches cold, and on some machines its memory gone. What is left of a figure of idleness
beyond that is ours.
"""

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wakeq_bench.measure import CpuWindow, switches
from wakeq_bench.processes import HOST, START_MAX_S, Child
from wakeq_bench.report import Figure

_SCRIPT = Path(__file__).parent / "scenarios" / "bare_process.py"
_EVERY_S = 15.0
"""As often as a stream has a heartbeat."""
_AT_LEAST = 4
"""Times that it wakes in a window."""


@contextmanager
def bare_process(window_s: float) -> Iterator[int]:
    """A process that reads a byte now and then and does nothing else; its id. For windows that are as long."""
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(START_MAX_S)
        port = listener.getsockname()[1]
        with Child("a bare process", [sys.executable, "-P", str(_SCRIPT), str(port)]) as child:
            connection, _ = listener.accept()
            over = threading.Event()
            beating = threading.Thread(target=_beat, args=(connection, min(_EVERY_S, window_s / _AT_LEAST), over))
            with connection:
                beating.start()
                try:
                    yield child.pid
                finally:
                    over.set()
                    beating.join()


def _beat(connection: socket.socket, every_s: float, over: threading.Event) -> None:
    while not over.wait(every_s):
        connection.sendall(b"\n")


class WakeWindow:
    """What processes cost that rest, and what a bare one would that wakes as often."""

    def __init__(self, pid: int, bare_pid: int) -> None:
        """Opens the window over a process and its children. Raises ProcessGone."""
        self._pids = {"ours": pid, "bare": bare_pid}
        self._switches = self._read()
        self._cpu = CpuWindow(self._pids)

    def figures(self, name: str) -> list[Figure]:
        """The bare one's, and how ``name``'s are to it; none where nobody has woken, or the system doesn't tell.

        Raises ProcessGone.
        """
        cores = self._cpu.cores()
        woken = {who: now - self._switches[who] for who, now in self._read().items()}
        if not woken["ours"] or not woken["bare"]:
            return []
        bare = cores["bare"] * woken["ours"] / woken["bare"]
        return [
            Figure(f"{name}, of a bare process that wakes as often", cores["ours"] / bare, "times"),
            Figure("a bare process that wakes as often: CPU", 100 * bare, "%"),
        ]

    def _read(self) -> dict[str, int]:
        return {who: switches(pid) or 0 for who, pid in self._pids.items()}
