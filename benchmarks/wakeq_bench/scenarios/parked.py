"""Thousands of consumers parked on one topic: memory, idle CPU, and whether waking one is as quick as with one parked.

Each kind of parking has two servers: one is filled, the other parks a single consumer all along, so that wakes with
many and with one parked are measured in turns, on the same machine at the same time.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from rich.console import Console

from wakeq_bench.intervals import median_interval, ratio_interval
from wakeq_bench.measure import CpuWindow, Memory, memory, percentile
from wakeq_bench.parameters import Names, Parameters, among
from wakeq_bench.processes import Server
from wakeq_bench.report import Figure, Measure, Overview, Report, Series, Target, readable
from wakeq_bench.scenarios.parker import Parker, Publisher, connections_possible
from wakeq_bench.scenarios.progress import Work
from wakeq_bench.scenarios.raw import call, request
from wakeq_bench.scenarios.servers import QUEUE_MESSAGE, bare_server, metric, wakeq_server

_TOPIC = "parked"
_KEYS = ("claim", "wait", "heartbeats")
_WAKES_A_TURN = 50
_SECOND_WAKE_S = 1.0
_START_PLANNED_S = 3.0
_PARK_PER_S = 700.0
# With many parked and with one, and the rests before both.
_WAKE_PLANNED_S = 0.012
_LOOK_AGAIN_S = 0.05
_PARK_MAX_S = 300.0
# wakeq may end parked answers a tenth early.
_EARLIEST = 0.9

_EACH_MAX_BYTES = Target("<=", 16 * 1024)
_WAKE_RATIO_MAX = Target("<=", 2)
_WAKES_ONE = Target("==", 1)
_BARE_TIMES_MAX = Target("<=", 1.5)


class ParkingFailed(RuntimeError):
    """Not all connections were parked in time."""


def _possible(connections: int) -> int:
    if (possible := connections_possible(connections)) < connections:
        raise ValueError(f"this machine's limit of open files allows {possible:,} (`ulimit -Hn`)")
    return connections


class Parked(Parameters):
    """What `parked` can be told."""

    connections: Annotated[int, AfterValidator(_possible)] = Field(
        10_000, ge=2, description="how many park on one topic"
    )
    kind: Annotated[Names, among(*_KEYS)] = Field(
        list(_KEYS), description="ways to be parked, beside a request of a bare ASGI app"
    )
    seconds: float = Field(6.0, ge=1, description="longest window of idleness; a heartbeat comes every 3 s")
    rounds: int = Field(2, ge=1, description="how often each is measured, in turns")
    wakes: int = Field(100, ge=1, description="messages that are published after each window, one at a time")


@dataclass(frozen=True)
class Kind:
    """A way to be parked."""

    key: str
    name: str
    server: Callable[[], AbstractContextManager[Server]]
    probe: str
    """A path that is answered at once."""
    parked: Callable[[str], int]
    """How many are parked on the server with that URL."""
    method: str = "GET"
    path: str = f"/messages/{_TOPIC}"
    body: bytes | None = None
    topic: tuple[str, dict[str, object]] | None = None
    """Method and body of the request that makes the topic."""
    ends_after_s: float = float("inf")
    cores_max: float | None = None
    """None: a yardstick, without targets."""


@dataclass(frozen=True)
class Found:
    """What was measured of one kind."""

    kind: str
    connections: int
    park_s: float
    window_s: float
    before: Memory
    after: Memory
    server_cores: float
    woken_by_one_publish: int
    wakes_parked_s: list[float]
    wakes_alone_s: list[float]

    @property
    def bytes_each(self) -> float:
        """Growth of the server's resident set, a connection."""
        return (self.after.rss_bytes - self.before.rss_bytes) / (self.connections - 1)


@dataclass(frozen=True)
class Place:
    """A server with who is parked on it and who publishes to it."""

    server: Server
    parker: Parker
    publisher: Publisher
    probe: bytes


def planned_s(given: Parked) -> float:
    """About how long it takes."""
    turn_s = _START_PLANNED_S + _park_planned_s(given) + given.seconds + _afterwards_s(given)
    return given.rounds * (1 + len(given.kind)) * turn_s


def _park_planned_s(given: Parked) -> float:
    return given.connections / _PARK_PER_S


def _afterwards_s(given: Parked) -> float:
    """The one publish that wakes exactly one, and the rounds of wakes."""
    return _SECOND_WAKE_S + given.wakes * _WAKE_PLANNED_S


def run(given: Parked, console: Console) -> Report:
    """Measure every kind, the bare ASGI app first. Raises ProcessFailed, ParkingFailed, BrokenAnswer, OSError."""
    connections = given.connections
    possible = connections_possible(connections)
    if possible < connections:
        raise ParkingFailed(f"this machine's limit of open files allows {possible:,} connections (`ulimit -Hn`)")
    report = Report("parked", f"{connections:,} consumers parked on one topic", given.model_dump())
    kinds = [kind for kind in KINDS if kind.key in ("bare", *given.kind)]
    found: dict[str, list[Found]] = {kind.name: [] for kind in kinds}
    with Work(console, planned_s(given)) as work:
        for number in range(given.rounds):
            for kind in kinds:
                found[kind.name].append(_measure(kind, f"round {number + 1} of {given.rounds}", given, work))
    report.samples = [asdict(one) for runs in found.values() for one in runs]
    report.overview = _overview(found)
    report.measures = [Measure("bytes", "Memory of a parked consumer", "bytes", "lower")]
    report.series = [Series("bytes", name, _bytes_each(runs)) for name, runs in found.items()]
    report.figures = figures(kinds, found)
    report.notes.append(
        "Memory is the growth of the server's resident set, read at the end of the window. A window ends before the "
        "first consumer's time is up, so it can be shorter than asked for. No process is pinned to a core."
    )
    report.notes.append(
        "With heartbeats the many are woken out of answers that have been started, the one parked out of one that has "
        "not: a started answer ends after the server has looked whether its client is still there."
    )
    return report


@contextmanager
def filled_place(kind: Kind, count: int) -> Iterator[Place]:
    """So many of a kind parked on a server of their own. Raises ProcessFailed, ParkingFailed, BrokenAnswer, OSError."""
    with _place(kind) as place:
        place.parker.park(count - 1, place.probe, lambda _: None)
        _wait_until_parked(kind, place, count)
        yield place


def _measure(kind: Kind, turn: str, given: Parked, work: Work) -> Found:
    connections, seconds = given.connections, given.seconds
    work.step(f"{kind.name}, {turn}: starting")
    with _place(kind) as full, _place(kind) as alone:
        more = connections - 1
        before, started = memory(full.server.child.pid), time.perf_counter()
        work.step(f"{kind.name}, {turn}: parking {connections:,}")
        full.parker.park(more, full.probe, lambda count: work.done(_park_planned_s(given) * count / more))
        _wait_until_parked(kind, full, connections)
        park_s = time.perf_counter() - started
        window_s = max(1.0, min(seconds, kind.ends_after_s * _EARLIEST - park_s - _afterwards_s(given)))
        work.step(f"{kind.name}, {turn}: idle for {window_s:.0f} s")
        cores = _idle_cores(full, window_s, work)
        after = memory(full.server.child.pid)
        work.step(f"{kind.name}, {turn}: waking")
        woken = _woken_by_one_publish(full)
        parked_s, alone_s = _wakes_in_turns(full, alone, given.wakes)
        work.done(_START_PLANNED_S + _afterwards_s(given) + seconds - window_s)
    return Found(kind.name, connections, park_s, window_s, before, after, cores, woken, parked_s, alone_s)


@contextmanager
def _place(kind: Kind) -> Iterator[Place]:
    with ExitStack() as stack:
        server = stack.enter_context(kind.server())
        if kind.topic is not None:
            method, config = kind.topic
            call(server.url, method, f"/topics/{_TOPIC}", config)
        publish = request(server.url, "POST", f"/messages/{_TOPIC}", QUEUE_MESSAGE)
        publisher = stack.enter_context(Publisher(server.url, publish))
        parker = stack.enter_context(Parker(server.url, request(server.url, kind.method, kind.path, kind.body)))
        place = Place(server, parker, publisher, request(server.url, "GET", kind.probe))
        # What a first request of each sort allocates once is not the price of a parked one.
        parker.park_one()
        parker.wakes(publisher, _WAKES_A_TURN)
        yield place


def _wait_until_parked(kind: Kind, place: Place, count: int) -> None:
    deadline = time.monotonic() + _PARK_MAX_S
    while (parked := kind.parked(place.server.url)) < count:
        if time.monotonic() > deadline:
            raise ParkingFailed(f"{kind.name}: {parked:,} of {count:,} were parked after {_PARK_MAX_S:.0f} s")
        place.parker.attend(_LOOK_AGAIN_S)


def _idle_cores(place: Place, seconds: float, work: Work) -> float:
    window = CpuWindow({"server": place.server.child.pid})
    while (left := seconds - window.seconds) > 0:
        pause = min(left, 1.0)
        place.parker.attend(pause)
        work.done(pause)
    return window.cores()["server"]


def _woken_by_one_publish(place: Place) -> int:
    place.publisher.send()
    answered = place.parker.attend(_SECOND_WAKE_S)
    place.publisher.finish()
    return sum(one.has_message for one in answered)


def _wakes_in_turns(full: Place, alone: Place, wakes: int) -> tuple[list[float], list[float]]:
    parked_s: list[float] = []
    alone_s: list[float] = []
    while len(parked_s) < wakes:
        turn = min(_WAKES_A_TURN, wakes - len(parked_s))
        parked_s += full.parker.wakes(full.publisher, turn)
        alone_s += alone.parker.wakes(alone.publisher, turn)
    return parked_s, alone_s


def figures(kinds: Sequence[Kind], found: Mapping[str, Sequence[Found]]) -> list[Figure]:
    """Of every kind, and its memory beside that of the bare app, which is the first."""
    shown = [figure for kind in kinds for figure in _figures(kind, found[kind.name])]
    bare, *others = (_bytes_each(found[kind.name]) for kind in kinds)
    for kind, ours in zip(kinds[1:], others, strict=True):
        if min(*bare, *ours) > 0:
            times = statistics.median(ours) / statistics.median(bare)
            name = f"{kind.name}: memory, of bare ASGI"
            shown.append(Figure(name, times, "times", _BARE_TIMES_MAX, ratio_interval(ours, bare)))
    return shown


def _figures(kind: Kind, runs: Sequence[Found]) -> list[Figure]:
    if kind.cores_max is None:
        return []
    each, idle = _bytes_each(runs), [100 * one.server_cores for one in runs]
    woken = max(one.woken_by_one_publish for one in runs)
    ratio = statistics.median(_wakes(runs, "parked")) / statistics.median(_wakes(runs, "alone"))
    return [
        _median(f"{kind.name}: server memory each", each, "bytes", _EACH_MAX_BYTES),
        _median(f"{kind.name}: server idle", idle, "% of a core", Target("<=", kind.cores_max)),
        Figure(f"{kind.name}: woken by one publish", woken, "", _WAKES_ONE),
        Figure(f"{kind.name}: wake p50, of that with one parked", ratio, "times", _WAKE_RATIO_MAX),
    ]


def _median(name: str, samples: list[float], unit: str, target: Target) -> Figure:
    return Figure(name, statistics.median(samples), unit, target, median_interval(samples))


def _bytes_each(runs: Sequence[Found]) -> list[float]:
    return [one.bytes_each for one in runs]


def _wakes(runs: Sequence[Found], which: Literal["parked", "alone"]) -> list[float]:
    return [wake for one in runs for wake in (one.wakes_parked_s if which == "parked" else one.wakes_alone_s)]


def _overview(found: Mapping[str, Sequence[Found]]) -> Overview:
    columns = ["parked by", "memory each", "idle, of a core", "window", "time to park", "wake p50", "p99", "one parked"]
    return Overview(columns, [_row(name, runs) for name, runs in found.items()])


def _row(name: str, runs: Sequence[Found]) -> list[str]:
    parked_s, alone_s = _wakes(runs, "parked"), _wakes(runs, "alone")
    return [
        name,
        f"{readable(statistics.median(_bytes_each(runs)) / 1024)} KB",
        f"{readable(100 * statistics.median(one.server_cores for one in runs))} %",
        f"{statistics.median(one.window_s for one in runs):.0f} s",
        f"{statistics.median(one.park_s for one in runs):.1f} s",
        f"{1000 * statistics.median(parked_s):.2f} ms",
        f"{1000 * percentile(parked_s, 99):.2f} ms",
        f"{1000 * statistics.median(alone_s):.2f} ms",
    ]


def _parked_on_wakeq(url: str) -> int:
    return metric(url, "wakeq_parked_consumers")


def _parked_on_bare(url: str) -> int:
    return int(call(url, "GET", "/parked").body)


_JSON_TOPIC: tuple[str, dict[str, object]] = ("PUT", {"schema": "json", "lease_s": 3600})

CLAIM = Kind(
    "claim",
    "claim",
    wakeq_server,
    "/healthz",
    _parked_on_wakeq,
    method="POST",
    path=f"/messages/{_TOPIC}/claim",
    body=b'{"wait_s": 60}',
    topic=_JSON_TOPIC,
    ends_after_s=60.0,
    cores_max=0.5,
)
KINDS = (
    Kind("bare", "bare ASGI app", lambda: bare_server("exchange"), "/parked", _parked_on_bare),
    CLAIM,
    Kind(
        "wait",
        "GET ?wait=60",
        wakeq_server,
        "/healthz",
        _parked_on_wakeq,
        path=f"/messages/{_TOPIC}?wait=60",
        topic=_JSON_TOPIC,
        ends_after_s=60.0,
        cores_max=0.5,
    ),
    Kind(
        "heartbeats",
        "GET with heartbeats",
        wakeq_server,
        "/healthz",
        _parked_on_wakeq,
        topic=("POST", {}),
        ends_after_s=55.0,
        cores_max=25.0,
    ),
)
"""In the order they are measured."""
