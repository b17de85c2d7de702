"""The deployments that tasks are run through: llama_deploy's own, and those with more and more of wakeq in it."""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wakeq_bench.peers import llama_deploy
from wakeq_bench.processes import HOST, Child, Server, free_ports, json_record
from wakeq_bench.scenarios.raw import BrokenAnswer
from wakeq_bench.scenarios.servers import original_queue, wakeq_server

SERVICE = "agentic_workflow"
TASK_MAX_S = 120.0
_READY_S = 60.0


@dataclass
class System:
    """A deployment that is up."""

    name: str
    control_plane_url: str
    children: dict[str, Child]
    """Its processes, by what they are."""
    queue: Server
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """What tasks took, by what was asked of them."""

    @property
    def pids(self) -> dict[str, int]:
        """Of its processes."""
        return {name: child.pid for name, child in self.children.items()}


@contextmanager
def original(python: Path) -> Iterator[System]:
    """llama_deploy, nothing of it replaced."""
    with original_queue(python) as queue, _llama_deploy("original", python, queue) as system:
        yield system


@contextmanager
def plugged(python: Path) -> Iterator[System]:
    """llama_deploy with the plug-in, on wakeq's queue."""
    with (
        wakeq_server(durability="fsync") as queue,
        tempfile.TemporaryDirectory(prefix="wakeq-bench-") as path,
        _llama_deploy("plug-in", python, queue, "--plugin", environment=llama_deploy.wakeq_on_path(Path(path))) as one,
    ):
        yield one


@contextmanager
def unmodified(python: Path) -> Iterator[System]:
    """An unmodified service of llama_deploy on wakeq's queue and control plane."""
    with ours("unmodified service", workers=0) as system:
        (port,) = free_ports(1)
        command = [str(python), str(llama_deploy.script("system")), "--part", "service", "--service-name", SERVICE]
        command += ["--control-plane-port", system.control_plane_url.rpartition(":")[2], "--service-port", str(port)]
        with Child("llama_deploy's service", command) as service:
            service.wait_for_ready()
            system.children["service"] = service
            yield system


@contextmanager
def ours(name: str = "our worker", *, workers: int = 1, options: Sequence[str] = ()) -> Iterator[System]:
    """wakeq's queue, control plane and workers; ``options`` are those of a worker."""
    with ExitStack() as stack:
        queue = stack.enter_context(wakeq_server(durability="fsync"))
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="wakeq-bench-"))
        command = [sys.executable, "-m", "wakeq", "control-plane", "--port", "0", "--queue", queue.url]
        command += ["--data", str(Path(directory) / "data"), "--log-format", "json"]
        control_plane = stack.enter_context(Child("wakeq control-plane", command))
        url = str(control_plane.wait_for(lambda line: _event(line, "listening"), _READY_S)["url"])
        # From then on the topic that services publish to is there.
        control_plane.wait_for(lambda line: _event(line, "consuming"), _READY_S)
        system = System(name, url, {"queue": queue.child, "control plane": control_plane}, queue)
        for number in range(workers):
            command = [sys.executable, "-m", "wakeq", "worker", "wakeq_bench.flows:workflow", "--service", SERVICE]
            command += ["--control-plane", url, "--log-format", "json", "--grace", "0", *options]
            worker = stack.enter_context(Child("wakeq worker", command))
            worker.wait_for(lambda line: _event(line, "working"), _READY_S)
            system.children[f"worker {number + 1}" if workers > 1 else "worker"] = worker
        yield system


@contextmanager
def _llama_deploy(
    name: str, python: Path, queue: Server, *options: str, environment: dict[str, str] | None = None
) -> Iterator[System]:
    control_plane_port, service_port = free_ports(2)
    command = [str(python), str(llama_deploy.script("system")), "--service-name", SERVICE, *options]
    command += ["--queue-port", str(queue.port), "--service-port", str(service_port)]
    command += ["--control-plane-port", str(control_plane_port)]
    with Child(f"llama_deploy, {name}", command, environment) as child:
        child.wait_for_ready()
        children = {"queue": queue.child, "control plane and service": child}
        yield System(name, f"http://{HOST}:{control_plane_port}", children, queue)


def run_client(python: Path, system: System, runs: int, *options: str) -> list[dict[str, Any]]:
    """What llama_deploy's own client says of so many tasks. Raises ProcessFailed, BrokenAnswer."""
    command = [str(python), str(llama_deploy.script("client")), "--control-plane-url", system.control_plane_url]
    # One more, which finds everything loaded for those that count.
    command += ["--service", SERVICE, "--runs", str(runs + 1), "--arg", "user_msg=hello", *options]
    with Child(f"llama_deploy's client with {system.name}", command) as client:
        records = [client.wait_for_record("result", TASK_MAX_S) for _ in range(runs + 1)]
    wrong = [record["result"] for record in records if record["result"] != "echo: hello"]
    if wrong:
        raise BrokenAnswer(f"a task through {system.name} ended with {wrong[0]!r}")
    return records[1:]


def _event(line: str, name: str) -> dict[str, Any] | None:
    record = json_record(line, "event")
    return record if record is not None and record["event"] == name else None
