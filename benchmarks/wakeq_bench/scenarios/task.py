"""How long tasks take: through llama_deploy as it is, through deployments with wakeq in it, and through wakeq alone."""

import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

from pydantic import Field
from rich.console import Console

from wakeq_bench.measure import CpuWindow, percentile
from wakeq_bench.parameters import Names, Parameters, among
from wakeq_bench.peers import llama_deploy
from wakeq_bench.report import Figure, Measure, Overview, Report, Series, Target
from wakeq_bench.scenarios import task_client, task_systems
from wakeq_bench.scenarios.parts import measure_each
from wakeq_bench.scenarios.progress import Work
from wakeq_bench.scenarios.servers import ORIGINAL_VERSION, metric
from wakeq_bench.scenarios.task_systems import System, run_client

_EVENTS = 50
_MANY = 2_000
_LOSS_EVENTS = 40
_SEEN = 100
_SEEN_PAUSE_S = 0.02
_AT_A_TIME = 64
_WORKER_OPTIONS = ("--max-concurrent-tasks", "64")
_START_PLANNED_S = 18.0
_CLIENT_PLANNED_S = 2.2
_TASK_PLANNED_S = 0.5
_STREAM_PLANNED_S = 4.5
_OWN_PLANNED_S = 9.0
_LOSSY_PLANNED_S = 0.6
_REQUESTS_TOTAL = "wakeq_requests_total"
# Before an idle window: everybody has parked.
_SETTLED_S = 5.0


PARTS = ("compared", "losses", "idleness")


class Tasks(Parameters):
    """What `task` can be told."""

    only: Annotated[Names, among(*PARTS)] = Field(list(PARTS), description="the parts that are measured")
    tasks: int = Field(5, ge=1, description="how many a round, one after the other")
    rounds: int = Field(3, ge=1, description="how often each is measured, in turns")
    lossy: int = Field(20, ge=1, description=f"how many of {_LOSS_EVENTS} events each are looked for losses")
    idle: float = Field(120.0, ge=1, description="seconds of the window of idleness")
    rate: float = Field(5.0, ge=1, description="seconds of each window of tasks at full rate")


def planned_s(given: Tasks) -> float:
    """About how long it takes."""
    each = 4 * (_CLIENT_PLANNED_S + given.tasks * _TASK_PLANNED_S) + 2 * _STREAM_PLANNED_S + _OWN_PLANNED_S
    parts = {
        "compared": 2 * _START_PLANNED_S + given.rounds * (each + 1.25 * given.rate),
        "losses": _START_PLANNED_S / 2 + given.lossy * _LOSSY_PLANNED_S,
        "idleness": _START_PLANNED_S + _SETTLED_S + given.idle,
    }
    return sum(parts[part] for part in given.only)


def run(given: Tasks, console: Console) -> Report:
    """Measure its parts. Raises PeerUnavailable where llama_deploy can't be had, and what `measure_each` does."""
    settings = {**given.model_dump(), "llama_deploy": ORIGINAL_VERSION, "durability": "fsync"}
    report = Report("task", "Tasks, until their results", settings)
    python = llama_deploy.environment(ORIGINAL_VERSION, console.print, for_wakeq=True)
    with Work(console, planned_s(given)) as work:
        found = _Found(given, python, work)
        parts = {"compared": found.in_turns, "losses": found.losses, "idleness": found.idleness}
        measure_each({part: parts[part] for part in given.only}, report)
    report.figures = found.figures
    report.measures = [Measure("seconds", "What a task takes", "s", "lower")]
    report.series = [
        Series("seconds", system.name, seconds, kind)
        for system in found.systems
        for kind, seconds in system.seconds.items()
    ]
    if found.systems:
        report.overview = Overview(["", *_TITLES.values()], [_row(system) for system in found.systems])
    report.samples = found.samples
    report.notes.append(
        "Medians. Round trips are from a task's creation to its result; by llama_deploy's own client but for the last "
        "row, which is wakeq's, as are the rates, and who sees events of our worker. llama_deploy has a control plane "
        "and a service in one process, and a queue in another, "
        "which keeps nothing; wakeq has every message and every state on disk. An event is seen by a client that "
        "streams, on the same machine, by the same clock."
    )
    return report


_TITLES = {"run": "session.run()", "events": f"{_EVENTS} events, the last seen"}


class _Found:
    """What is measured, step by step."""

    def __init__(self, given: Tasks, python: Path, work: Work) -> None:
        self._given = given
        self._python = python
        self._work = work
        self.systems: list[System] = []
        self.figures: list[Figure] = []
        self.samples: list[dict[str, object]] = []

    def in_turns(self) -> None:
        """What is compared, in alternating rounds."""
        given, work = self._given, self._work
        with ExitStack() as stack:
            work.step("starting the deployments")
            original = stack.enter_context(task_systems.original(self._python))
            plugged = stack.enter_context(task_systems.plugged(self._python))
            unmodified = stack.enter_context(task_systems.unmodified(self._python))
            worker = stack.enter_context(task_systems.ours("our worker", options=_WORKER_OPTIONS))
            own = System("our client and worker", worker.control_plane_url, worker.children, worker.queue)
            self.systems = [original, plugged, unmodified, worker, own]
            work.done(2 * _START_PLANNED_S)
            seen: dict[str, list[float]] = {"unmodified": [], "worker": []}
            many: list[float] = []
            few: list[float] = []
            rates: list[task_client.Rate] = []
            for number in range(given.rounds):
                for system in self.systems[:4]:
                    work.step(f"{system.name}: round {number + 1} of {given.rounds}")
                    self._round(system)
                work.step(f"our client: round {number + 1} of {given.rounds}")
                own.seconds.setdefault("run", []).extend(task_client.round_trips(own, given.tasks))
                seen["unmodified"] += task_client.watched_as_lines(unmodified, _SEEN, _SEEN_PAUSE_S)[1]
                seen["worker"] += task_client.watched(worker, _SEEN, _SEEN_PAUSE_S)[1]
                few.append(task_client.watched(worker, _EVENTS)[0])
                many.append(task_client.watched(worker, _MANY)[0])
                work.done(_OWN_PLANNED_S)
                rates.append(task_client.rate(worker, _AT_A_TIME, given.rate))
                work.done(1.25 * given.rate)
        self._compare(original, plugged, unmodified, worker, own)
        self._show_streams(seen, few, many)
        self._show_rates(rates)

    def _round(self, system: System) -> None:
        records = run_client(self._python, system, self._given.tasks)
        system.seconds.setdefault("run", []).extend(float(record["seconds"]) for record in records)
        self._work.done(_CLIENT_PLANNED_S + self._given.tasks * _TASK_PLANNED_S)
        if system.name != "our client and worker":
            records = run_client(self._python, system, 1, "--stream", "--arg", f"events={_EVENTS}")
            system.seconds.setdefault("events", []).extend(float(record["last_event_seconds"]) for record in records)

    def _compare(self, original: System, plugged: System, unmodified: System, worker: System, own: System) -> None:
        def ratio(system: System, kind: str) -> float:
            return statistics.median(system.seconds[kind]) / statistics.median(original.seconds[kind])

        client_and_service = "unmodified client and service on wakeq"
        self.figures += [
            Figure("plug-in: a task, times the original", ratio(plugged, "run"), "", Target("<=", 1 / 2)),
            Figure(f"{client_and_service}: a task, times the original", ratio(unmodified, "run"), "", _THIRD),
            Figure("unmodified client, our worker: a task, times the original", ratio(worker, "run"), "", _EIGHTH),
            Figure("our client and worker: a task", task_client.median_ms(own.seconds["run"]), "ms", Target("<=", 15)),
            Figure(
                f"{client_and_service}: {_EVENTS} events, the last one seen, times the original",
                ratio(unmodified, "events"), "", _EIGHTH,
            ),
        ]  # fmt: skip

    def _show_streams(self, seen: dict[str, list[float]], few: list[float], many: list[float]) -> None:
        each = statistics.median(many) / _MANY
        self.figures += [
            Figure("our worker: an event, until it is seen", task_client.median_ms(seen["worker"]), "ms", _SEEN_OURS),
            Figure(
                "unmodified service: an event, until it is seen",
                task_client.median_ms(seen["unmodified"]), "ms", Target("<=", 60),
            ),
            Figure(f"our worker: a task of {_MANY:,} events", statistics.median(many), "s", Target("<=", 2)),
            Figure(
                f"our worker: an event of {_MANY:,}, times one of {_EVENTS}",
                each / (statistics.median(few) / _EVENTS), "", Target("<=", 1.2),
            ),
        ]  # fmt: skip
        self.samples.append({"seen_s": seen, "few_s": few, "many_s": many})

    def _show_rates(self, rates: Sequence[task_client.Rate]) -> None:
        self.figures.append(
            Figure("one worker: tasks", statistics.median(one.per_s for one in rates), "/s", Target(">=", 250))
        )
        for name in rates[0].cpu_ms:
            used = statistics.median(one.cpu_ms[name] for one in rates)
            self.figures.append(Figure(f"CPU of a task: {name}", used, "ms"))
        self.samples.append({"rates": [{"per_s": one.per_s, "cpu_ms": one.cpu_ms} for one in rates]})

    def losses(self) -> None:
        """Events of many tasks of an unmodified service."""
        self._work.step(f"{self._given.lossy} tasks of {_LOSS_EVENTS} events")
        with task_systems.unmodified(self._python) as system:
            options = ("--stream", "--arg", f"events={_LOSS_EVENTS}")
            records = run_client(self._python, system, self._given.lossy, *options)
        self._work.done(self._given.lossy * _LOSSY_PLANNED_S)
        lost = sum(_LOSS_EVENTS - len(_numbers(record)) for record in records)
        title = f"unmodified service: events lost of {self._given.lossy} tasks of {_LOSS_EVENTS}"
        self.figures.append(Figure(title, lost, "", Target("==", 0)))

    def idleness(self) -> None:
        """Whole deployments while nothing happens, side by side."""
        self._work.step(f"idle for {self._given.idle:g} s")
        with task_systems.original(self._python) as original, task_systems.ours(workers=2) as ours:
            time.sleep(_SETTLED_S)
            requests = metric(ours.queue.url, _REQUESTS_TOTAL)
            windows = {system.name: CpuWindow(system.pids) for system in (original, ours)}
            self._work.wait(self._given.idle)
            cores = {name: sum(window.cores().values()) for name, window in windows.items()}
            seconds = windows[ours.name].seconds
            made = metric(ours.queue.url, _REQUESTS_TOTAL) - requests - 1
        self.figures += [
            Figure("idle deployment: CPU, times the original", cores[ours.name] / cores[original.name], "", _HUNDREDTH),
            Figure("idle deployment: requests to the queue", made / seconds, "/s", Target("<=", 0.05)),
        ]
        self.samples.append({"idle_cores": cores})


_THIRD = Target("<=", 1 / 3)
_EIGHTH = Target("<=", 1 / 8)
_HUNDREDTH = Target("<=", 1 / 100)
_SEEN_OURS = Target("<=", 10)


def _numbers(record: dict[str, object]) -> set[int]:
    data = record["event_data"]
    assert isinstance(data, list)
    inner = (one.get("_data", one) for one in data)
    return {one["number"] for one in inner if "number" in one}


def _row(system: System) -> list[str]:
    return [system.name, *(_cell(system.seconds.get(kind, [])) for kind in _TITLES)]


def _cell(seconds: list[float]) -> str:
    if not seconds:
        return ""
    return f"{task_client.median_ms(seconds):.0f} ms (p90 {1000 * percentile(seconds, 90):.0f})"
