"""The unmodified API server, given a deployment's YAML as ever, and started by the plug-in's line."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.compat.tap import Tap, tapped
from tests.compat.test_deployment import SERVICE, unused_ports
from tests.compat.under_test import python_of, queue_server
from wakeq_bench.peers.environments import script
from wakeq_bench.peers.llama_deploy import wakeq_on_path
from wakeq_bench.processes import Child

pytestmark = [pytest.mark.compat, pytest.mark.slow]

EVENTS = 20
TASK_MAX_S = 30.0

DEPLOYMENT = """\
name: plugged
control-plane: {{host: 127.0.0.1, port: {control_plane}}}
message-queue: {{type: simple, host: 127.0.0.1, port: {queue}}}
default-service: {service_name}
services:
  {service_name}:
    name: Agentic Workflow
    source: {{type: local, name: {source}}}
    path: {path}
    host: 127.0.0.1
    port: {service}
"""


@dataclass(frozen=True)
class ApiServer:
    """An API server with one deployment that is up, and a tap between it and the queue server."""

    http: httpx.Client
    child: Child
    ports: set[int]
    tap: Tap
    config: bytes
    base: Path
    version: str

    def deploy(self, *, reload: bool = False) -> None:
        """Give it the deployment, and wait until its service is registered, and looked at where that is done."""
        params = {"base_path": str(self.base), "reload": str(reload)}
        created = self.http.post("/deployments/create", params=params, files={"config_file": self.config})
        assert created.status_code == 200, created.text
        self._wait_for_answer("POST /services/register")
        if self.version == "0.8.1":
            self._wait_for_answer("GET /")

    def _wait_for_answer(self, call: str) -> None:
        self.child.wait_for(lambda line: True if f'"{call} HTTP/1.1" 200' in line else None)

    def task(self, **arguments: Any) -> dict[str, Any]:
        field = "service_id" if self.version == "0.8.1" else "agent_id"
        return {"input": json.dumps(arguments), field: SERVICE}


def written(directory: Path, version: str, ports: list[int], queue_port: int) -> str:
    """The deployment's YAML, and beside it its source, which 0.8.1 wants relative and 0.4.2 finds by itself."""
    source = directory / "src"
    source.mkdir()
    shutil.copy(script("_workflow"), source / "echoing.py")
    name, path = ("src", "src/echoing:workflow") if version == "0.8.1" else (source, "echoing:workflow")
    control_plane, service = ports
    return DEPLOYMENT.format(
        control_plane=control_plane, service=service, queue=queue_port, service_name=SERVICE, source=name, path=path
    )


@pytest.fixture(scope="module", params=["0.4.2", "0.8.1"])
def api_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    python = python_of(request.param, for_wakeq=True)
    directory = tmp_path_factory.mktemp("apiserver")
    api, *ports = unused_ports(3)
    environment = wakeq_on_path(tmp_path_factory.mktemp("path")) | {"TMPDIR": str(directory)}
    environment["LLAMA_DEPLOY_APISERVER_RC_PATH"] = str(directory / "none")
    command = [str(python), "-m", "wakeq.integrations.llama_deploy"]
    command += [str(python), "-m", "uvicorn", "llama_deploy.apiserver:app", "--host", "127.0.0.1", "--port", str(api)]
    with (
        queue_server(directory / "data") as queue,
        tapped(queue.host, queue.port) as tap,
        Child(f"the API server of {request.param}", command, environment) as child,
        httpx.Client(base_url=f"http://127.0.0.1:{api}", timeout=TASK_MAX_S) as http,
    ):
        child.wait_for(lambda line: True if f"Uvicorn running on http://127.0.0.1:{api}" in line else None)
        config = written(directory, request.param, ports, tap.port).encode()
        api_server = ApiServer(http, child, {api, *ports}, tap, config, directory, request.param)
        api_server.deploy()
        yield api_server


def test_a_task_runs(api_server: ApiServer) -> None:
    ran = api_server.http.post("/deployments/plugged/tasks/run", json=api_server.task(user_msg="hello"))
    assert (ran.status_code, ran.json()) == (200, "echo: hello")


def test_events_are_streamed(api_server: ApiServer) -> None:
    task = api_server.task(user_msg="hello", events=EVENTS)
    created = api_server.http.post("/deployments/plugged/tasks/create", json=task).json()
    of_task = f"/deployments/plugged/tasks/{created['task_id']}"
    session = {"session_id": created["session_id"]}
    with api_server.http.stream("GET", f"{of_task}/events", params=session) as stream:
        events = [json.loads(line) for line in stream.iter_lines()]
    assert [event["number"] for event in events if "number" in event] == list(range(EVENTS))
    assert api_server.http.get(f"{of_task}/results", params=session).json()["result"] == "echo: hello"


def test_it_streams_and_polls_nothing(api_server: ApiServer) -> None:
    api_server.http.post("/deployments/plugged/tasks/run", json=api_server.task(user_msg="hello"))
    assert len(re.findall(rb"GET /messages/\S+ HTTP/1.1\r\n", api_server.tap.requests)) == 2
    assert api_server.tap.requests.count(b"\r\naccept: text/event-stream\r\n") == 2
    assert b"/claim HTTP/1.1" not in api_server.tap.requests


def test_no_queue_of_its_own_is_started(api_server: ApiServer) -> None:
    connections = psutil.Process(api_server.child.pid).net_connections("tcp")
    assert {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN} == api_server.ports


def test_a_reloaded_deployment_works(api_server: ApiServer) -> None:
    """Reloading cancels the service's tasks, consumers among them, and goes on only if each of them returns."""
    for reload in (False, True):
        if reload:
            api_server.deploy(reload=True)
        # Before it reloads too: llama_deploy never comes back if it is still starting.
        ran = api_server.http.post("/deployments/plugged/tasks/run", json=api_server.task(user_msg="hello"))
        assert (ran.status_code, ran.json()) == (200, "echo: hello")
