"""A topic full of messages: from a `kill -9` to a server that is ready again, and publishing during a backup."""

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import psutil
from pydantic import Field
from rich.console import Console

from wakeq_bench.measure import memory
from wakeq_bench.parameters import Names, Parameters, among
from wakeq_bench.processes import Child, Server
from wakeq_bench.report import Figure, Overview, Report, Target
from wakeq_bench.scenarios import peer_recovery, wrk
from wakeq_bench.scenarios.filling import BATCH, KILOBYTE, fill
from wakeq_bench.scenarios.progress import Work
from wakeq_bench.scenarios.raw import BrokenAnswer, call, made
from wakeq_bench.scenarios.servers import wakeq_server

_TOPIC = "full"
_FILL_PER_S = 20_000
_START_PLANNED_S = 8.0
_READY_MAX = Target("<=", 10)
_WINDOW_S = 2
_BACKUP_PLANNED_S = 6.0
_BACKUP_EACH_S = 24e-6
_BACKUP_MAX_S = 600.0
_PUBLISH_MIN = Target(">=", 50)


PARTS = ("wakeq", "contestants")


class Recovery(Parameters):
    """What `recovery` can be told."""

    part: Annotated[Names, among(*PARTS)] = Field(
        list(PARTS), description="wakeq by itself, with a backup; or every contestant, by its own client"
    )
    messages: int = Field(1_000_000, ge=1, description="how many of 1 KB are stored in wakeq by itself")
    stored: int = Field(10_000, ge=1, description="how many of 1 KB are stored in each contestant")
    only: Annotated[Names, among(*peer_recovery.KEYS)] = Field(
        peer_recovery.AS_A_RULE, description="the contestants that take part"
    )
    rounds: int = Field(3, ge=1, description="how often each is killed and started, in turns")


def planned_s(given: Recovery) -> float:
    """About how long it takes."""
    parts = {"wakeq": _own_planned_s(given), "contestants": len(given.only) * _plan(given).planned_s}
    return sum(parts[part] for part in given.part)


def run(given: Recovery, console: Console) -> Report:
    """Fill, kill, start again, back up. Raises ProcessFailed, ProcessGone, WrkFailed, BrokenAnswer, OSError."""
    report = Report("recovery", "From kill -9 to ready, and a backup", given.model_dump())
    with Work(console, planned_s(given)) as work:
        if "wakeq" in given.part:
            _measure_own(given, report, work)
        if "contestants" in given.part:
            rows = peer_recovery.measure(_plan(given), given.only, report, console, work)
            columns = ["", "ready again", "first message", f"all {given.stored:,}", "lost", "doubled"]
            report.overview = Overview(columns, rows)
    report.notes.append(
        "From the start of the process to the first 200 of /readyz, or what the server has for it, its own start "
        "included. Files are in the page cache; after a reboot they would be read from the disk first."
    )
    return report


def _plan(given: Recovery) -> peer_recovery.Plan:
    return peer_recovery.Plan(given.stored, given.rounds)


def _own_planned_s(given: Recovery) -> float:
    return given.messages / _FILL_PER_S + given.rounds * _START_PLANNED_S + _backup_s(given.messages)


def _backup_s(messages: int) -> float:
    return _BACKUP_PLANNED_S + messages * _BACKUP_EACH_S


def _measure_own(given: Recovery, report: Report, work: Work) -> None:
    messages, rounds = given.messages, given.rounds
    starts: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="wakeq-bench-") as directory:
        data = Path(directory) / "data"
        work.step(f"filling a topic with {messages:,} messages")
        _fill_and_die(data, messages)
        work.done(messages / _FILL_PER_S)
        for number in range(rounds):
            work.step(f"start {number + 1} of {rounds}")
            starts.append(_start_and_die(data, messages))
            work.done(_START_PLANNED_S)
        stored = sum(path.stat().st_size for path in data.rglob("*"))
        backup_figures = _measure_backup(data, Path(directory) / "backup", messages, report, work)
    ready_s = statistics.median(sample["ready_s"] for sample in starts)
    rss = statistics.median(sample["rss_bytes"] for sample in starts)
    report.samples += starts
    report.figures += [
        Figure("ready again", ready_s, "s", _READY_MAX if messages == 1_000_000 else None),
        Figure("resident memory then", rss / 1e6, "MB"),
        Figure("on disk", stored / 1e6, "MB"),
        *backup_figures,
    ]


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


def _back_up(data: Path, file: Path) -> dict[str, Any]:
    """Publishes a second before, during and after a backup, and how long that took."""
    with wakeq_server(durability="fsync", data=data) as server:
        plain = [_publishing(server)]
        started = time.perf_counter()
        command = [sys.executable, "-m", "wakeq", "backup", str(file), "--data", str(data)]
        during = []
        with Child("wakeq backup", command) as child:
            while child.running:
                rate = _publishing(server)
                # One that ended within the window has left the disk alone for the rest of it.
                if child.running:
                    during.append(rate)
            child.wait_for(lambda line: True if line.startswith("copied ") else None, _BACKUP_MAX_S)
        seconds = time.perf_counter() - started
        plain.append(_publishing(server))
    return {"plain_per_s": plain, "during_per_s": during, "backup_s": seconds, "backup_bytes": file.stat().st_size}


def _publishing(server: Server) -> float:
    return wrk.run(f"{server.url}/messages/{_TOPIC}", _WINDOW_S, wrk.repeated(KILOBYTE)).per_second


def _measure_backup(data: Path, file: Path, messages: int, report: Report, work: Work) -> list[Figure]:
    work.step("publishing during a backup")
    try:
        wrk.find_wrk()
    except wrk.WrkFailed as error:
        report.notes.append(f"Publishing during a backup was not measured. {error}")
        return []
    found = _back_up(data, file)
    work.done(_backup_s(messages))
    report.samples.append(found)
    if not found["during_per_s"]:
        report.notes.append(f"The backup was over within {_WINDOW_S} s: too short to publish beside it.")
        return []
    share = 100 * statistics.median(found["during_per_s"]) / statistics.median(found["plain_per_s"])
    target = _PUBLISH_MIN if messages == 1_000_000 else None
    return [Figure("publishes during a backup, of the rate without", share, "%", target)]
