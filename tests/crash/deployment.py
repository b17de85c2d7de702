"""A whole deployment on one machine: queue, control plane, workers of ours, and an unmodified service of llama_deploy.

Each of them can be killed, and is started again on the same data and the same ports.
"""

import json
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.compat.peer_process import START_MAX_S, PeerProcess, peer
from tests.crash.tasks import EVENTS, PAUSE_S, Client, History, Seen
from tests.support.server import LoggedProcess, ServerProcess, start_control_plane, start_server, start_worker
from wakeq_bench.processes import free_ports

WORKER = "wf"
SERVICE = "unmodified"
WORKERS = 2
PARTS = ("queue", "control plane", "worker", "service")
"""What can be killed."""
SERVICE_TASK_MAX_S = 30.0
"""What died with an unmodified service comes to its end by its deadline alone."""


class Deployment:
    """All of its processes."""

    parts = PARTS

    def __init__(self, directory: Path, python: Path, stack: ExitStack) -> None:
        """``python`` has llama_deploy."""
        self._directory = directory
        self._python = python
        self._stack = stack
        self._logs = 0
        (self._service_port,) = free_ports(1)
        self.up = threading.Event()
        """Set while the control plane runs."""
        self.lives = 0
        self.queue = self._start_queue(0)
        self.control = self._start_control(0)
        self.workers = [self._start_worker() for _ in range(WORKERS)]
        self.service = self._start_service()

    def _start_queue(self, port: int) -> ServerProcess:
        return self._stack.enter_context(start_server(self._directory / "queue", durability="fsync", port=port))

    def _start_control(self, port: int) -> ServerProcess:
        started = self._stack.enter_context(start_control_plane(self.queue, self._directory / "control", port=port))
        self.up.set()
        return started

    def _start_worker(self) -> LoggedProcess:
        return self._stack.enter_context(start_worker(self.control, "tests.crash.flows:steps"))

    def _start_service(self) -> PeerProcess:
        self._logs += 1
        options = ["--part", "service", "--service-name", SERVICE, "--service-port", self._service_port]
        options += ["--control-plane-port", self.control.port]
        log = self._directory / f"service {self._logs}.log"
        service = self._stack.enter_context(peer(self._python, "system", *options, errors=log))
        assert service.line(START_MAX_S) == "READY"
        return service

    @property
    def url(self) -> str:
        """Of the control plane."""
        return self.control.url

    def client(self, history: History) -> Client:
        """One that asks the control plane."""
        return PlaneClient(self, history)

    def kill(self, part: str) -> None:
        """Kill it, and start another in its place."""
        match part:
            case "queue":
                self.queue.kill()
                self.queue = self._start_queue(self.queue.port)
            case "control plane":
                self.up.clear()
                self.lives += 1
                self.control.kill()
                self.control = self._start_control(self.control.port)
            case "worker":
                self.workers.pop(0).kill()
                self.workers.append(self._start_worker())
            case "service":
                self.service.process.kill()
                self.service.process.wait()
                self.service = self._start_service()


class PlaneClient(Client):
    """Has tasks run by a control plane: one in four by the unmodified service."""

    stream = "/result_stream"
    send = "/send_event"

    def begin(self, number: int) -> Seen:
        """A task, with an id of its own: asked for again it is the same."""
        task_id, is_ours = f"T{number}", number % 4 != 3
        session = self.ask("POST", "/sessions/create")
        arguments: dict[str, Any] = {"events": EVENTS, "pause": PAUSE_S}
        task: dict[str, Any] = {"task_id": task_id, "service_id": WORKER}
        seen = Seen(task_id, session, WORKER, f"done: {EVENTS}")
        if not is_ours:
            arguments["user_msg"] = task_id
            task |= {"service_id": SERVICE, "timeout_s": SERVICE_TASK_MAX_S}
            seen = Seen(task_id, session, SERVICE, f"echo: {task_id}", must_succeed=False)
        answer = self.ask("POST", f"/sessions/{session}/tasks", {**task, "input": json.dumps(arguments)})
        if answer != task_id:
            self._history.problems.append(f"{task_id} was answered {answer}")
        return seen

    def path(self, seen: Seen, action: str = "", **query: Any) -> str:
        parameters = "&".join(f"{name}={value}" for name, value in query.items())
        return f"/sessions/{seen.session}/tasks/{seen.id}{action}?{parameters}"
