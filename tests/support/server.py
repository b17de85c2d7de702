"""A real server in a process of its own, for tests over sockets."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

START_S = 60.0
STOP_S = 60.0
LISTENING = ("listening", "url")


class LoggedProcess:
    """A command of ours that runs until it is ended, as somebody else would start it.

    Its log is read all the while, so that it never blocks.
    """

    def __init__(self, arguments: list[str], *, command: str, before: str = "") -> None:
        """``before``: statements that run in its process first."""
        start = ["-c", f"{before}\nfrom wakeq.cli import main\nmain()"] if before else ["-m", "wakeq"]
        self.process = subprocess.Popen(
            [sys.executable, *start, command, "--log-format", "json", *arguments],
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[dict[str, object]] = []
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.log.append(json.loads(line) if line.startswith("{") else {"event": "raw", "text": line.rstrip()})
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def events(self, name: str) -> list[dict[str, object]]:
        """What has been logged under that name so far."""
        with self._changed:
            return [line for line in self.log if line["event"] == name]

    def wait_for(self, name: str) -> dict[str, object]:
        """The first log line of that name. Raises AssertionError if the process ends without one."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or any(line["event"] == name for line in self.log), START_S)
            for line in self.log:
                if line["event"] == name:
                    return line
        raise AssertionError(f"no {name!r} in the server's log: {self.log}")

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """SIGKILL: no chance to write anything."""
        self.process.kill()
        self.wait()

    def wait(self) -> int:
        """The exit code, once it has ended."""
        code = self.process.wait(STOP_S)
        self._reader.join(STOP_S)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


class ServerProcess(LoggedProcess):
    """`wakeq serve`, or another server of ours."""

    def __init__(
        self, arguments: list[str], *, command: str = "serve", before: str = "", said: tuple[str, str] = LISTENING
    ) -> None:
        """``before``: statements that run in its process first. ``said``: which event of its log, and which field of
        that, has its URL."""
        super().__init__(arguments, command=command, before=before)
        event, field = said
        self.url = str(self.wait_for(event)[field])
        parts = urlsplit(self.url)
        self.host, self.port = str(parts.hostname), int(parts.port or 0)


@contextmanager
def start_server(
    data: Path, *arguments: str, durability: str = "memory", port: int = 0, before: str = ""
) -> Iterator[ServerProcess]:
    """A server on a free port, ended on the way out whatever happens."""
    options = ["--port", str(port), "--data", str(data), "--durability", durability]
    server = ServerProcess([*options, *arguments], before=before)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()


@contextmanager
def start_control_plane(
    queue: ServerProcess, data: Path, *arguments: str, durability: str = "fsync", port: int = 0
) -> Iterator[ServerProcess]:
    """A control plane on that queue, ended on the way out whatever happens."""
    options = ["--port", str(port), "--queue", queue.url, "--data", str(data), "--durability", durability]
    server = ServerProcess([*options, *arguments], command="control-plane")
    try:
        # From then on the control plane's topic is there, and who publishes to it is heard.
        server.wait_for("consuming")
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()


class UpProcess(ServerProcess):
    """`wakeq up`, by the address of its control plane."""

    def __init__(self, arguments: list[str]) -> None:
        super().__init__(arguments, command="up", said=("up", "control_plane"))
        self.queue_url = str(self.wait_for("up")["queue"])


@contextmanager
def start_up(data: Path, *arguments: str, durability: str = "memory") -> Iterator[UpProcess]:
    """Both servers in one process on free ports, ended on the way out whatever happens."""
    options = ["--control-port", "0", "--queue-port", "0", "--data", str(data), "--durability", durability]
    server = UpProcess([*options, *arguments])
    try:
        server.wait_for("consuming")
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()


@contextmanager
def start_worker(control_plane: ServerProcess, target: str, *arguments: str) -> Iterator[LoggedProcess]:
    """A worker for the service `wf`, ended on the way out whatever happens: what it has settled is settled then."""
    options = [target, "--service", "wf", "--control-plane", control_plane.url, "--grace", "0", *arguments]
    worker = LoggedProcess(options, command="worker")
    try:
        worker.wait_for("working")
        yield worker
        if worker.process.poll() is None:
            worker.terminate()
    finally:
        if worker.process.poll() is None:
            worker.kill()
