"""What wakeq's own client adds to the wire: time from publish to handler, CPU, what it does while it waits, its import.

The client is a process of its own, which imports nothing else. Beside it, the same exchange over bare sockets.
"""

import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any

from pydantic import Field
from rich.console import Console

from wakeq_bench.intervals import median_interval, ratio_interval
from wakeq_bench.measure import CpuWindow, percentile
from wakeq_bench.parameters import Names, Parameters, among
from wakeq_bench.processes import Child, Server
from wakeq_bench.report import Figure, Measure, Overview, Report, Series, Target
from wakeq_bench.scenarios.open_loop import OpenLoop
from wakeq_bench.scenarios.progress import Work
from wakeq_bench.scenarios.raw import call, made
from wakeq_bench.scenarios.servers import wakeq_server
from wakeq_bench.waking import WakeWindow, bare_process

TOPIC = "t"
TRANSPORTS = ("httpx", "aiohttp")

_RATIO_MAX = {"httpx": Target("<=", 3), "aiohttp": Target("<=", 1.7)}
_CPU_MAX = Target("<=", 40)
_IDLE_MAX = Target("<=", 0.01)
_IMPORT_MAX = Target("<=", 0.25)
# As the client's process publishes.
_RATE = 100.0
_WARM_UP_S = 0.5
# The connection, the stream and what imports leave to be done.
_SETTLED_S = 2.0
_PREFETCHES = (32, 256)
_IMPORTED = "import time; began = time.perf_counter(); import wakeq; print(time.perf_counter() - began)"
_PROCESS_S = 1.0
_BARE = "bare sockets"


class Client(Parameters):
    """What `client` can be told."""

    transport: Annotated[Names, among(*TRANSPORTS)] = Field(list(TRANSPORTS), description="the client's ways to speak")
    messages: int = Field(200, ge=10, description="published one at a time, each round")
    drained: int = Field(10_000, ge=2_000, description="consumed and acked as fast as they come, each round")
    rounds: int = Field(3, ge=1, description="how often each is measured, in turns")
    seconds: float = Field(120.0, ge=1, description="how long a consumer that waits is watched")
    imports: int = Field(7, ge=1, description="how often wakeq is imported")


def planned_s(given: Client) -> float:
    """About how long it takes."""
    paced = given.messages / _RATE + _WARM_UP_S
    round_s = paced + len(given.transport) * (paced + _PROCESS_S + len(_PREFETCHES) * (given.drained / 8_000))
    return given.rounds * round_s + given.seconds + _SETTLED_S + given.imports * 0.3


def run(given: Client, console: Console) -> Report:
    """Measure the client. Raises ProcessFailed, ProcessGone, BrokenAnswer, OSError."""
    report = Report("client", "What the client adds to the wire", given.model_dump())
    transports = [transport for transport in TRANSPORTS if transport in given.transport]
    report.measures = [
        Measure("wake", "publish to handler, p50", "ms", "lower"),
        Measure("cpu", "CPU for a message consumed and acked", "µs", "lower", x_title="prefetch"),
    ]
    with Work(console, planned_s(given)) as work:
        wakes = _measure_wakes(given, transports, work)
        drained = _measure_drains(given, transports, work)
        idle = _measure_idle(transports, given.seconds, work)
        work.step("importing")
        imports_s = [_import_s() for _ in range(given.imports)]
        work.done(given.imports * 0.3)
    report.series = [
        *(Series("wake", name, [1000 * percentile(one, 50) for one in found]) for name, found in wakes.items()),
        *(
            Series("cpu", transport, [1e6 * one["cpu_s"] for one in found], x=str(prefetch))
            for (transport, prefetch), found in drained.items()
        ),
    ]
    waited = [{"transport": name, "idle_percent": percent, "requests": requests} for name, percent, requests, _ in idle]
    report.samples = [{"wakes_s": wakes}, {"imports_s": imports_s}, *waited]
    report.overview = Overview(["", "p50", "p99"], [_row(name, found) for name, found in wakes.items()])
    report.figures = [
        *(_ratio(transport, wakes) for transport in transports),
        *(_cpu(transport, prefetch, found) for (transport, prefetch), found in drained.items()),
        *(figure for one in idle for figure in _idle(*one)),
        Figure("import wakeq, median", percentile(imports_s, 50), "s", _IMPORT_MAX),
    ]
    report.notes += [
        "Publisher and consumer are one process, as they are over bare sockets, which take, ack and read as much.",
        "The server keeps nothing on disk.",
    ]
    return report


def _measure_wakes(given: Client, transports: Sequence[str], work: Work) -> dict[str, list[list[float]]]:
    found: dict[str, list[list[float]]] = {_BARE: [], **{transport: [] for transport in transports}}
    seconds = given.messages / _RATE
    with _server() as server:
        for number in range(given.rounds):
            work.step(f"publish to handler, round {number + 1} of {given.rounds}")
            with OpenLoop(server.url, TOPIC, "sse") as loop:
                found[_BARE].append(loop.run(_RATE, seconds, _WARM_UP_S).received_s)
            work.done(seconds + _WARM_UP_S)
            for transport in transports:
                found[transport].append(
                    _ran("wakes", server, transport, "received_s", count=given.messages)["received_s"]
                )
                work.done(seconds + _WARM_UP_S + _PROCESS_S)
    return found


def _measure_drains(
    given: Client, transports: Sequence[str], work: Work
) -> dict[tuple[str, int], list[dict[str, float]]]:
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    with _server() as server:
        for number in range(given.rounds):
            work.step(f"consuming, round {number + 1} of {given.rounds}")
            for transport in transports:
                for prefetch in _PREFETCHES:
                    one = _ran("drain", server, transport, "cpu_s", count=given.drained, prefetch=prefetch)
                    found.setdefault((transport, prefetch), []).append(one)
                    work.done(given.drained / 8_000)
    return found


def _measure_idle(transports: Sequence[str], seconds: float, work: Work) -> list[tuple[str, float, int, list[Figure]]]:
    """Percent of a core, and requests of the consumer, and what a bare process costs.

    All wait at the same time, which is as good where nobody works.
    """
    work.step(f"waiting for {seconds:g} s")
    with ExitStack() as stack:
        servers, pids = {}, {}
        for transport in transports:
            server = servers[transport] = stack.enter_context(_server())
            waiting = stack.enter_context(_process("wait", server, transport))
            waiting.wait_for_record("waiting")
            pids[transport] = waiting.pid
        bare_pid = stack.enter_context(bare_process(seconds))
        work.wait(_SETTLED_S)
        before, window = {name: _requests(server) for name, server in servers.items()}, CpuWindow(pids)
        waking = {name: WakeWindow(pid, bare_pid) for name, pid in pids.items()}
        work.wait(seconds)
        cores = window.cores()
        beside_bare = {name: one.figures(_idle_name(name)) for name, one in waking.items()}
        # Without the one that asks.
        requests = {name: _requests(server) - before[name] - 1 for name, server in servers.items()}
        return [(name, 100 * cores[name], requests[name], beside_bare[name]) for name in transports]


@contextmanager
def _server() -> Iterator[Server]:
    with wakeq_server(durability="memory") as server:
        made(call(server.url, "PUT", f"/topics/{TOPIC}", {"schema": "json"}))
        yield server


def _process(job: str, server: Server, transport: str, **options: int) -> Child:
    command = [sys.executable, "-m", "wakeq_bench.scenarios.client_process", job, "--url", server.url]
    given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return Child(f"the client ({transport})", [*command, "--transport", transport, *given])


def _ran(job: str, server: Server, transport: str, found: str, **options: int) -> dict[str, Any]:
    """What the process found, once it has. Raises ProcessFailed."""
    with _process(job, server, transport, **options) as process:
        return process.wait_for_record(found)


def _requests(server: Server) -> int:
    text = call(server.url, "GET", "/metrics").body.decode()
    return int(float(next(line.split()[1] for line in text.splitlines() if line.startswith("wakeq_requests_total"))))


def _import_s() -> float:
    return float(subprocess.run([sys.executable, "-c", _IMPORTED], check=True, capture_output=True).stdout)


def _row(name: str, found: list[list[float]]) -> list[str]:
    durations = [seconds for one in found for seconds in one]
    return [name, *(f"{1000 * percentile(durations, percent):.2f} ms" for percent in (50, 99))]


def _ratio(transport: str, wakes: dict[str, list[list[float]]]) -> Figure:
    ours, bare = ([percentile(one, 50) for one in wakes[name]] for name in (transport, _BARE))
    value = statistics.median(ours) / statistics.median(bare)
    name = f"{transport}: publish to handler, p50, of bare sockets"
    return Figure(name, value, "times", _RATIO_MAX[transport], ratio_interval(ours, bare))


def _cpu(transport: str, prefetch: int, found: list[dict[str, float]]) -> Figure:
    samples = [1e6 * one["cpu_s"] for one in found]
    name = f"{transport}, prefetch {prefetch}: client CPU for a message consumed and acked"
    return Figure(name, statistics.median(samples), "µs", _CPU_MAX, median_interval(samples))


def _idle_name(transport: str) -> str:
    return f"{transport}: client CPU while a consumer waits"


def _idle(transport: str, percent: float, requests: int, beside_bare: list[Figure]) -> list[Figure]:
    return [
        Figure(_idle_name(transport), percent, "%", _IDLE_MAX),
        *beside_bare,
        Figure(f"{transport}: requests while a consumer waits", requests, "", Target("==", 0)),
    ]
