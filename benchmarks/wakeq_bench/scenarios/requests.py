"""Requests per second of one server process under wrk: wakeq against a bare ASGI app, in turns."""

import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from wakeq_bench.report import Figure, Overview, Report, Target
from wakeq_bench.scenarios.progress import Work
from wakeq_bench.scenarios.raw import call
from wakeq_bench.scenarios.servers import QUEUE_MESSAGE, Server, bare_server, wakeq_server

_TOPIC = "requests"
_CONNECTIONS = 64
_STARTING_PLANNED_S = 1.5
_SHARE_MIN = Target(">=", 60)
_FOUND = re.compile(r"^Requests/sec:\s+([0-9.]+)", re.MULTILINE)
_REFUSED = re.compile(r"Non-2xx or 3xx responses: ([0-9]+)|^\s+Socket errors: (.*)$", re.MULTILINE)


class WrkFailed(RuntimeError):
    """wrk is not installed, or did not do what it was asked."""


@dataclass(frozen=True)
class Load:
    """A request that wrk repeats, and the bare app that answers its like."""

    name: str
    path: str
    bare_app: str
    body: bytes | None = None
    target: Target | None = None


POLL = Load("GET of an empty topic, ?wait=0", f"/messages/{_TOPIC}?wait=0", "null", target=_SHARE_MIN)
PUBLISH = Load("POST of a message, nothing stored on disk", f"/messages/{_TOPIC}", "sink", body=QUEUE_MESSAGE)


def run(loads: list[Load], pairs: int, seconds: int, console: Console) -> Report:
    """Measure the loads. Raises WrkFailed, ProcessFailed, BrokenAnswer, OSError."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise WrkFailed("wrk, which makes the load, is not installed: try `apt-get install wrk` or `brew install wrk`.")
    settings = {"pairs": pairs, "seconds": seconds, "connections": _CONNECTIONS, "wrk_threads": 1}
    report = Report("requests", "Requests per second, one process", settings)
    rows = []
    with Work(console, len(loads) * pairs * 2 * (seconds + _STARTING_PLANNED_S)) as work:
        for load in loads:
            ours, bare = _in_turns(wrk, load, pairs, seconds, work)
            report.samples.append({"load": load.name, "wakeq_per_s": ours, "bare_per_s": bare})
            share = 100 * statistics.median(ours) / statistics.median(bare)
            report.figures.append(Figure(f"{load.name}: of bare ASGI", share, "%", load.target))
            rows.append([load.name, f"{statistics.median(ours):,.0f}", f"{statistics.median(bare):,.0f}"])
    report.overview = Overview(["medians, per second", "wakeq", "bare ASGI"], rows)
    report.notes.append("wrk shares the machine's cores with the server. No process is pinned to a core.")
    return report


def requests_per_second(output: str) -> float:
    """What wrk has printed as its result. Raises WrkFailed."""
    found, refused = _FOUND.search(output), _REFUSED.search(output)
    if refused is not None:
        raise WrkFailed(f"requests failed under wrk: {refused.group(0).strip()}.")
    if found is None:
        raise WrkFailed(f"wrk gave no result: {output.strip()[-500:]}")
    return float(found.group(1))


def _in_turns(wrk: str, load: Load, pairs: int, seconds: int, work: Work) -> tuple[list[float], list[float]]:
    ours: list[float] = []
    bare: list[float] = []
    for pair in range(pairs):
        work.step(f"{load.name}: pair {pair + 1} of {pairs}")
        ours.append(_measure(wrk, load, wakeq_server, seconds))
        work.done(seconds + _STARTING_PLANNED_S)
        bare.append(_measure(wrk, load, lambda: bare_server(load.bare_app), seconds))
        work.done(seconds + _STARTING_PLANNED_S)
    return ours, bare


def _measure(wrk: str, load: Load, server: Callable[[], AbstractContextManager[Server]], seconds: int) -> float:
    with server() as started, tempfile.TemporaryDirectory(prefix="wakeq-bench-") as folder:
        call(started.url, "POST", f"/topics/{_TOPIC}", {})
        command = [wrk, "-t1", f"-c{_CONNECTIONS}", f"-d{seconds}", *_script(load, Path(folder))]
        done = subprocess.run(
            [*command, started.url + load.path], capture_output=True, text=True, timeout=seconds + 60, check=False
        )
        if done.returncode != 0:
            raise WrkFailed(f"wrk failed: {(done.stderr or done.stdout).strip()[-500:]}")
        return requests_per_second(done.stdout)


def _script(load: Load, folder: Path) -> list[str]:
    if load.body is None:
        return []
    script = folder / "publish.lua"
    script.write_text(
        f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\nwrk.body = [[{load.body.decode()}]]\n',
        encoding="utf-8",
    )
    return ["--script", str(script)]
