"""What consumers cost while nothing is published: polling, and being parked."""

import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field
from rich.console import Console

from wakeq_bench.measure import CpuWindow, percentile
from wakeq_bench.parameters import Counts, Names, Parameters, among
from wakeq_bench.peers import PeerUnavailable, llama_deploy
from wakeq_bench.report import Figure, Measure, Missing, Overview, Report, Series, readable
from wakeq_bench.scenarios.consumers import TOPIC_PREFIX
from wakeq_bench.scenarios.contestants import CONTESTANTS, REFERENCE, Contestant, Running
from wakeq_bench.scenarios.progress import Work
from wakeq_bench.scenarios.raw import Connection, request
from wakeq_bench.scenarios.servers import ORIGINAL_VERSION, QUEUE_MESSAGE

WAKES = 20
# The counts of consumers that the targets are meant for.
_TIMES_LESS_AT = 100
_REQUESTS_AT = 2
# Before the window: imports are done, connections made, everybody is parked.
_WARM_UP_S = 5.0
_WARM_UP_EACH_S = 0.04
_STARTING_PLANNED_S = 3.0
# Between wakes, at random: long enough to be parked again, and not in step with whoever polls.
_REST_S = (0.2, 0.3)
_WAKE_MAX_S = 15.0


KEYS = [contestant.key for contestant in CONTESTANTS]


class Idle(Parameters):
    """What `idle` can be told."""

    consumers: Counts = Field([2, 20, 100], description="how many consumers wait, one measurement each")
    seconds: float = Field(120.0, ge=1, description="length of each window")
    only: Annotated[Names, among(*KEYS)] = Field(KEYS, description="the contestants that take part")


@dataclass(frozen=True)
class Found:
    """What was measured of one contestant with one number of consumers."""

    key: str
    title: str
    consumers: int
    window_s: float
    server_cores: float
    clients_cores: float
    requests_per_s: float
    wakes_s: list[float]

    @property
    def cores(self) -> float:
        """Server and clients together."""
        return self.server_cores + self.clients_cores


def planned_s(given: Idle) -> float:
    """About how long it takes."""
    return sum(len(given.only) * _planned_s(count, given.seconds) for count in given.consumers)


def run(given: Idle, console: Console) -> Report:
    """Measure the contestants. Raises ProcessFailed, BrokenAnswer, OSError."""
    counts, seconds, keys = given.consumers, given.seconds, given.only
    settings = {"consumers": list(counts), "seconds": seconds, "contestants": list(keys), "wakes": WAKES}
    report = Report("idle", f"Idle for {seconds:g} s", settings)
    contestants = [contestant for contestant in CONTESTANTS if contestant.key in keys]
    python = _original_python(contestants, report, console)
    contestants = [one for one in contestants if python is not None or not one.needs_original]
    found: list[Found] = []
    with Work(console, sum(len(contestants) * _planned_s(count, seconds) for count in counts)) as work:
        for count in counts:
            for contestant in contestants:
                work.step(f"{count} consumers: {contestant.title}")
                found.append(_measure(contestant, count, seconds, python, work))
                report.samples.append(asdict(found[-1]))
    report.overview = _overview(found)
    report.measures = list(MEASURES)
    report.series = [series for one in found for series in _series(one)]
    for contestant in contestants:
        report.figures += _figures(contestant, found)
    report.notes.append(
        "Cores are CPU seconds a second, of the server and of the one process that holds all consumers. Wakes are from "
        "before a publish until the consumer has the message, after the window. No process is pinned to a core."
    )
    return report


MEASURES = (
    Measure("cores", "CPU of server and clients while nothing happens", "cores", "lower", "lines", "consumers", True),
    Measure("requests", "Requests while nothing happens", "a second", "lower", "none", "consumers", True),
    Measure("wake", "From a publish to the waiting consumer", "s", "lower", "none", "consumers", True),
)


def _series(found: Found) -> list[Series]:
    values = {"cores": [found.cores], "requests": [found.requests_per_s], "wake": found.wakes_s}
    return [Series(measure, found.title, samples, found.consumers) for measure, samples in values.items()]


def times_less(found: Found, everything: Sequence[Found]) -> float | None:
    """How much less CPU it takes than the reference with as many consumers; None where that was not measured."""
    references = [one for one in everything if (one.key, one.consumers) == (REFERENCE, found.consumers)]
    return references[0].cores / found.cores if references and found.cores else None


def _original_python(contestants: Sequence[Contestant], report: Report, console: Console) -> Path | None:
    wanting = [one for one in contestants if one.needs_original]
    if not wanting:
        return None
    try:
        with console.status("looking for llama_deploy") as status:
            return llama_deploy.environment(ORIGINAL_VERSION, lambda line: status.update(line))
    except PeerUnavailable as error:
        report.missing += [Missing(one.title, str(error)) for one in wanting]
        return None


def _planned_s(count: int, seconds: float) -> float:
    return _STARTING_PLANNED_S + _warm_up_s(count) + seconds + WAKES * _REST_S[1]


def _warm_up_s(count: int) -> float:
    return _WARM_UP_S + count * _WARM_UP_EACH_S


def _measure(contestant: Contestant, count: int, seconds: float, python: Path | None, work: Work) -> Found:
    with contestant.start(count, python) as running:
        work.done(_STARTING_PLANNED_S)
        work.wait(_warm_up_s(count))
        requests_before, counted_at = running.requests(), time.perf_counter()
        window = CpuWindow({"server": running.server.child.pid, "clients": running.consumers.pid})
        work.wait(seconds)
        cores, window_s = window.cores(), window.seconds
        requests = running.requests() - requests_before - running.requests_of_counting
        requests_s = time.perf_counter() - counted_at
        wakes_s = _wakes(running, count)
        work.done(WAKES * _REST_S[1])
    return Found(
        key=contestant.key,
        title=contestant.title,
        consumers=count,
        window_s=window_s,
        server_cores=cores["server"],
        clients_cores=cores["clients"],
        requests_per_s=requests / requests_s,
        wakes_s=wakes_s,
    )


def _wakes(running: Running, count: int) -> list[float]:
    url, found = running.server.url, []
    with Connection(url) as publisher:
        for number in range(WAKES):
            topic = f"{TOPIC_PREFIX}{number % count}"
            publish = request(url, "POST", f"/messages/{topic}", QUEUE_MESSAGE)
            time.sleep(random.uniform(*_REST_S))
            # The consumer is another process, and wall time is what both can read.
            published_at = time.time()
            publisher.exchange(publish)
            received = running.consumers.wait_for_record("received_at", _WAKE_MAX_S)
            found.append(float(received["received_at"]) - published_at)
    return found


def _figures(contestant: Contestant, everything: Sequence[Found]) -> list[Figure]:
    figures = []
    for found in (one for one in everything if one.key == contestant.key):
        title = f"{found.consumers} consumers, {found.title}"
        less = times_less(found, everything)
        if contestant.times_less_min is not None and found.consumers == _TIMES_LESS_AT and less is not None:
            figures.append(Figure(f"{title}: less CPU than polling", less, "times", contestant.times_less_min))
        if contestant.requests_max is not None and found.consumers == _REQUESTS_AT:
            figures.append(Figure(f"{title}: requests", found.requests_per_s, "/s", contestant.requests_max))
    return figures


def _overview(everything: Sequence[Found]) -> Overview:
    columns = ["waiting by", "consumers", "server", "clients", "cores", "times less", "requests/s", "wake p50", "worst"]
    return Overview(columns, [_row(one, times_less(one, everything)) for one in everything])


def _row(found: Found, less: float | None) -> list[str]:
    return [
        found.title,
        str(found.consumers),
        *(f"{cores:.5f}" for cores in (found.server_cores, found.clients_cores, found.cores)),
        "" if less is None else readable(less),
        f"{found.requests_per_s:.3f}",
        f"{1000 * statistics.median(found.wakes_s):.1f} ms",
        f"{1000 * percentile(found.wakes_s, 100):.1f} ms",
    ]
