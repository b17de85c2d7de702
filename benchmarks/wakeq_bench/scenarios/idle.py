"""What consumers cost while nothing is published: polling, and being parked."""

import random
import signal
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field
from rich.console import Console

from wakeq_bench.intervals import Interval, ratio_interval
from wakeq_bench.measure import CpuWindow, Traffic, percentile, switches
from wakeq_bench.parameters import Counts, Names, Parameters, among
from wakeq_bench.peers.contestant import FAILURES, Contestant
from wakeq_bench.peers.everyone import BY_KEY, CONTESTANTS, prepared, remarks
from wakeq_bench.processes import Child, Server, raise_open_files
from wakeq_bench.report import Figure, Measure, Missing, Overview, Report, Series, Target, readable
from wakeq_bench.scenarios.progress import Work

KEYS = [contestant.key for contestant in CONTESTANTS]
REFERENCE = "original-50ms"
"""What the others are measured against."""
PAIR = ("wakeq-memory", REFERENCE)
"""Whose ratio is what idleness is about: measured longer, and in turns."""
# The others are measured when they are asked for: an idle queue that nobody has a question about takes a minute.
_AS_A_RULE = ["wakeq-memory", "redis-everysec", REFERENCE, "original-wakeq"]

# The number of consumers that its targets are meant for.
_TIMES_LESS_AT = 100
_TIMES_LESS_MIN = {
    "wakeq-memory": Target(">=", 500),
    "original-wakeq": Target(">=", 80),
    "original-silent": Target(">=", 25),
}
# A consumer of llama_deploy's own client asks anew once in 55 s.
_REQUESTS_MAX = {"original-wakeq": Target("<=", 0.025)}
# Of a window, for its interval: each has as many heartbeats of a stream.
_SLICE_S = 30.0
# Before the window: imports are done, connections made, everybody is parked.
_WARM_UP_EACH_S = 0.002
_STARTING_PLANNED_S = 3.0
_STARTING_EACH_S = 0.007
_START_MAX_S = 300.0
# Between wakes, at random: long enough to be parked again, and not in step with whoever polls.
_REST_S = (0.2, 0.3)
_WAKE_MAX_S = 15.0


class Idle(Parameters):
    """What `idle` can be told."""

    consumers: Counts = Field([1, 10, 100, 1_000, 10_000], description="how many consumers wait, one measurement each")
    seconds: float = Field(15.0, ge=1, description="length of each window")
    warm_up: float = Field(3.0, ge=0, description="seconds before each window, and 2 ms more a consumer")
    wakes: int = Field(6, ge=1, description="messages that are published after each window, one at a time")
    rounds: int = Field(1, ge=1, description="how often each is measured, in turns")
    only: Annotated[Names, among(*KEYS)] = Field(_AS_A_RULE, description="the contestants that take part")
    curves: Annotated[Names, among(*KEYS)] = Field(
        list(PAIR),
        description=f"of these, who is measured with every number of consumers, and not with {_TIMES_LESS_AT} alone",
    )
    whole_periods: bool = Field(
        True, description="no window is shorter than what a consumer does once in a while, such as a heartbeat"
    )
    pair_seconds: float = Field(
        120.0, ge=1, description=f"length of the windows of {' and '.join(PAIR)} with {_TIMES_LESS_AT} consumers"
    )
    pair_rounds: int = Field(2, ge=0, description="how often these two are measured then; 0: like all others")

    def turns(self, count: int) -> list["Turns"]:
        """What is measured with so many consumers."""
        able = [key for key in self.only if count == _TIMES_LESS_AT or key in self._everywhere]
        rest = Turns(able, self.seconds, self.rounds, self.whole_periods)
        if count != _TIMES_LESS_AT or not self.pair_rounds or not set(PAIR) <= set(able):
            return [rest]
        others = [key for key in able if key not in PAIR]
        return [Turns(list(PAIR), self.pair_seconds, self.pair_rounds), replace(rest, only=others)]

    @property
    def _everywhere(self) -> set[str]:
        """Without the number that targets are for there would be nothing of the others."""
        return set(self.curves if _TIMES_LESS_AT in self.consumers else self.only)


@dataclass(frozen=True)
class Turns:
    """Contestants that are measured in turns, and for how long."""

    only: list[str]
    seconds: float
    rounds: int
    whole_periods: bool = True

    def window_s(self, contestant: Contestant) -> float:
        """Without what it does once in a while it would look as if it did nothing."""
        return max(self.seconds, contestant.idle_period_s if self.whole_periods else 0.0)


@dataclass(frozen=True)
class Found:
    """What was measured of one contestant with one number of consumers; of each part of the window where several."""

    contestant: str
    consumers: int
    window_s: float
    server_cores: list[float]
    clients_cores: list[float]
    wake_ups_per_s: float | None
    """Of threads of both, by the kernel."""
    requests_per_s: float | None
    """Where the server or its client counts them."""
    bytes_per_s: float | None
    """Over the loopback interface, with the heads of TCP and IP."""
    packets_per_s: float | None
    wakes_s: list[float]

    @property
    def cores(self) -> list[float]:
        """Server and clients together."""
        return [server + clients for server, clients in zip(self.server_cores, self.clients_cores, strict=True)]


def planned_s(given: Idle) -> float:
    """About how long it takes."""
    return sum(
        turns.rounds * _planned_s(count, turns.window_s(BY_KEY[key]), given)
        for count in given.consumers
        for turns in given.turns(count)
        for key in turns.only
        if count <= BY_KEY[key].consumers_max
    )


def run(given: Idle, console: Console) -> Report:
    """Measure the contestants; one that can't be had, or fails, is named."""
    raise_open_files()
    report = Report("idle", "Consumers, while nothing happens", given.model_dump())
    pythons = prepared(given.only, report, console)
    found: list[Found] = []
    with Work(console, planned_s(given)) as work:
        for count in given.consumers:
            able = _able(pythons, count, report)
            for turns in given.turns(count):
                chosen = [one for one in able if one.key in turns.only]
                for number in range(turns.rounds):
                    for contestant in chosen:
                        work.step(f"{count:,} consumers, round {number + 1} of {turns.rounds}: {contestant.title}")
                        window_s = turns.window_s(contestant)
                        try:
                            found.append(_measure(contestant, pythons[contestant], count, window_s, given, work))
                        except FAILURES as error:
                            report.missing.append(Missing(f"{contestant.title}, {count:,} consumers", str(error)))
    report.samples = [asdict(one) for one in found]
    report.overview = _overview(found)
    report.measures = list(MEASURES)
    report.series = _series(found)
    report.figures = figures(found)
    report.notes += [_NOTE, *remarks(pythons)]
    return report


MEASURES = (
    Measure("cores", "CPU of server and clients while nothing happens", "cores", "lower", "lines", "consumers", True),
    Measure("wake_ups", "Wake-ups while nothing happens", "a second", "lower", "none", "consumers", True),
    Measure("requests", "Requests while nothing happens", "a second", "lower", "none", "consumers", True),
    Measure("bytes", "Traffic while nothing happens", "bytes a second", "lower", "none", "consumers", True),
    Measure("wake", "From a publish to the waiting consumer", "s", "lower", "none", "consumers", True),
)
_NOTE = (
    "Cores are CPU seconds a second, of the server and of the one process that holds all consumers, over the whole "
    "window; intervals are those of its parts, of 30 s each. Wake-ups are how often their threads were woken. Requests "
    "are counted by the server, or by its client; bytes and packets on the loopback interface, whoever has sent them. "
    "Wakes are from before a publish until the consumer has the message, after the window, in one process. No process "
    "is pinned to a core."
)


def _able(pythons: dict[Contestant, Path], count: int, report: Report) -> list[Contestant]:
    """Who is asked for so many; the others are named, once."""
    for one in pythons:
        limit = f"It is not asked for more than {one.consumers_max:,} consumers."
        if count > one.consumers_max and not any(
            (had.name, had.reason) == (one.title, limit) for had in report.missing
        ):
            report.missing.append(Missing(one.title, limit))
    return [one for one in pythons if count <= one.consumers_max]


def _planned_s(count: int, window_s: float, given: Idle) -> float:
    return _starting_s(count) + _warm_up_s(count, given) + window_s + given.wakes * _REST_S[1]


def _starting_s(count: int) -> float:
    return _STARTING_PLANNED_S + count * _STARTING_EACH_S


def _warm_up_s(count: int, given: Idle) -> float:
    return given.warm_up + count * _WARM_UP_EACH_S


def _measure(contestant: Contestant, python: Path, count: int, seconds: float, given: Idle, work: Work) -> Found:
    with contestant.loaded(python, "idle", ("--consumers", str(count))) as (server, clients):
        clients.wait_for_ready(_START_MAX_S)
        work.done(_starting_s(count))
        work.wait(_warm_up_s(count, given))
        pids = {"server": server.child.pid, "clients": clients.pid}
        requests, counted_at = _requests(contestant, server, clients), time.perf_counter()
        wake_ups, traffic = _wake_ups(pids), Traffic.so_far()
        window = CpuWindow(pids)
        slices = []
        parts = max(1, int(seconds // _SLICE_S))
        for _ in range(parts):
            one = CpuWindow(pids)
            work.wait(seconds / parts)
            slices.append(one.cores())
        window_s, later, more_wake_ups = window.seconds, Traffic.so_far(), _wake_ups(pids)
        more_requests, requests_s = _requests(contestant, server, clients), time.perf_counter() - counted_at
        wakes_s = _wakes(clients, given.wakes)
        work.done(given.wakes * _REST_S[1])
    return Found(
        contestant=contestant.key,
        consumers=count,
        window_s=window_s,
        server_cores=[one["server"] for one in slices],
        clients_cores=[one["clients"] for one in slices],
        wake_ups_per_s=_per_s(wake_ups, more_wake_ups, window_s),
        # Where the server counts, the question before the window was one of them.
        requests_per_s=_per_s(requests, more_requests, requests_s, counting=contestant.requests is not None),
        bytes_per_s=_traffic_per_s(traffic, later, window_s, "byte_count"),
        packets_per_s=_traffic_per_s(traffic, later, window_s, "packets"),
        wakes_s=wakes_s,
    )


def _per_s(before: int | None, after: int | None, seconds: float, *, counting: bool = False) -> float | None:
    return None if before is None or after is None else (after - before - counting) / seconds


def _traffic_per_s(before: Traffic | None, after: Traffic | None, seconds: float, what: str) -> float | None:
    first, last = (None if one is None else int(getattr(one, what)) for one in (before, after))
    return _per_s(first, last, seconds)


def _requests(contestant: Contestant, server: Server, clients: Child) -> int | None:
    if contestant.requests is not None:
        return contestant.requests(server.url)
    told: int | None = clients.ask("requests", number=signal.SIGUSR2)["requests"]
    return told


def _wake_ups(pids: dict[str, int]) -> int | None:
    found = [switches(pid) for pid in pids.values()]
    return None if None in found else sum(one or 0 for one in found)


def _wakes(clients: Child, count: int) -> list[float]:
    found = []
    for _ in range(count):
        time.sleep(random.uniform(*_REST_S))
        found.append(float(clients.ask("woken_s", _WAKE_MAX_S)["woken_s"]))
    return found


def _of(found: Sequence[Found], key: str, consumers: int) -> list[Found]:
    return [one for one in found if (one.contestant, one.consumers) == (key, consumers)]


def _cores(found: Sequence[Found], key: str, consumers: int) -> list[float]:
    """One number a window: what a slice has or lacks of a heartbeat is no difference between contestants."""
    return [statistics.fmean(one.cores) for one in _of(found, key, consumers)]


def times_less(found: Sequence[Found], key: str, consumers: int) -> float | None:
    """How much less CPU it takes than the reference with as many consumers; None where that was not measured."""
    ours, reference = _cores(found, key, consumers), _cores(found, REFERENCE, consumers)
    return statistics.median(reference) / statistics.median(ours) if ours and reference and min(ours) > 0 else None


def _times_less_interval(found: Sequence[Found], key: str, consumers: int) -> Interval | None:
    """By parts of the windows."""
    ours, reference = ([s for one in _of(found, who, consumers) for s in one.cores] for who in (key, REFERENCE))
    return ratio_interval(reference, ours) if min(*ours, *reference) > 0 else None


def figures(found: Sequence[Found]) -> list[Figure]:
    """What has a target."""
    shown = []
    for key, target in _TIMES_LESS_MIN.items():
        less = times_less(found, key, _TIMES_LESS_AT)
        if less is not None:
            name = f"{_TIMES_LESS_AT} consumers, {BY_KEY[key].title}: less CPU than {BY_KEY[REFERENCE].title}"
            shown.append(Figure(name, less, "times", target, _times_less_interval(found, key, _TIMES_LESS_AT)))
    for key, target in _REQUESTS_MAX.items():
        for count in sorted({one.consumers for one in found if one.contestant == key}):
            asked = [one.requests_per_s / count for one in _of(found, key, count) if one.requests_per_s is not None]
            if asked:
                name = f"{count:,} consumers, {BY_KEY[key].title}: requests of each"
                shown.append(Figure(name, statistics.median(asked), "/s", target))
    return shown


def _cases(found: Sequence[Found]) -> list[tuple[str, int]]:
    return list(dict.fromkeys((one.contestant, one.consumers) for one in found))


def _series(found: Sequence[Found]) -> list[Series]:
    shown = []
    for key, count in _cases(found):
        runs = _of(found, key, count)
        values: dict[str, Sequence[float | None]] = {
            "cores": [cores for one in runs for cores in one.cores],
            "wake_ups": [one.wake_ups_per_s for one in runs],
            "requests": [one.requests_per_s for one in runs],
            "bytes": [one.bytes_per_s for one in runs],
            "wake": [wake for one in runs for wake in one.wakes_s],
        }
        for measure, samples in values.items():
            told = [sample for sample in samples if sample is not None]
            if told:
                shown.append(Series(measure, BY_KEY[key].title, told, count))
    return shown


def _overview(found: Sequence[Found]) -> Overview:
    columns = [
        "waiting by",
        "consumers",
        "windows",
        "server",
        "clients",
        "cores",
        "times less",
        "wake-ups/s",
        "requests/s",
    ]
    return Overview([*columns, "bytes/s", "wake p50", "worst"], [_row(found, *case) for case in _cases(found)])


def _row(found: Sequence[Found], key: str, count: int) -> list[str]:
    runs = _of(found, key, count)
    server = statistics.median(statistics.fmean(one.server_cores) for one in runs)
    clients = statistics.median(statistics.fmean(one.clients_cores) for one in runs)
    wakes_s = [wake for one in runs for wake in one.wakes_s]
    less = times_less(found, key, count)
    return [
        key,
        f"{count:,}",
        " + ".join(f"{one.window_s:.0f}" for one in runs) + " s",
        *(f"{cores:.5f}" for cores in (server, clients, statistics.median(_cores(found, key, count)))),
        "" if less is None else readable(less),
        _told([one.wake_ups_per_s for one in runs]),
        _told([one.requests_per_s for one in runs]),
        _told([one.bytes_per_s for one in runs]),
        f"{1000 * statistics.median(wakes_s):.1f} ms",
        f"{1000 * percentile(wakes_s, 100):.1f} ms",
    ]


def _told(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return readable(statistics.median(known)) if known else ""
