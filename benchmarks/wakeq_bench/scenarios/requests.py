"""Requests per second of one server process under wrk: wakeq against a bare ASGI app, in turns."""

import statistics
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from rich.console import Console

from wakeq_bench.processes import Server
from wakeq_bench.report import Figure, Overview, Report, Target
from wakeq_bench.scenarios import wrk
from wakeq_bench.scenarios.progress import Work
from wakeq_bench.scenarios.raw import call
from wakeq_bench.scenarios.servers import QUEUE_MESSAGE, bare_server, wakeq_server

_TOPIC = "requests"
_STARTING_PLANNED_S = 1.5


@dataclass(frozen=True)
class Load:
    """A request that wrk repeats, and the bare app that answers its like."""

    name: str
    path: str
    bare_app: str
    schema: str
    targets: Mapping[str, Target]
    """By durability."""
    body: bytes | None = None


POLL = Load(
    "GET of an empty topic, ?wait=0",
    f"/messages/{_TOPIC}?wait=0",
    "null",
    "queue_message",
    dict.fromkeys(("memory", "os", "fsync"), Target(">=", 60)),
)
PUBLISHES = (
    Load(
        "POST to a json topic",
        f"/messages/{_TOPIC}",
        "sink",
        "json",
        {"memory": Target(">=", 45), "fsync": Target(">=", 25)},
        QUEUE_MESSAGE,
    ),
    Load(
        "POST to a queue_message topic",
        f"/messages/{_TOPIC}",
        "sink",
        "queue_message",
        {"memory": Target(">=", 30)},
        QUEUE_MESSAGE,
    ),
)
_KEPT = {
    "memory": "The store keeps nothing on disk.",
    "os": "What wakeq is sent is written, not synced.",
    "fsync": "What wakeq is sent is on disk when it is answered.",
}


def run(loads: list[Load], durability: str, pairs: int, seconds: int, console: Console) -> Report:
    """Measure the loads. Raises WrkFailed, ProcessFailed, BrokenAnswer, OSError."""
    wrk.find_wrk()
    settings = {
        "durability": durability,
        "pairs": pairs,
        "seconds": seconds,
        "connections": wrk.CONNECTIONS,
        "wrk_threads": 1,
    }
    report = Report("requests", "Requests per second, one process", settings)
    rows = []
    with Work(console, len(loads) * pairs * 2 * (seconds + _STARTING_PLANNED_S)) as work:
        for load in loads:
            ours, bare = _in_turns(load, durability, pairs, seconds, work)
            report.samples.append({"load": load.name, "wakeq_per_s": ours, "bare_per_s": bare})
            share = 100 * statistics.median(ours) / statistics.median(bare)
            report.figures.append(Figure(f"{load.name}: of bare ASGI", share, "%", load.targets.get(durability)))
            rows.append([load.name, f"{statistics.median(ours):,.0f}", f"{statistics.median(bare):,.0f}"])
    report.overview = Overview(["medians, per second", "wakeq", "bare ASGI"], rows)
    report.notes.append(f"{_KEPT[durability]} wrk shares the machine's cores with the server.")
    return report


def _in_turns(load: Load, durability: str, pairs: int, seconds: int, work: Work) -> tuple[list[float], list[float]]:
    ours: list[float] = []
    bare: list[float] = []
    for pair in range(pairs):
        work.step(f"{load.name}: pair {pair + 1} of {pairs}")
        ours.append(_measure(load, lambda: wakeq_server(durability=durability), seconds))
        work.done(seconds + _STARTING_PLANNED_S)
        bare.append(_measure(load, lambda: bare_server(load.bare_app), seconds))
        work.done(seconds + _STARTING_PLANNED_S)
    return ours, bare


def _measure(load: Load, server: Callable[[], AbstractContextManager[Server]], seconds: int) -> float:
    with server() as started:
        call(started.url, "PUT", f"/topics/{_TOPIC}", {"schema": load.schema})
        script = None if load.body is None else wrk.repeated(load.body)
        return wrk.run(started.url + load.path, seconds, script).per_second
