"""What tests of the command line ask of it, and of the server behind it."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Self

import httpx
from typer.testing import Result

from tests.support.server import STOP_S, ServerProcess

Wakeq = Callable[..., Result]
"""The command line in this process; its words, where there are only words."""


def said(result: Result) -> str:
    """What a command that did as it was told says."""
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout.removesuffix("\n")


def refused(result: Result, code: int = 1) -> str:
    """The sentence of a refusal. It is on stderr, has a hint behind it, and nothing is on stdout."""
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    message, hint = result.stderr.splitlines()
    assert hint.startswith("hint: ")
    return message.removeprefix("wakeq: ")


def misused(result: Result) -> str:
    """What Typer says of a wrong call."""
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert "--help' for help." in result.stderr
    return result.stderr


def standing(http: httpx.Client, topic: str, group: str = "default") -> dict[str, Any]:
    found: dict[str, Any] = http.get(f"/topics/{topic}/groups/{group}").json()
    return found


def publish(http: httpx.Client, topic: str, *bodies: Any) -> None:
    for body in bodies:
        assert http.post(f"/messages/{topic}", json=body).status_code == 200


def die(http: httpx.Client, topic: str, count: int) -> None:
    claimed = http.post(f"/messages/{topic}/claim", json={"max": count}).json()["messages"]
    nacks = [{"lease_id": delivery["lease_id"]} for delivery in claimed]
    assert http.post(f"/messages/{topic}/settle", json={"nack": nacks}).status_code == 200


# A shell that runs the tests in its background has interrupts ignored, and whatever they start inherits that.
START = (
    "import runpy, signal as s; s.signal(s.SIGINT, s.default_int_handler); runpy.run_module('wakeq', None, '__main__')"
)


def started(server: ServerProcess, *arguments: str, before: str = "", **more: Any) -> subprocess.Popen[bytes]:
    """The command line in a process of its own, which runs ``before`` first."""
    env = {**os.environ, "WAKEQ_URL": server.url, "TERM": "xterm", **more.pop("env", {})}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
    return subprocess.Popen([sys.executable, "-c", before + START, *arguments], env=env, **pipes)


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=STOP_S)
    return process.returncode, out.decode(), err.decode()


class Terminal:
    """A command whose stdout and stderr are one terminal of 100 columns and 30 lines."""

    def __init__(self, server: ServerProcess, *arguments: str, **more: Any) -> None:
        self._ours, theirs = pty.openpty()
        env = {"COLUMNS": "100", "LINES": "30", **more.pop("env", {})}
        self.process = started(server, *arguments, stdout=theirs, stderr=theirs, env=env, **more)
        os.close(theirs)
        self.shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._ours)
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=STOP_S)

    def read_until(self, wanted: str) -> str:
        """What was shown since the last call, up to a match of that; without what moves the cursor, and colours."""
        give_up = time.monotonic() + STOP_S
        while not (match := re.search(wanted, self._plain())):
            part = self._read()
            if not part or time.monotonic() > give_up:
                raise AssertionError(f"no {wanted!r} in {self._plain()[-2_000:]!r}")
            self.shown += part
        plain = self._plain()
        self.shown = plain[match.end() :]
        return plain[: match.end()]

    def end(self) -> tuple[int, str]:
        """The exit code, and the rest of what it shows."""
        while part := self._read():
            self.shown += part
        return self.process.wait(STOP_S), self.shown

    def _plain(self) -> str:
        return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", self.shown)

    def _read(self) -> str:
        ready, _, _ = select.select([self._ours], [], [], STOP_S)
        assert ready, f"nothing more after {self.shown!r}"
        try:
            return os.read(self._ours, 65_536).decode(errors="replace")
        except OSError:
            # What Linux says at the end of a terminal.
            return ""
