"""What wakeq's own client adds to the wire: time from publish to handler, CPU, what it does while it waits, its import.

The client is a process of its own, which imports nothing else. Beside it, the same exchange over bare sockets.
"""

import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import Field
from rich.console import Console

from wakeq_bench.intervals import median_interval, ratio_interval
from wakeq_bench.measure import CpuWindow, percentile
from wakeq_bench.parameters import Parameters
from wakeq_bench.processes import Child, Server
from wakeq_bench.report import Figure, Measure, Overview, Report, Series, Target
from wakeq_bench.scenarios.open_loop import OpenLoop
from wakeq_bench.scenarios.progress import Work
from wakeq_bench.scenarios.raw import call, made
from wakeq_bench.scenarios.servers import wakeq_server
from wakeq_bench.waking import WakeWindow, bare_process

TOPIC = "t"

_FASTEST_MAX = Target("<=", 1.7)
_DEFAULT_MAX = Target("<=", 3)
_CPU_MAX = Target("<=", 40)
_IDLE_MAX = Target("<=", 0.01)
_IMPORT_MAX = Target("<=", 0.25)
# As the client's process publishes.
_RATE = 100.0
_WARM_UP_S = 0.5
# The connection, the stream and what imports leave to be done.
_SETTLED_S = 2.0
_PREFETCHES = (32, 256)
# What is imported is loaded when it is first asked for, so it is asked for.
_IMPORTED = """
import time
began = time.perf_counter()
import wakeq
wakeq.Client, wakeq.AsyncClient, wakeq.Worker
print(time.perf_counter() - began)
"""
_PROCESS_S = 1.0
_BARE, _OURS, _ON_UVLOOP = "bare sockets", "wakeq's client", "wakeq's client on uvloop"
_LOOPS = {_OURS: "asyncio", _ON_UVLOOP: "uvloop"}
_IDLE = "client CPU while a consumer waits"


class Client(Parameters):
    """What `client` can be told."""

    messages: int = Field(200, ge=10, description="published one at a time, each round")
    drained: int = Field(10_000, ge=2_000, description="consumed and acked as fast as they come, each round")
    rounds: int = Field(3, ge=1, description="how often each is measured, in turns")
    seconds: float = Field(120.0, ge=1, description="how long a consumer that waits is watched")
    imports: int = Field(7, ge=1, description="how often wakeq is imported")


def planned_s(given: Client) -> float:
    """About how long it takes."""
    paced = given.messages / _RATE + _WARM_UP_S
    round_s = (1 + len(_LOOPS)) * paced + len(_LOOPS) * _PROCESS_S + len(_PREFETCHES) * (given.drained / 8_000)
    return given.rounds * round_s + given.seconds + _SETTLED_S + given.imports * 0.3


def run(given: Client, console: Console) -> Report:
    """Measure the client. Raises ProcessFailed, ProcessGone, BrokenAnswer, OSError."""
    report = Report("client", "What the client adds to the wire", given.model_dump())
    report.measures = [
        Measure("wake", "publish to handler, p50", "ms", "lower"),
        Measure("cpu", "CPU for a message consumed and acked", "µs", "lower", x_title="prefetch"),
    ]
    with Work(console, planned_s(given)) as work:
        wakes = _measure_wakes(given, work)
        drained = _measure_drains(given, work)
        percent, requests, beside_bare = _measure_idle(given.seconds, work)
        work.step("importing")
        imports_s = [_import_s() for _ in range(given.imports)]
        work.done(given.imports * 0.3)
    report.series = [
        *(Series("wake", name, [1000 * percentile(one, 50) for one in found]) for name, found in wakes.items()),
        *(
            Series("cpu", _OURS, [1e6 * one["cpu_s"] for one in found], x=str(prefetch))
            for prefetch, found in drained.items()
        ),
    ]
    report.samples = [{"wakes_s": wakes}, {"imports_s": imports_s}, {"idle_percent": percent, "requests": requests}]
    report.overview = Overview(["", "p50", "p99"], [_row(name, found) for name, found in wakes.items()])
    report.figures = [
        _ratio("publish to handler, p50, of bare sockets", wakes[_OURS], wakes[_BARE], _DEFAULT_MAX),
        _ratio("on uvloop: publish to handler, p50, of bare sockets", wakes[_ON_UVLOOP], wakes[_BARE], _FASTEST_MAX),
        *(_cpu(prefetch, found) for prefetch, found in drained.items()),
        Figure(_IDLE, percent, "%", _IDLE_MAX),
        *beside_bare,
        Figure("requests while a consumer waits", requests, "", Target("==", 0)),
        Figure("import wakeq, its clients and worker, median", percentile(imports_s, 50), "s", _IMPORT_MAX),
    ]
    report.notes += [
        "Publisher and consumer are one process, as they are over bare sockets, which send, take, ack and read as "
        "much: HTTP requests of two headers, answers cut by their lengths, events by their lines. They check nothing "
        "else. All spin for a moment before a message is due.",
        "Where uvloop isn't named, the client runs on asyncio's own event loop.",
        "The server keeps nothing on disk.",
    ]
    return report


def _measure_wakes(given: Client, work: Work) -> dict[str, list[list[float]]]:
    found: dict[str, list[list[float]]] = {_BARE: [], **{name: [] for name in _LOOPS}}
    seconds = given.messages / _RATE
    with _server() as server:
        for number in range(given.rounds):
            work.step(f"publish to handler, round {number + 1} of {given.rounds}")
            with OpenLoop(server.url, TOPIC, "sse") as loop:
                found[_BARE].append(loop.run(_RATE, seconds, _WARM_UP_S).received_s)
            work.done(seconds + _WARM_UP_S)
            for name, loop_name in _LOOPS.items():
                one = _ran("wakes", server, "received_s", count=given.messages, loop=loop_name)
                found[name].append(one["received_s"])
                work.done(seconds + _WARM_UP_S + _PROCESS_S)
    return found


def _measure_drains(given: Client, work: Work) -> dict[int, list[dict[str, float]]]:
    found: dict[int, list[dict[str, float]]] = {}
    with _server() as server:
        for number in range(given.rounds):
            work.step(f"consuming, round {number + 1} of {given.rounds}")
            for prefetch in _PREFETCHES:
                one = _ran("drain", server, "cpu_s", count=given.drained, prefetch=prefetch)
                found.setdefault(prefetch, []).append(one)
                work.done(given.drained / 8_000)
    return found


def _measure_idle(seconds: float, work: Work) -> tuple[float, int, list[Figure]]:
    """Percent of a core, and requests of the consumer, and what a bare process costs."""
    work.step(f"waiting for {seconds:g} s")
    with _server() as server, _process("wait", server) as waiting, bare_process(seconds) as bare_pid:
        waiting.wait_for_record("waiting")
        work.wait(_SETTLED_S)
        before, window = _requests(server), CpuWindow({"client": waiting.pid})
        waking = WakeWindow(waiting.pid, bare_pid)
        work.wait(seconds)
        percent, beside_bare = 100 * window.cores()["client"], waking.figures(_IDLE)
        # Without the one that asks.
        return percent, _requests(server) - before - 1, beside_bare


@contextmanager
def _server() -> Iterator[Server]:
    with wakeq_server(durability="memory") as server:
        made(call(server.url, "PUT", f"/topics/{TOPIC}", {"schema": "json"}))
        yield server


def _process(job: str, server: Server, **options: int | str) -> Child:
    command = [sys.executable, "-m", "wakeq_bench.scenarios.client_process", job, "--url", server.url]
    given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return Child("the client", [*command, *given])


def _ran(job: str, server: Server, found: str, **options: int | str) -> dict[str, Any]:
    """What the process found, once it has. Raises ProcessFailed."""
    with _process(job, server, **options) as process:
        return process.wait_for_record(found)


def _requests(server: Server) -> int:
    text = call(server.url, "GET", "/metrics").body.decode()
    return int(float(next(line.split()[1] for line in text.splitlines() if line.startswith("wakeq_requests_total"))))


def _import_s() -> float:
    return float(subprocess.run([sys.executable, "-c", _IMPORTED], check=True, capture_output=True).stdout)


def _row(name: str, found: list[list[float]]) -> list[str]:
    durations = [seconds for one in found for seconds in one]
    return [name, *(f"{1000 * percentile(durations, percent):.2f} ms" for percent in (50, 99))]


def _ratio(name: str, ours: list[list[float]], bare: list[list[float]], target: Target) -> Figure:
    medians, of = ([percentile(one, 50) for one in found] for found in (ours, bare))
    value = statistics.median(medians) / statistics.median(of)
    return Figure(name, value, "times", target, ratio_interval(medians, of))


def _cpu(prefetch: int, found: list[dict[str, float]]) -> Figure:
    samples = [1e6 * one["cpu_s"] for one in found]
    name = f"prefetch {prefetch}: client CPU for a message consumed and acked"
    return Figure(name, statistics.median(samples), "µs", _CPU_MAX, median_interval(samples))
