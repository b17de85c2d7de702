"""Child processes: started in a group of their own, waited for by a line of their output, always ended.

A thread a child takes in its output, so that a child never blocks on a full pipe and waiting needs no polling. The
group keeps Ctrl-C from reaching the children: they end when the `with` block that holds them does, in its order.
"""

import json
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self, TypeVar

HOST = "127.0.0.1"
START_MAX_S = 60.0
STOP_MAX_S = 15.0

_TAIL_LINES = 15
_SETTINGS = ("WAKEQ_", "LLAMA_DEPLOY_", "SIMPLE_MESSAGE_QUEUE_", "CONTROL_PLANE_", "WORKFLOW_SERVICE_")
_KEPT_LINES = 20_000

Found = TypeVar("Found")


class ProcessFailed(RuntimeError):
    """A child ended by itself, or did not say in time what was waited for; the message holds the end of its output."""


class Child:
    """A running child process; a context manager that ends it."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._changed = threading.Condition()
        self._unread: deque[str] = deque(maxlen=_KEPT_LINES)
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._ended = False
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            env={**_environment(), **(environment or {})},
        )
        self._reader = threading.Thread(target=self._take_in, name=f"output of {name}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Of the process, which is also its group's."""
        return self._process.pid

    def wait_for(self, wanted: Callable[[str], Found | None], timeout_s: float = START_MAX_S) -> Found:
        """What `wanted` makes of the first line that it makes something of. Raises ProcessFailed."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                while self._unread:
                    found = wanted(self._unread.popleft())
                    if found is not None:
                        return found
                if self._ended:
                    self._fail("ended")
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    self._fail(f"said nothing of what was waited for within {timeout_s:g} s")

    def wait_for_ready(self, timeout_s: float = START_MAX_S) -> None:
        """Return when it has printed READY. Raises ProcessFailed."""
        self.wait_for(lambda line: True if line == "READY" else None, timeout_s)

    def wait_for_record(self, key: str, timeout_s: float = START_MAX_S) -> dict[str, Any]:
        """The next line that is a JSON object with `key` in it. Raises ProcessFailed."""
        return self.wait_for(lambda line: json_record(line, key), timeout_s)

    def ask(self, key: str, timeout_s: float = START_MAX_S, number: signal.Signals = signal.SIGUSR1) -> dict[str, Any]:
        """Send a signal to a child that answers it by a record with `key` in it. Raises ProcessFailed."""
        os.kill(self.pid, number)
        return self.wait_for_record(key, timeout_s)

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def check(self) -> None:
        """Raises ProcessFailed if it has ended."""
        if self._process.poll() is not None:
            self._reader.join(1.0)
            with self._changed:
                self._fail("ended")

    def kill(self) -> None:
        """End it and its own children by SIGKILL, as a crash would."""
        os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """End it: asked by SIGTERM, and its whole group forced when that takes longer than STOP_MAX_S."""
        try:
            if self._process.poll() is None:
                self._process.terminate()
                self._process.wait(STOP_MAX_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._kill_group()
        self._reader.join(1.0)

    def _kill_group(self) -> None:
        # Signalled before the leader is waited for, whose id a new process could have otherwise.
        if self._process.returncode is None:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()

    def _take_in(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._add(line.rstrip("\n"))
        # Its output ends a moment before it does, and who is told that it has ended asks for its status.
        self._process.wait()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _add(self, line: str) -> None:
        with self._changed:
            self._unread.append(line)
            self._tail.append(line)
            self._changed.notify_all()

    def _fail(self, what: str) -> NoReturn:
        status = self._process.poll()
        with_status = f"{what} with status {status}" if status is not None else what
        tail = "".join(f"\n  {line}" for line in self._tail) or " without a word"
        raise ProcessFailed(f"{self.name} {with_status}:{tail}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@dataclass(frozen=True)
class Server:
    """A server that accepts connections at `url`."""

    url: str
    child: Child

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])


def json_record(line: str, key: str) -> dict[str, Any] | None:
    """The JSON object that a line consists of, if it has `key`."""
    if not line.startswith("{"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and key in record else None


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nothing listens on, all different."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [int(listening.getsockname()[1]) for listening in sockets]
    for listening in sockets:
        listening.close()
    return ports


def raise_open_files() -> int:
    """Let this process, and its children, have as many open files as the system allows it; how many that is."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that children are ended."""

    def unwind(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, unwind) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _environment() -> dict[str, str]:
    # What is measured is set by the command line alone, and no proxy stands between processes of one machine.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
    return {**kept, "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
