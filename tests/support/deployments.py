"""`wakeq deploy` in a process of its own, and the processes that it has started."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from tests.support.raw import Answer, Client
from tests.support.server import START_S, STOP_S, LoggedProcess

QUICK_START = """\
name: QuickStart

control-plane:
  port: 8000

default-service: echo_workflow

services:
  echo_workflow:
    name: Echo Workflow
    source:
      type: local
      name: src
    path: src/workflow:echo_workflow

ui:
  name: My Nextjs App
  source:
    type: local
    name: ui
"""
"""The deployment file of llama_deploy's quick start, with all that it says."""

ECHO = """\
from workflows import Workflow, step
from workflows.events import StartEvent, StopEvent


class Echo(Workflow):
    @step
    async def echo(self, event: StartEvent) -> StopEvent:
        return StopEvent(result=f"Message received: {event.message}")


echo_workflow = Echo(timeout=None)
"""


def quick_start(folder: Path) -> Path:
    """The quick start's files; returns the deployment file."""
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "workflow.py").write_text(ECHO)
    file = folder / "quick_start.yml"
    file.write_text(QUICK_START)
    return file


class Deployed(LoggedProcess):
    """A deployment that runs; an address of its control plane."""

    def __init__(self, arguments: list[str]) -> None:
        super().__init__(arguments, command="deploy")
        self.url, self.host, self.port = "", "", 0

    def started(self) -> "Deployed":
        """Itself, once it says that it runs."""
        self.url = str(self.wait_for("deployed")["control_plane"])
        parts = urlsplit(self.url)
        self.host, self.port = str(parts.hostname), int(parts.port or 0)
        return self

    def wait_for_api(self) -> dict[str, object]:
        """What its API server says when it listens: the other servers are somebody's parts."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._ended or self._count("listening", None) > 0, START_S)
        return next(line for line in self.events("listening") if "service" not in line)

    def post(self, path: str, body: Any = None) -> Answer:
        with Client(self) as client:
            return client.call("POST", path, json.dumps(body).encode())

    def get(self, path: str) -> Answer:
        with Client(self) as client:
            return client.call("GET", path)

    def run(self, service: str, **arguments: Any) -> str:
        """The result of one task."""
        session = self.post("/sessions/create").json()
        task = {"input": json.dumps(arguments), "service_id": service}
        task_id = self.post(f"/sessions/{session}/tasks", task).json()
        return str(self.get(f"/sessions/{session}/tasks/{task_id}/result?wait=20").json()["result"])

    def begin(self, session: str, task_id: str, service: str, **arguments: Any) -> None:
        """Have a task taken."""
        task = {"input": json.dumps(arguments), "service_id": service, "task_id": task_id}
        answer = self.post(f"/sessions/{session}/tasks", task)
        assert answer.status == 200, answer

    def kill_part(self, name: str) -> None:
        """SIGKILL; returns when its successor is at work."""
        event = {"queue": "listening", "control-plane": "consuming"}.get(name, "working")
        before = self._count(event, name)
        self.parts()[name].kill()
        with self._changed:
            assert self._changed.wait_for(lambda: self._ended or self._count(event, name) > before, START_S)

    def _count(self, event: str, service: str | None) -> int:
        with self._changed:
            return sum((line["event"], line.get("service")) == (event, service) for line in self.log)

    def parts(self) -> dict[str, psutil.Process]:
        """Its processes by name: `queue`, `control-plane`, and services by theirs."""
        return {each.cmdline()[-1]: each for each in psutil.Process(self.process.pid).children()}


def none_left(processes: dict[str, psutil.Process]) -> bool:
    """Whether all of them end."""
    return not psutil.wait_procs(processes.values(), STOP_S)[1]


@contextmanager
def deployed(file: Path, data: Path, *arguments: str) -> Iterator[Deployed]:
    """A deployment at a free port, ended on the way out whatever happens."""
    with deploying(
        str(file), "--data", str(data), "--port", "0", "--api-port", "0", "--grace", "1", *arguments
    ) as process:
        yield process.started()


@contextmanager
def deploying(*arguments: str) -> Iterator[Deployed]:
    """`wakeq deploy`, ended on the way out whatever happens."""
    process = Deployed(list(arguments))
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.kill()
