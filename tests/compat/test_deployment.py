"""An unmodified deployment - control plane, workflow service, client - on wakeq's queue server."""

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.compat.clients import Clients
from tests.compat.peer_process import START_MAX_S, peer
from tests.compat.tap import Tap, tapped
from tests.compat.under_test import queue_server

pytestmark = [pytest.mark.compat, pytest.mark.slow]

SERVICE = "agentic_workflow"
EVENTS = 20

LOST_MAX = 2
"""Events of a stream that the original itself may lose.

When a workflow ends, its service reads the session's state from the control plane and writes all of it back. Events
that the control plane has taken from the queue in between are overwritten. It takes one message in 0.1 s, so one or two
are at risk.
"""


@dataclass(frozen=True)
class Deployment:
    """A control plane and a service that are up, and a tap between them and the queue server."""

    python: Path
    queue_url: str
    control_plane_url: str
    service_url: str
    tap: Tap
    clients: Clients

    def run(self, *options: str) -> dict[str, Any]:
        """What the client says of one task."""
        return self.clients.run(self.python, self.control_plane_url, SERVICE, *options)


def unused_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@pytest.fixture(scope="module")
def deployment(python: Path, tmp_path_factory: pytest.TempPathFactory, clients: Clients) -> Iterator[Deployment]:
    directory = tmp_path_factory.mktemp("deployment")
    control_plane, service = unused_ports(2)
    with queue_server(directory / "data") as queue, tapped(queue.host, queue.port) as tap:
        options = ["--queue-port", tap.port, "--control-plane-port", control_plane, "--service-port", service]
        with peer(python, "system", *options, "--service-name", SERVICE, errors=directory / "system.log") as system:
            assert system.line(START_MAX_S) == "READY"
            control_plane_url, service_url = (f"http://127.0.0.1:{port}" for port in (control_plane, service))
            yield Deployment(python, queue.url, control_plane_url, service_url, tap, clients)


def test_a_task_runs(deployment: Deployment) -> None:
    assert deployment.run("--arg", "user_msg=hello")["result"] == "echo: hello"


def test_events_are_streamed(deployment: Deployment) -> None:
    requests, answers = len(deployment.tap.requests), len(deployment.tap.answers)
    outcome = deployment.run("--arg", "user_msg=hello", "--arg", f"events={EVENTS}", "--stream")
    assert outcome["result"] == "echo: hello"
    # The queue loses none: what went in came out, the workflow's StopEvent included.
    stream = json.dumps("task_stream").encode()
    assert deployment.tap.requests.count(stream, requests) == EVENTS + 1
    assert deployment.tap.answers.count(stream, answers) == EVENTS + 1
    numbers = [data["number"] for data in outcome["event_data"] if "number" in data]
    assert numbers == sorted(set(numbers))
    assert set(numbers) <= set(range(EVENTS))
    assert len(numbers) >= EVENTS - LOST_MAX


def test_a_human_answers(deployment: Deployment) -> None:
    outcome = deployment.run("--arg", "user_msg=hello", "--arg", "ask=Who are you?", "--respond", "Ann")
    assert outcome["result"] == "answer: Ann"
    assert {"_data": {"prefix": "Who are you?"}} in outcome["event_data"]


def test_a_task_that_is_pushed_runs(deployment: Deployment) -> None:
    push = f"{deployment.queue_url}/topics/llama_deploy.{SERVICE}/push/service"
    with httpx.Client() as http:
        put = http.put(push, json={"url": f"{deployment.service_url}/process_message"})
        assert put.status_code == 201, put.text
        assert deployment.run("--arg", "user_msg=pushed")["result"] == "echo: pushed"
        shown = http.get(push).json()
        assert (shown["delivered"], shown["failed"], shown["state"]) == (1, 0, "up")
        assert http.delete(push).status_code == 204
