"""From a publish to its parked consumer: wakeq against the same exchange on a bare ASGI app, in turns."""

import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from pydantic import Field
from rich.console import Console

from wakeq_bench.hdr import Latencies
from wakeq_bench.measure import percentile
from wakeq_bench.parameters import Parameters
from wakeq_bench.report import Figure, Measure, Overview, Report, Series, Target
from wakeq_bench.scenarios.parker import Parker, Publisher
from wakeq_bench.scenarios.progress import Work
from wakeq_bench.scenarios.raw import call, request
from wakeq_bench.scenarios.servers import QUEUE_MESSAGE, bare_server, wakeq_server

_TURN = 100
_WARM_UP_MAX = 200
_START_PLANNED_S = 1.5
# A round and its rest, for the progress bar.
_ROUND_PLANNED_S = 0.006
_RATIO_MAX = Target("<=", 1.5)


class Wakes(Parameters):
    """What `wake` can be told."""

    rounds: int = Field(1_000, ge=1, description="messages published, one at a time")


@dataclass(frozen=True)
class Exchange:
    """A consumer parked in one way, and a publisher."""

    name: str
    topic: str
    schema: str
    method: str
    path: str
    body: bytes | None = None
    target: Target | None = None


EXCHANGES = (
    Exchange("GET ?wait=60, json topic", "json", "json", "GET", "/messages/json?wait=60", target=_RATIO_MAX),
    Exchange("GET ?wait=60, queue_message topic", "message", "queue_message", "GET", "/messages/message?wait=60"),
    Exchange("claim, json topic", "claim", "json", "POST", "/messages/claim/claim", b'{"wait_s": 60}'),
)


@dataclass(frozen=True)
class _Pair:
    parker: Parker
    publisher: Publisher

    def wakes(self, rounds: int) -> list[float]:
        return self.parker.wakes(self.publisher, rounds)


def planned_s(given: Wakes) -> float:
    """About how long it takes."""
    return len(EXCHANGES) * (_START_PLANNED_S + 2 * (given.rounds + _warm_up(given.rounds)) * _ROUND_PLANNED_S)


def _warm_up(rounds: int) -> int:
    return min(_WARM_UP_MAX, rounds)


def run(given: Wakes, console: Console) -> Report:
    """Measure every exchange. Raises ProcessFailed, BrokenAnswer, OSError."""
    rounds = given.rounds
    report = Report("wake", "From publish to the parked consumer", {"rounds": rounds, "rounds_a_turn": _TURN})
    report.measures = [Measure("wake", "From publish to the parked consumer", "s", "lower", "curves")]
    rows = []
    with Work(console, planned_s(given)) as work:
        for exchange in EXCHANGES:
            work.step(exchange.name)
            ours_s, bare_s = _measure(exchange, rounds, work)
            report.samples.append({"exchange": exchange.name, "wakeq_s": ours_s, "bare_s": bare_s})
            ratio = statistics.median(ours_s) / statistics.median(bare_s)
            report.figures.append(Figure(f"{exchange.name}: p50, of bare ASGI", ratio, "times", exchange.target))
            for name, found_s in (("wakeq", ours_s), ("bare ASGI", bare_s)):
                turns = [statistics.median(found_s[at : at + _TURN]) for at in range(0, len(found_s), _TURN)]
                report.series.append(Series("wake", f"{name}, {exchange.name}", turns, "", Latencies.of(found_s)))
            rows.append([exchange.name, *_columns(ours_s), *_columns(bare_s)])
    report.overview = Overview(["exchange", "wakeq p50", "p99", "bare ASGI p50", "p99"], rows)
    report.notes.append("The store keeps nothing on disk. No process is pinned to a core.")
    return report


def _measure(exchange: Exchange, rounds: int, work: Work) -> tuple[list[float], list[float]]:
    # Servers of their own: a consumer that has gone would stay parked on the bare one.
    with (
        wakeq_server() as ours,
        bare_server("exchange") as bare,
        _parked(ours.url, exchange) as our_pair,
        _parked(bare.url, None) as bare_pair,
    ):
        return _in_turns(our_pair, bare_pair, rounds, work)


@contextmanager
def _parked(url: str, exchange: Exchange | None) -> Iterator[_Pair]:
    """One consumer parked at `url`; None: on the bare app, to which all paths are one."""
    path, parking = "/messages/bare", request(url, "GET", "/messages/bare")
    if exchange is not None:
        call(url, "PUT", f"/topics/{exchange.topic}", {"schema": exchange.schema, "lease_s": 3600})
        path = f"/messages/{exchange.topic}"
        parking = request(url, exchange.method, exchange.path, exchange.body)
    with ExitStack() as stack:
        publisher = stack.enter_context(Publisher(url, request(url, "POST", path, QUEUE_MESSAGE)))
        parker = stack.enter_context(Parker(url, parking))
        parker.park_one()
        yield _Pair(parker, publisher)


def _in_turns(ours: _Pair, bare: _Pair, rounds: int, work: Work) -> tuple[list[float], list[float]]:
    ours.wakes(_warm_up(rounds))
    bare.wakes(_warm_up(rounds))
    ours_s: list[float] = []
    bare_s: list[float] = []
    while len(ours_s) < rounds:
        turn = min(_TURN, rounds - len(ours_s))
        ours_s += ours.wakes(turn)
        bare_s += bare.wakes(turn)
        work.done(2 * turn * _ROUND_PLANNED_S)
    return ours_s, bare_s


def _columns(seconds: list[float]) -> list[str]:
    return [f"{1000 * statistics.median(seconds):.3f} ms", f"{1000 * percentile(seconds, 99):.3f} ms"]
