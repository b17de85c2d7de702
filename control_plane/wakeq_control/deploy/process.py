"""A process of a deployment, from outside: started, loaded, told to go, listened to, and ended with all it has started.

`wakeq_control.deploy.child` is the other side. A process is one attempt; `wakeq_control.deploy.unit` starts the next.
"""

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE
from typing import Any, NamedTuple

import anyio
import anyio.abc
import structlog

from wakeq_control.deploy.errors import DeploymentFailed

LOAD_MAX_S = 120.0
"""A module that takes longer to import is given up."""
START_MAX_S = 60.0
"""One that is loaded, and takes longer to begin, is given up."""
_LINE_MAX = 64 * 1024
"""Bytes of a line of output; a longer one is cut in several."""
_LAST_WORDS_S = 1.0
"""How long what an ended process has printed is waited for."""
_CHILD = ("-P", "-m", "wakeq_control.deploy.child")
_log: Any = structlog.get_logger("wakeq.deploy")


class Job(NamedTuple):
    """What a process runs."""

    name: str
    """What the log calls it."""
    words: tuple[str, ...]
    """``queue``, ``control-plane``, or ``service`` and its name."""
    python: Path
    env: Mapping[str, str]
    """On top of the supervisor's own."""
    first: Mapping[str, Any] | None = None
    """What is to be loaded, of a service."""


SERVERS = ("queue", "control-plane")
"""The names of what every deployment has one of."""


def server_job(name: str) -> Job:
    """What the process of one of them runs."""
    return Job(name, (name,), Path(sys.executable), {})


class Problem(NamedTuple):
    """Why a process can't do its work: a sentence, and what to do."""

    detail: str
    hint: str
    is_broken: bool
    """What it was to load is wrong; otherwise it could load, and not start."""


class Process:
    """One process; made by `Process.start`, and ended when the task group of it is cancelled."""

    def __init__(self, job: Job, process: anyio.abc.Process) -> None:
        self._job = job
        self._process = process
        self._loaded = anyio.Event()
        self._ready = anyio.Event()
        self._ended = anyio.Event()
        self._last: list[str] = []
        self._problem: Problem | None = None
        self._is_told_to_stop = False
        self.pid = process.pid
        self.url = ""
        """Where it listens, once it is ready; a service listens nowhere."""

    @classmethod
    async def start(cls, job: Job, tasks: anyio.abc.TaskGroup) -> "Process":
        """Start it, and have its output read. Raises DeploymentFailed."""
        command = [str(job.python), *_CHILD, *job.words]
        try:
            process = await anyio.open_process(
                command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                env={**os.environ, **job.env},
                # A group of its own: a Ctrl-C is for the supervisor, and what it has started ends with it.
                start_new_session=True,
            )
        except OSError as error:
            raise DeploymentFailed(f"{job.name} can't be started: {command[0]}: {error.strerror}") from error
        self = cls(job, process)
        tasks.start_soon(self._attend)
        return self

    # What it is told

    async def load(self) -> Problem | None:
        """Have it load what it runs; returns when it has, or why it can't."""
        if self._job.first is not None:
            await self._tell(self._job.first)
        with anyio.move_on_after(LOAD_MAX_S) as limit:
            await self._loaded.wait()
        if limit.cancelled_caught:
            return Problem(
                f"its import takes longer than {LOAD_MAX_S:.0f} s", "its module must not run, but define", True
            )
        return self._problem

    async def go(self, word: Mapping[str, Any]) -> Problem | None:
        """Have it begin; returns when it is ready, or why it never will be."""
        await self._tell(word)
        with anyio.move_on_after(START_MAX_S) as limit:
            await self._ready.wait()
        if limit.cancelled_caught:
            return Problem(f"it is not ready after {START_MAX_S:.0f} s", "the log above says more", False)
        return self._problem

    async def _tell(self, word: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        # One that has ended is known by its end.
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            await self._process.stdin.send(json.dumps(word).encode() + b"\n")

    # How it ends

    async def ended(self) -> str:
        """Return, once it has ended, how."""
        await self._ended.wait()
        return _how(self._process.returncode)

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, and SIGKILL when the grace is over; returns when nothing of it is left."""
        if not self._is_told_to_stop:
            # A second one would cut the grace short.
            self._is_told_to_stop = True
            with suppress(ProcessLookupError):
                self._process.terminate()
        with anyio.move_on_after(grace_s):
            await self._ended.wait()
        self.kill()
        await self._ended.wait()

    def kill(self) -> None:
        """SIGKILL, to whatever it has started, too."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    # What it says

    async def _attend(self) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._listen)
                tasks.start_soon(self._forward)
                await self._process.wait()
                # What it leaves behind may hold the pipes open, and has nobody to work for.
                self.kill()
                tasks.cancel_scope.deadline = anyio.current_time() + _LAST_WORDS_S
        finally:
            self.kill()
            with anyio.CancelScope(shield=True):
                await self._process.aclose()
            if self._problem is None and not self._ready.is_set():
                self._problem = self._unexpected()
            for event in (self._loaded, self._ready, self._ended):
                event.set()

    def _unexpected(self) -> Problem:
        """Its end, where it said no word of a problem: our commands tell people."""
        said = {line.partition(": ")[0]: line.partition(": ")[2] for line in self._last}
        is_broken = not self._loaded.is_set()
        what = "its process has ended while it was imported" if is_broken and self._job.first else "it has ended"
        detail = said.get("wakeq", f"{what}: {_how(self._process.returncode)}")
        return Problem(detail, said.get("hint", "the log above says more"), is_broken)

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in _lines(self._process.stdout):
            word = json.loads(line)
            if "problem" in word:
                self._problem = Problem(word["problem"], word["hint"], True)
            if "ready" in word:
                self._ready.set()
            else:
                self._loaded.set()

    async def _forward(self) -> None:
        assert self._process.stderr is not None
        async for line in _lines(self._process.stderr):
            text = line.decode(errors="replace").rstrip()
            event = _event(text)
            if event is None:
                self._last = [*self._last[-1:], text]
                _log.info(text, service=self._job.name)
                continue
            level, name = event.get("level"), event["event"]
            more = {key: value for key, value in event.items() if key not in _RESERVED}
            getattr(_log, level if level in _LEVELS else "info")(name, **{**more, "service": self._job.name})
            # A service's own code can print such a line, and is told of by itself.
            if name == "listening" and self._job.first is None:
                self.url = event["url"]
                self._ready.set()


_LEVELS = ("debug", "info", "warning", "error", "critical")
_RESERVED = ("event", "level", "timestamp", "service", "self", "exc_info", "stack_info")
"""What a line of ours gets anew, and what has a meaning of its own to who logs it."""


def _event(text: str) -> dict[str, Any] | None:
    """A line of a log in JSON; None: somebody has printed something."""
    if not text.startswith("{"):
        return None
    try:
        said = json.loads(text)
    except ValueError:
        return None
    return said if isinstance(said.get("event"), str) else None


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


async def _lines(stream: anyio.abc.ByteReceiveStream) -> AsyncIterator[bytes]:
    rest = b""
    with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
        async for part in stream:
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                yield line
            while len(rest) > _LINE_MAX:
                line, rest = rest[:_LINE_MAX], rest[_LINE_MAX:]
                yield line
    if rest:
        yield rest
