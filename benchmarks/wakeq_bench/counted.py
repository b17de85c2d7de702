"""A `wakeq` command that counts what its process does: Python calls of all its threads, memory blocks that it holds.

Run as `python -m wakeq_bench.counted calls|blocks ARGUMENTS…`; first prints a record with the port of `control`. Each
connection to that port is answered by a record of what has been counted so far, and closed. A resumed coroutine counts
as a call. Only what has `calls` as its first argument is slowed down by counting them.
"""

import gc
import itertools
import json
import runpy
import socket
import sys
import threading
from types import FrameType

_HOST = "127.0.0.1"


class Calls:
    """Counts; a profile function of Python."""

    def __init__(self) -> None:
        # One step of the interpreter, where `+= 1` of two threads could count once.
        self._count = itertools.count()
        self._read = 0

    def __call__(self, _frame: FrameType, event: str, _argument: object) -> None:
        """What the interpreter tells at each call and return."""
        if event == "call":
            next(self._count)

    @property
    def so_far(self) -> int:
        """How many there were; reading is none."""
        found = next(self._count) - self._read
        self._read += 1
        return found


def _answer(listening: socket.socket, calls: Calls) -> None:
    while True:
        connection, _ = listening.accept()
        with connection:
            # What only waits to be collected is not held.
            gc.collect()
            found = {"calls": calls.so_far, "blocks": sys.getallocatedblocks()}
            connection.sendall(json.dumps(found).encode())


def main() -> None:
    """Count, and be the command."""
    _, mode, *arguments = sys.argv
    listening, calls = socket.create_server((_HOST, 0)), Calls()
    # Started before anything is counted, so that answering is not.
    threading.Thread(target=_answer, args=(listening, calls), name="counts", daemon=True).start()
    sys.stdout.write(json.dumps({"control": listening.getsockname()[1]}) + "\n")
    sys.stdout.flush()
    if mode == "calls":
        threading.setprofile(calls)
        sys.setprofile(calls)
    sys.argv = ["wakeq", *arguments]
    runpy.run_module("wakeq", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
