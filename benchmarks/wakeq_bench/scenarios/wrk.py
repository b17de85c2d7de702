"""wrk, which makes more load than a Python client could: one request again and again, or one made by a Lua script."""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

_FOUND = re.compile(r"^Requests/sec:\s+([0-9.]+)", re.MULTILINE)
_TOTAL = re.compile(r"^\s+([0-9]+) requests in ", re.MULTILINE)
_REFUSED = re.compile(r"Non-2xx or 3xx responses: ([0-9]+)|^\s+Socket errors: (.*)$", re.MULTILINE)

CONNECTIONS = 64


class WrkFailed(RuntimeError):
    """wrk is not installed, or did not do what it was asked."""


@dataclass(frozen=True)
class Load:
    """What wrk has done."""

    requests: int
    per_second: float


def find_wrk() -> str:
    """Where it is. Raises WrkFailed."""
    found = shutil.which("wrk")
    if found is None:
        raise WrkFailed("wrk, which makes the load, is not installed: try `apt-get install wrk` or `brew install wrk`.")
    return found


def repeated(body: bytes) -> str:
    """A script that POSTs one JSON body again and again."""
    return f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\nwrk.body = [[{body.decode()}]]\n'


def run(url: str, seconds: int, script: str | None = None) -> Load:
    """Repeat a request, a GET where no script says otherwise. Raises WrkFailed, when any was refused too."""
    with tempfile.TemporaryDirectory(prefix="wakeq-bench-") as folder:
        options = []
        if script is not None:
            path = Path(folder) / "load.lua"
            path.write_text(script, encoding="utf-8")
            options = ["--script", str(path)]
        command = [find_wrk(), "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", *options, url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    if done.returncode != 0:
        raise WrkFailed(f"wrk failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return load_in(done.stdout)


def load_in(output: str) -> Load:
    """What wrk has printed as its result. Raises WrkFailed."""
    found, total, refused = _FOUND.search(output), _TOTAL.search(output), _REFUSED.search(output)
    if refused is not None:
        raise WrkFailed(f"requests failed under wrk: {refused.group(0).strip()}.")
    if found is None or total is None:
        raise WrkFailed(f"wrk gave no result: {output.strip()[-500:]}")
    return Load(int(total.group(1)), float(found.group(1)))
