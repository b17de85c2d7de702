"""How long a task takes through llama_deploy, on its own queue and with the plug-in on wakeq, in turns."""

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from wakeq_bench.measure import percentile
from wakeq_bench.peers import llama_deploy
from wakeq_bench.processes import HOST, Child, Server, free_ports
from wakeq_bench.report import Figure, Overview, Report, Target
from wakeq_bench.scenarios.progress import Work
from wakeq_bench.scenarios.raw import BrokenAnswer
from wakeq_bench.scenarios.servers import ORIGINAL_VERSION, original_queue, wakeq_server

EVENTS = 20

_SERVICE = "agentic_workflow"
_TASK_MAX_S = 60.0
_START_PLANNED_S = 15.0
_CLIENT_PLANNED_S = 3.0
_TASK_PLANNED_S = {"result": 0.6, "events": 2.5}
_OPTIONS = {"result": (), "events": ("--stream", "--arg", f"events={EVENTS}")}
_TITLES = {"result": "session.run()", "events": f"a stream of {EVENTS} events"}
_TASK_MAX = Target("<=", 0.5)


@dataclass
class _System:
    """A deployment that is up, and what tasks took through it, by what was asked of them."""

    name: str
    control_plane_url: str
    seconds: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in _OPTIONS})


def run(tasks: int, rounds: int, console: Console) -> Report:
    """Run tasks through both. Raises PeerUnavailable, ProcessFailed, BrokenAnswer, OSError."""
    settings = {"tasks": tasks, "rounds": rounds, "llama_deploy": ORIGINAL_VERSION, "durability": "fsync"}
    report = Report("task", f"A task through llama_deploy {ORIGINAL_VERSION}, until its result", settings)
    python = llama_deploy.environment(ORIGINAL_VERSION, console.print, for_wakeq=True)
    turn_s = {kind: _CLIENT_PLANNED_S + tasks * task_s for kind, task_s in _TASK_PLANNED_S.items()}
    with Work(console, _START_PLANNED_S + 2 * rounds * sum(turn_s.values())) as work, ExitStack() as stack:
        work.step("starting two deployments")
        systems = [stack.enter_context(_original(python)), stack.enter_context(_plugged(python))]
        work.done(_START_PLANNED_S)
        for number in range(rounds):
            for system in systems:
                work.step(f"{system.name}: round {number + 1} of {rounds}")
                for kind in _OPTIONS:
                    system.seconds[kind] += _run_tasks(python, system, kind, tasks)
                    work.done(turn_s[kind])
    report.samples = [{"system": system.name, "seconds": system.seconds} for system in systems]
    report.overview = Overview(["", *_TITLES.values()], [_row(system) for system in systems])
    report.figures = [
        Figure(f"{_TITLES[kind]}: times the original", _ratio(systems, kind), "", _TASK_MAX) for kind in _OPTIONS
    ]
    report.notes.append(
        "Medians, from a task's creation to its result, by llama_deploy's own client. Both deployments are of the same "
        "llama_deploy: a control plane and a service in one process, and a queue in another. SimpleMessageQueueServer "
        "keeps nothing; wakeq has every message on disk."
    )
    return report


@contextmanager
def _original(python: Path) -> Iterator[_System]:
    with original_queue(python) as queue, _deployed("SimpleMessageQueue", python, queue) as system:
        yield system


@contextmanager
def _plugged(python: Path) -> Iterator[_System]:
    with (
        wakeq_server(durability="fsync") as queue,
        tempfile.TemporaryDirectory(prefix="wakeq-bench-") as path,
        _deployed("plug-in", python, queue, "--plugin", environment=llama_deploy.wakeq_on_path(Path(path))) as system,
    ):
        yield system


@contextmanager
def _deployed(
    name: str, python: Path, queue: Server, *options: str, environment: dict[str, str] | None = None
) -> Iterator[_System]:
    control_plane_port, service_port = free_ports(2)
    command = [str(python), str(llama_deploy.script("system")), "--service-name", _SERVICE, *options]
    command += ["--queue-port", str(queue.port), "--service-port", str(service_port)]
    command += ["--control-plane-port", str(control_plane_port)]
    with Child(f"llama_deploy with {name}", command, environment) as child:
        child.wait_for_ready()
        yield _System(name, f"http://{HOST}:{control_plane_port}")


def _run_tasks(python: Path, system: _System, kind: str, tasks: int) -> list[float]:
    command = [str(python), str(llama_deploy.script("client")), "--control-plane-url", system.control_plane_url]
    # One more, which finds everything loaded for those that count.
    command += ["--service", _SERVICE, "--runs", str(tasks + 1), "--arg", "user_msg=hello", *_OPTIONS[kind]]
    with Child(f"llama_deploy's client with {system.name}", command) as client:
        records = [client.wait_for_record("result", _TASK_MAX_S) for _ in range(tasks + 1)]
    wrong = [record["result"] for record in records if record["result"] != "echo: hello"]
    if wrong:
        raise BrokenAnswer(f"a task through {system.name} ended with {wrong[0]!r}")
    return [float(record["seconds"]) for record in records[1:]]


def _row(system: _System) -> list[str]:
    cells = (
        f"{1000 * statistics.median(seconds):.0f} ms (p90 {1000 * percentile(seconds, 90):.0f})"
        for seconds in system.seconds.values()
    )
    return [system.name, *cells]


def _ratio(systems: Sequence[_System], kind: str) -> float:
    original, plugged = (statistics.median(system.seconds[kind]) for system in systems)
    return plugged / original
