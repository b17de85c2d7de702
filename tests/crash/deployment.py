"""A whole deployment on one machine: queue, control plane, workers of ours, and an unmodified service of llama_deploy.

Each of them can be killed, and is started again on the same data and the same ports.
"""

import threading
from contextlib import ExitStack
from pathlib import Path

from tests.compat.peer_process import START_MAX_S, PeerProcess, peer
from tests.support.server import LoggedProcess, ServerProcess, start_control_plane, start_server, start_worker
from wakeq_bench.processes import free_ports

WORKER = "wf"
SERVICE = "unmodified"
WORKERS = 2
PARTS = ("queue", "control plane", "worker", "service")
"""What can be killed."""


class Deployment:
    """All of its processes."""

    def __init__(self, directory: Path, python: Path, stack: ExitStack) -> None:
        """``python`` has llama_deploy."""
        self._directory = directory
        self._python = python
        self._stack = stack
        self._logs = 0
        (self._service_port,) = free_ports(1)
        self.up = threading.Event()
        """Set while the control plane runs."""
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

    def kill(self, part: str) -> None:
        """Kill it, and start another in its place."""
        match part:
            case "queue":
                self.queue.kill()
                self.queue = self._start_queue(self.queue.port)
            case "control plane":
                self.up.clear()
                self.control.kill()
                self.control = self._start_control(self.control.port)
            case "worker":
                self.workers.pop(0).kill()
                self.workers.append(self._start_worker())
            case "service":
                self.service.process.kill()
                self.service.process.wait()
                self.service = self._start_service()
