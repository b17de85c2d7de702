"""Unmodified clients and services of llama_deploy on wakeq's control plane and queue."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.compat.clients import Clients
from tests.compat.peer_process import START_MAX_S, PeerProcess, peer
from tests.compat.test_deployment import unused_ports
from tests.support.raw import wait_until
from tests.support.server import ServerProcess, start_control_plane, start_server

pytestmark = [pytest.mark.compat, pytest.mark.slow]

SERVICE = "agentic_workflow"
EVENTS = 40


@dataclass(frozen=True)
class Deployment:
    """Our queue and control plane, and an unmodified service."""

    python: Path
    queue: ServerProcess
    control_plane: ServerProcess
    service: PeerProcess
    directory: Path
    is_pushed: bool
    clients: Clients

    def run(self, *options: str) -> dict[str, Any]:
        """What an unmodified client says of one task."""
        return self.clients.run(self.python, self.control_plane.url, SERVICE, *options)


def service_options(control_plane: ServerProcess, port: int) -> list[object]:
    """What has the script run one service, which learns from the control plane where the queue is."""
    addresses = ["--control-plane-port", control_plane.port, "--service-port", port]
    return ["--part", "service", *addresses, "--service-name", SERVICE]


@pytest.fixture(scope="module", params=["pushed", "parked"])
def deployment(
    request: pytest.FixtureRequest, python: Path, tmp_path_factory: pytest.TempPathFactory, clients: Clients
) -> Iterator[Deployment]:
    directory = tmp_path_factory.mktemp("control")
    # Where the queue may push nowhere, services are served by their own requests.
    allowed = [] if request.param == "pushed" else ["--push-allow", "192.0.2.1"]
    (port,) = unused_ports(1)
    with (
        start_server(directory / "queue", *allowed, durability="fsync") as queue,
        start_control_plane(queue, directory / "control") as control_plane,
        peer(python, "system", *service_options(control_plane, port), errors=directory / "service.log") as service,
    ):
        assert service.line(START_MAX_S) == "READY"
        yield Deployment(python, queue, control_plane, service, directory, request.param == "pushed", clients)


def test_a_task_runs(deployment: Deployment) -> None:
    assert deployment.run("--arg", "user_msg=hello")["result"] == "echo: hello"


def test_no_event_is_lost(deployment: Deployment) -> None:
    outcome = deployment.run("--arg", "user_msg=hello", "--arg", f"events={EVENTS}", "--stream")
    assert outcome["result"] == "echo: hello"
    numbers = [data["number"] for data in outcome["event_data"] if "number" in data]
    assert numbers == list(range(EVENTS))


def test_a_human_answers(deployment: Deployment) -> None:
    outcome = deployment.run("--arg", "user_msg=hello", "--arg", "ask=Who are you?", "--respond", "Ann")
    assert outcome["result"] == "answer: Ann"
    assert {"_data": {"prefix": "Who are you?"}} in outcome["event_data"]


def test_a_service_is_there_as_long_as_its_requests_are_parked(deployment: Deployment) -> None:
    def is_up() -> bool:
        (service,) = httpx.get(f"{deployment.control_plane.url}/v1/services").json()["services"]
        assert service["name"] == SERVICE
        return bool((service["state"], service["consumers"]) == ("up", ["127.0.0.1"]))

    wait_until(is_up)


def test_messages_go_the_way_they_should(deployment: Deployment) -> None:
    deployment.run("--arg", "user_msg=hello")
    pushes = httpx.get(f"{deployment.queue.url}/topics/llama_deploy.{SERVICE}/push").json()["pushes"]
    assert [push["state"] for push in pushes] == ["up"] * deployment.is_pushed
    assert all(push["delivered"] > 0 for push in pushes)


def test_every_call_of_the_client_does_what_it_should(deployment: Deployment) -> None:
    options = ["--control-plane-url", deployment.control_plane.url, "--service", SERVICE]
    with peer(deployment.python, "calls", *options, errors=deployment.directory / "calls.log") as client:
        said = client.record(START_MAX_S)
        client.finish()
    assert said == {
        "services": {"registered": [SERVICE, "other"], "left": [SERVICE]},
        "sessions": {
            "results": [f"echo: {number}" for number in range(5)],
            "tasks": 5,
            "found": [True, True, True],
            "ghost": 404,
            "deleted": 404,
        },
    }
