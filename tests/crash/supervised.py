"""`wakeq deploy`, whose parts can be killed, and itself with its API server: what is asked of it is asked by that."""

import json
import shutil
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.crash import flows
from tests.crash.tasks import EVENTS, PAUSE_S, Client, History, Seen
from tests.support.deployments import Deployed, deploying
from wakeq_bench.processes import free_ports

NAME = "Crash"
SERVICE = "wf"
API = "API server"
PARTS = ("queue", "control-plane", SERVICE, API)
"""What can be killed. With the API server all else ends: it is the supervisor."""
FILE = """\
name: {name}
control-plane: {{port: {control}}}
message-queue: {{type: simple, port: {queue}}}
default-service: {service}
services:
  {service}: {{name: Steps, source: {{type: local, name: .}}, path: "flows:steps"}}
"""


class Supervised:
    """A deployment."""

    parts = PARTS

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._stack = stack
        shutil.copy(flows.__file__, directory / "flows.py")
        control, queue, self._port = free_ports(3)
        self._file = directory / "deployment.yml"
        self._file.write_text(FILE.format(name=NAME, service=SERVICE, control=control, queue=queue))
        self._data = directory / "data"
        self.up = threading.Event()
        """Set while the API server runs."""
        self.lives = 0
        self._deployed = self._started()

    @property
    def url(self) -> str:
        """Of the API server."""
        return f"http://127.0.0.1:{self._port}"

    def _started(self) -> Deployed:
        arguments = [str(self._file), "--data", str(self._data), "--api-port", str(self._port), "--no-reload"]
        # Leases outlive a queue and the services that had them.
        process = self._stack.enter_context(deploying(*arguments, "--grace", "0", "--lease", "5"))
        process.started()
        process.wait_for_api()
        self.up.set()
        return process

    def kill(self, part: str) -> None:
        """Kill it, and have another in its place."""
        if part != API:
            self._deployed.kill_part(part)
            return
        self.up.clear()
        self.lives += 1
        parts = self._deployed.parts()
        self._deployed.kill()
        for one in parts.values():
            one.wait(20.0)
        self._deployed = self._started()

    def client(self, history: History) -> Client:
        """One of llama_deploy's kind, by what it asks."""
        return ApiClient(self, history)

    def stop(self) -> None:
        """End it in order."""
        assert self._deployed.terminate() == 0


class ApiClient(Client):
    """Has tasks run by an API server: one in four asks, and one in four is waited for by the request that begins it."""

    stream = "/events"
    send = "/events"

    def run(self, number: int) -> None:
        if number % 4 != 3:
            super().run(number)
            return
        result = self.ask("POST", f"/deployments/{NAME}/tasks/run", self._task(ask=False))
        if result != f"done: {EVENTS}":
            self._history.problems.append(f"a task was run to {result!r}")
        self._history.note("run")

    def begin(self, number: int) -> Seen:
        """A new task. Where the answer is lost there is one more, of which nobody knows."""
        asks = number % 4 == 2
        made = self.ask("POST", f"/deployments/{NAME}/tasks/create", self._task(ask=asks))
        return Seen(made["task_id"], made["session_id"], SERVICE, f"done: {'go' if asks else EVENTS}")

    def path(self, seen: Seen, action: str = "", **query: Any) -> str:
        parameters = "".join(f"&{name}={value}" for name, value in query.items())
        return f"/deployments/{NAME}/tasks/{seen.id}{action}?session_id={seen.session}{parameters}"

    def _task(self, *, ask: bool) -> dict[str, str]:
        return {"input": json.dumps({"events": EVENTS, "pause": PAUSE_S, "ask": ask})}
