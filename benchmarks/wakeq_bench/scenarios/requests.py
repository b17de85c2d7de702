"""Requests per second of one server process under wrk: wakeq against a bare ASGI app, in turns."""

import statistics
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

from pydantic import Field
from rich.console import Console

from wakeq_bench.intervals import median_interval
from wakeq_bench.parameters import Parameters
from wakeq_bench.processes import Server
from wakeq_bench.report import Figure, Measure, Overview, Report, Series, Target
from wakeq_bench.scenarios import wrk
from wakeq_bench.scenarios.progress import Work
from wakeq_bench.scenarios.raw import call
from wakeq_bench.scenarios.servers import QUEUE_MESSAGE, bare_server, wakeq_server

_TOPIC = "requests"
_STARTING_PLANNED_S = 0.8


class Requests(Parameters):
    """What `requests` can be told."""

    rounds: int = Field(3, ge=1, description="how often both servers are measured, in turns")
    seconds: int = Field(4, ge=1, description="length of each run of wrk")
    publish: bool = Field(True, description="measure publishing too")
    durability: Literal["memory", "os", "fsync"] = Field("memory", description="how wakeq keeps what is published")

    @property
    def loads(self) -> "list[Load]":
        """What wrk is to repeat."""
        return [POLL, *(PUBLISHES if self.publish else [])]


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
        {"memory": Target(">=", 55), "fsync": Target(">=", 25)},
        QUEUE_MESSAGE,
    ),
    Load(
        "POST to a queue_message topic",
        f"/messages/{_TOPIC}",
        "sink",
        "queue_message",
        {"memory": Target(">=", 40)},
        QUEUE_MESSAGE,
    ),
)
_KEPT = {
    "memory": "The store keeps nothing on disk.",
    "os": "What wakeq is sent is written, not synced.",
    "fsync": "What wakeq is sent is on disk when it is answered.",
}


def planned_s(given: Requests) -> float:
    """About how long it takes."""
    return len(given.loads) * given.rounds * 2 * (given.seconds + _STARTING_PLANNED_S)


def run(given: Requests, console: Console) -> Report:
    """Measure the loads. Raises WrkFailed, ProcessFailed, BrokenAnswer, OSError."""
    wrk.find_wrk()
    loads, durability, pairs, seconds = given.loads, given.durability, given.rounds, given.seconds
    settings = {
        "durability": durability,
        "rounds": pairs,
        "seconds": seconds,
        "connections": wrk.CONNECTIONS,
        "wrk_threads": 1,
    }
    report = Report("requests", "Requests per second, one process", settings)
    rows = []
    report.measures = [Measure("rate", "Requests a second, one process", "a second", "higher")]
    with Work(console, planned_s(given)) as work:
        for load in loads:
            ours, bare = _in_turns(load, durability, pairs, seconds, work)
            report.samples.append({"load": load.name, "wakeq_per_s": ours, "bare_per_s": bare})
            share = 100 * statistics.median(ours) / statistics.median(bare)
            report.series += [Series("rate", "wakeq", ours, load.name), Series("rate", "bare ASGI", bare, load.name)]
            shares = median_interval([100 * our / their for our, their in zip(ours, bare, strict=True)])
            target = load.targets.get(durability)
            report.figures.append(Figure(f"{load.name}: of bare ASGI", share, "%", target, shares))
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
