"""From a `kill -9` to a server that is ready again, with a topic full of messages."""

import statistics
import tempfile
import time
from pathlib import Path

import psutil
from rich.console import Console

from wakeq_bench.measure import memory
from wakeq_bench.processes import Server
from wakeq_bench.report import Figure, Report, Target
from wakeq_bench.scenarios.filling import BATCH, KILOBYTE, fill, made
from wakeq_bench.scenarios.progress import Work
from wakeq_bench.scenarios.raw import BrokenAnswer, call
from wakeq_bench.scenarios.servers import wakeq_server

_TOPIC = "full"
_FILL_PER_S = 20_000
_START_PLANNED_S = 8.0
_READY_MAX = Target("<=", 10)


def run(messages: int, rounds: int, console: Console) -> Report:
    """Fill, kill, start again. Raises ProcessFailed, ProcessGone, BrokenAnswer, OSError."""
    report = Report("recovery", "From kill -9 to ready", {"messages": messages, "rounds": rounds})
    fill_planned_s = messages / _FILL_PER_S
    with (
        tempfile.TemporaryDirectory(prefix="wakeq-bench-") as directory,
        Work(console, fill_planned_s + rounds * _START_PLANNED_S) as work,
    ):
        data = Path(directory) / "data"
        work.step(f"filling a topic with {messages:,} messages")
        _fill_and_die(data, messages)
        work.done(fill_planned_s)
        for number in range(rounds):
            work.step(f"start {number + 1} of {rounds}")
            report.samples.append(_start_and_die(data, messages))
            work.done(_START_PLANNED_S)
        stored = sum(path.stat().st_size for path in data.rglob("*"))
    ready_s = statistics.median(float(sample["ready_s"]) for sample in report.samples)
    rss = statistics.median(int(sample["rss_bytes"]) for sample in report.samples)
    report.figures += [
        Figure("ready again", ready_s, "s", _READY_MAX if messages == 1_000_000 else None),
        Figure("resident memory then", rss / 1e6, "MB"),
        Figure("on disk", stored / 1e6, "MB"),
    ]
    report.notes.append(
        "From the start of the process to the first 200 of /readyz, Python's own start included. Its files are in the "
        "page cache; after a reboot they would be read from the disk first."
    )
    return report


def _fill_and_die(data: Path, messages: int) -> None:
    with wakeq_server(durability="fsync", data=data) as server:
        made(call(server.url, "PUT", f"/topics/{_TOPIC}", {"schema": "json"}))
        fill(server, _TOPIC, [KILOBYTE] * BATCH, messages)
        server.child.kill()


def _start_and_die(data: Path, messages: int) -> dict[str, float]:
    started = time.perf_counter()
    with wakeq_server(durability="fsync", data=data) as server:
        while call(server.url, "GET", "/readyz").status != 200:
            server.child.check()
        ready_s = time.perf_counter() - started
        cpu = psutil.Process(server.child.pid).cpu_times()
        _check_all_there(server, messages)
        found = {"ready_s": ready_s, "cpu_s": cpu.user + cpu.system, "rss_bytes": memory(server.child.pid).rss_bytes}
        server.child.kill()
    return found


def _check_all_there(server: Server, messages: int) -> None:
    ready = call(server.url, "GET", f"/topics/{_TOPIC}").json()["groups"]["default"]["ready"]
    if ready != messages:
        raise BrokenAnswer(f"{ready:,} of {messages:,} messages are there after the start")
