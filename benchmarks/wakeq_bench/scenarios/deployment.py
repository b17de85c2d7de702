"""What a deployment costs who works with it: its start, tasks by its commands and its API server, and its idleness.

Tasks of the API server are run by llama_deploy's own client and `llamactl`, beside llama_deploy's own API server.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import httpx
from pydantic import Field
from rich.console import Console

from wakeq_bench.intervals import median_interval, ratio_interval
from wakeq_bench.measure import CpuWindow
from wakeq_bench.parameters import Names, Parameters, among
from wakeq_bench.peers import llama_deploy
from wakeq_bench.processes import Child
from wakeq_bench.report import Figure, Measure, Report, Series, Target
from wakeq_bench.scenarios.deployments import NAME, deployed, original_api_server
from wakeq_bench.scenarios.parts import measure_each
from wakeq_bench.scenarios.progress import Work
from wakeq_bench.scenarios.raw import BrokenAnswer
from wakeq_bench.scenarios.servers import ORIGINAL_VERSION
from wakeq_bench.waking import WakeWindow, bare_process

PARTS = ("start", "run", "apiserver", "llamactl", "idle")
SERVICES = 5

_MESSAGE = "hello"
_RESULT = f"echo: {_MESSAGE}"
_TASK = {"input": f'{{"user_msg": "{_MESSAGE}"}}'}
_ANSWER_MAX_S = 60.0
_COMMAND_MAX_S = 120.0
_STARTED_MAX = Target("<=", 3)
_RUN_MAX = Target("<=", 0.6)
_IMPORT_MAX = Target("<=", 0.3)
_HALF = Target("<=", 1 / 2)
_LLAMACTL_MAX = Target("<=", 0.3)
_IDLE_MAX = Target("<=", 0.5)
_IDLE = f"idle deployment of {SERVICES} services: CPU"
_IMPORTED = "import time; began = time.perf_counter(); import wakeq.cli.run; print(time.perf_counter() - began)"
# Before an idle window: everybody has parked.
_SETTLED_S = 5.0
_LLAMACTL_RUNS = 3
"""Of each round."""
_PLANNED_S = {"start": 3.0, "run": 1.5, "apiserver": 10.0, "llamactl": 8.0}
"""Of each round."""
_STARTING_PLANNED_S = {"start": 0.0, "run": 3.0, "apiserver": 10.0, "llamactl": 3.0, "idle": 6.0}


class Deployment(Parameters):
    """What `deployment` can be told."""

    only: Annotated[Names, among(*PARTS)] = Field(list(PARTS), description="the parts that are measured")
    rounds: int = Field(3, ge=1, description="how often each is measured, in turns where two are compared")
    tasks: int = Field(5, ge=1, description="how many a round by llama_deploy's client, one after the other")
    seconds: float = Field(120.0, ge=1, description="how long an idle deployment is watched")


def planned_s(given: Deployment) -> float:
    """About how long it takes."""
    of_rounds = given.rounds * sum(_PLANNED_S[part] for part in given.only if part in _PLANNED_S)
    return (
        sum(_STARTING_PLANNED_S[part] for part in given.only)
        + of_rounds
        + ((given.seconds + _SETTLED_S) if "idle" in given.only else 0.0)
    )


def run(given: Deployment, console: Console) -> Report:
    """Measure its parts. Raises PeerUnavailable where llama_deploy can't be had, and what `measure_each` does."""
    settings = {**given.model_dump(), "llama_deploy": ORIGINAL_VERSION}
    report = Report("deployment", "A deployment, for who works with it", settings)
    report.measures = [Measure("seconds", "what it takes", "s", "lower")]
    is_compared = bool({"apiserver", "llamactl"} & set(given.only))
    python = llama_deploy.environment(ORIGINAL_VERSION, console.print) if is_compared else Path(sys.executable)
    with Work(console, planned_s(given)) as work:
        found = _Found(given, python, work, report)
        parts = {
            "start": found.start,
            "run": found.commands,
            "apiserver": found.clients,
            "llamactl": found.llamactl,
            "idle": found.idle,
        }
        measure_each({part: parts[part] for part in given.only}, report)
    report.notes.append(
        "Medians. A start is from the command until a task is accepted, nothing to be installed; everything is on disk."
    )
    return report


class _Found:
    """What is measured, part by part."""

    def __init__(self, given: Deployment, python: Path, work: Work, report: Report) -> None:
        self._given = given
        self._python = python
        self._work = work
        self._report = report

    def start(self) -> None:
        """From the command to the first task."""
        taken = []
        for _ in self._rounds("start"):
            with deployed() as deployment:
                began = time.perf_counter()
                _accept(deployment.api_url)
                taken.append(deployment.started_s + time.perf_counter() - began)
        self._show("wakeq deploy, until a task is accepted", taken, _STARTED_MAX)

    def commands(self) -> None:
        """`wakeq run`, the whole process, and its imports."""
        with deployed() as deployment:
            command = [sys.executable, "-m", "wakeq", "run", "-d", NAME, "-a", "user_msg", _MESSAGE]
            command += ["--api-server", deployment.api_url]
            _timed(command)
            found = [(_timed(command), _import_s()) for _ in self._rounds("run")]
        self._show("wakeq run of an echo, the whole process", [seconds for seconds, _ in found], _RUN_MAX)
        self._show("its imports", [seconds for _, seconds in found], _IMPORT_MAX)

    def clients(self) -> None:
        """`Client().apiserver`, unmodified, on ours and on the original."""
        ours: list[float] = []
        theirs: list[float] = []
        with ExitStack() as stack:
            pairs = [
                (stack.enter_context(original_api_server(self._python)), theirs),
                (stack.enter_context(deployed()).api_url, ours),
            ]
            for _ in self._rounds("apiserver"):
                for url, taken in pairs:
                    taken += _client(self._python, url, self._given.tasks)
        ratio = statistics.median(ours) / statistics.median(theirs)
        self._show("tasks.run by Client().apiserver, llama_deploy", theirs)
        self._show("tasks.run by Client().apiserver, wakeq", ours)
        name = "tasks.run by Client().apiserver, times the original"
        self._report.figures.append(Figure(name, ratio, "", _HALF, ratio_interval(ours, theirs)))

    def llamactl(self) -> None:
        """`llamactl run`, unmodified, but for what it takes to load: that varies by more than a run takes."""
        command = [str(self._python), str(llama_deploy.script("llamactl"))]
        with deployed() as deployment:
            command += ["-s", deployment.api_url, "run", "-d", NAME, "-a", "user_msg", _MESSAGE]
            _loaded_s(command)
            taken = [_loaded_s(command) for _ in self._rounds("llamactl") for _ in range(_LLAMACTL_RUNS)]
        self._show("llamactl run, once it is loaded", [seconds for seconds, _ in taken], _LLAMACTL_MAX)
        self._show("CPU of llamactl itself in that", [cpu_s for _, cpu_s in taken])

    def idle(self) -> None:
        """All processes of a deployment while nothing happens."""
        self._work.step(f"idle for {self._given.seconds:g} s")
        with deployed(SERVICES) as deployment, bare_process(self._given.seconds) as bare_pid:
            time.sleep(_SETTLED_S)
            waking = WakeWindow(deployment.child.pid, bare_pid)
            window = CpuWindow({"all": deployment.child.pid})
            self._work.wait(self._given.seconds)
            percent, seconds = 100 * window.cores()["all"], window.seconds
            beside_bare = waking.figures(_IDLE)
        self._report.samples.append({"idle_percent": percent, "window_s": seconds})
        self._report.figures += [Figure(_IDLE, percent, "%", _IDLE_MAX), *beside_bare]

    def _rounds(self, part: str) -> range:
        self._work.step(f"{part}: {self._given.rounds} rounds")
        self._work.done(self._given.rounds * _PLANNED_S[part])
        return range(self._given.rounds)

    def _show(self, name: str, taken: Sequence[float], target: Target | None = None) -> None:
        interval = median_interval(taken)
        self._report.figures.append(Figure(name, statistics.median(taken), "s", target, interval))
        self._report.series.append(Series("seconds", name, [*taken]))


def _import_s() -> float:
    command = [sys.executable, "-c", _IMPORTED]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_COMMAND_MAX_S)
    return float(done.stdout)


def _accept(url: str) -> None:
    """Have a task begun. Raises BrokenAnswer."""
    answer = httpx.post(f"{url}/deployments/{NAME}/tasks/create", json=_TASK, timeout=_ANSWER_MAX_S, trust_env=False)
    if answer.status_code != httpx.codes.OK:
        raise BrokenAnswer(f"a task was answered {answer.status_code}: {answer.text[:200]}")


def _timed(command: Sequence[str]) -> float:
    """How long a command takes that runs a task. Raises BrokenAnswer."""
    began = time.perf_counter()
    _said(command)
    return time.perf_counter() - began


def _loaded_s(command: Sequence[str]) -> tuple[float, float]:
    """What a command that runs a task says it took, and its CPU. Raises BrokenAnswer."""
    said = json.loads(_said(command))
    return said["seconds"], said["cpu_seconds"]


def _said(command: Sequence[str]) -> str:
    """What a command says behind the task's result. Raises BrokenAnswer."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_MAX_S, check=False)
    _, result, rest = f"\n{done.stdout}".partition(f"\n{_RESULT}\n")
    if done.returncode != 0 or not result:
        raise BrokenAnswer(f"{Path(command[0]).name} ended with {done.returncode}: {done.stdout}{done.stderr[-500:]}")
    return rest


def _client(python: Path, url: str, tasks: int) -> list[float]:
    """What llama_deploy's client says of so many tasks. Raises ProcessFailed, BrokenAnswer."""
    command = [str(python), str(llama_deploy.script("api_client")), "--api-server", url, "--deployment", NAME]
    # One more, which finds everything loaded for those that count.
    command += ["--user-msg", _MESSAGE, "--runs", str(tasks + 1)]
    with Child("llama_deploy's client", command) as client:
        records = [client.wait_for_record("result", _ANSWER_MAX_S) for _ in range(tasks + 1)]
    wrong = [record["result"] for record in records if record["result"] != _RESULT]
    if wrong:
        raise BrokenAnswer(f"a task ended with {wrong[0]!r}")
    return [float(record["seconds"]) for record in records[1:]]
