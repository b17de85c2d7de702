"""A script of wakeq_bench.peers under a foreign python, read line by line.

Waiting is always for something: a line, or the end of the process. The time-outs are bounds for failure only.
"""

import json
import os
import queue
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from wakeq_bench.peers.llama_deploy import script

START_MAX_S = 60.0
LINE_MAX_S = 20.0
STOP_MAX_S = 60.0


class PeerProcess:
    """One running script."""

    def __init__(self, process: "subprocess.Popen[str]", errors: Path) -> None:
        assert process.stdout is not None
        self.process = process
        self._stdout = process.stdout
        self._errors = errors
        # None stands for the end of the output.
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def ask(self, line: str) -> None:
        """Give it a line of standard input, if it was started with one."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise AssertionError(f"the process ended; {self._explanation()}") from None

    def line(self, timeout_s: float = LINE_MAX_S) -> str:
        """The next line of its output."""
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise AssertionError(f"no line within {timeout_s} s; {self._explanation()}") from None
        if line is None:
            raise AssertionError(f"the process ended; {self._explanation()}")
        return line

    def record(self, timeout_s: float = LINE_MAX_S) -> dict[str, Any]:
        """The next line, which is JSON."""
        record: dict[str, Any] = json.loads(self.line(timeout_s))
        return record

    def records(self, count: int) -> list[dict[str, Any]]:
        """The next `count` lines."""
        return [self.record() for _ in range(count)]

    def assert_quiet_for(self, seconds: float) -> None:
        """Watch it so long, and fail if it says something or ends."""
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            return
        raise AssertionError(f"expected no line, got {line!r}; {self._explanation()}")

    def finish(self) -> None:
        """Wait until it has ended by itself, without error."""
        assert self.process.wait(STOP_MAX_S) == 0, self._explanation()

    def stop(self) -> list[str]:
        """End it, if it runs, and return the lines that nobody has read."""
        self.process.terminate()
        try:
            self.process.wait(STOP_MAX_S)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join()
            self._stdout.close()
            if self.process.stdin is not None:
                with suppress(BrokenPipeError):
                    self.process.stdin.close()
        return list(self._unread())

    def _unread(self) -> Iterator[str]:
        while not self._lines.empty():
            line = self._lines.get()
            if line is not None:
                yield line

    def _read(self) -> None:
        for line in self._stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _explanation(self) -> str:
        return f"exit status {self.process.poll()}, end of its stderr:\n{self._errors.read_text()[-2000:]}"


@contextmanager
def peer(
    python: Path,
    name: str | Path,
    *arguments: object,
    errors: Path,
    environment: Mapping[str, str] | None = None,
    is_asked: bool = False,
) -> Iterator[PeerProcess]:
    """The running script `name`, whose stderr goes to the file `errors`; it is ended on the way out."""
    path = name if isinstance(name, Path) else script(name)
    command = [str(python), str(path), *map(str, arguments)]
    settings = {**os.environ, **(environment or {})}
    with errors.open("w") as stderr:
        running = PeerProcess(
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE if is_asked else None,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=settings,
            ),
            errors,
        )
    try:
        yield running
    finally:
        running.stop()
