"""A deployment whose llama_deploy has wakeq in the place of its own queue, by one line."""

import json
import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

import psutil
import pytest

from tests.compat.peer_process import START_MAX_S, PeerProcess, peer
from tests.compat.tap import tapped
from tests.compat.test_deployment import EVENTS, SERVICE, Deployment, unused_ports
from tests.compat.under_test import python_of, queue_server
from wakeq_bench.peers.llama_deploy import wakeq_on_path

pytestmark = [pytest.mark.compat, pytest.mark.slow]


@pytest.fixture(scope="module", params=["0.4.2", "0.8.1"])
def deployed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Deployment, PeerProcess]]:
    """A deployment, and the process that is its control plane and its service."""
    python = python_of(request.param, for_wakeq=True)
    directory = tmp_path_factory.mktemp("plugin")
    control_plane, service = unused_ports(2)
    environment = wakeq_on_path(tmp_path_factory.mktemp("path"))
    with queue_server(directory / "data") as queue, tapped(queue.host, queue.port) as tap:
        options = ["--plugin", "--queue-port", tap.port, "--service-name", SERVICE]
        options += ["--control-plane-port", control_plane, "--service-port", service]
        with peer(python, "system", *options, errors=directory / "system.log", environment=environment) as system:
            assert system.line(START_MAX_S) == "READY"
            control_plane_url, service_url = (f"http://127.0.0.1:{port}" for port in (control_plane, service))
            yield Deployment(python, queue.url, control_plane_url, service_url, tap, directory), system


@pytest.fixture
def deployment(deployed: tuple[Deployment, PeerProcess]) -> Deployment:
    return deployed[0]


def test_a_task_runs(deployment: Deployment) -> None:
    assert deployment.run("--arg", "user_msg=hello")["result"] == "echo: hello"


def test_events_are_streamed(deployment: Deployment) -> None:
    requests = len(deployment.tap.requests)
    outcome = deployment.run("--arg", "user_msg=hello", "--arg", f"events={EVENTS}", "--stream")
    assert outcome["result"] == "echo: hello"
    assert deployment.tap.requests.count(json.dumps("task_stream").encode(), requests) == EVENTS + 1
    # The original loses some of them, on whatever queue: its services write old ones back over new ones.
    assert [data["number"] for data in outcome["event_data"] if "number" in data] == list(range(EVENTS))


def test_a_human_answers(deployment: Deployment) -> None:
    outcome = deployment.run("--arg", "user_msg=hello", "--arg", "ask=Who are you?", "--respond", "Ann")
    assert outcome["result"] == "answer: Ann"
    assert {"_data": {"prefix": "Who are you?"}} in outcome["event_data"]


def test_it_streams_and_polls_nothing(deployment: Deployment) -> None:
    """However much has gone through it, each of the two consumers has asked for messages once."""
    deployment.run("--arg", "user_msg=hello")
    receives = re.findall(rb"GET /messages/(\S+)\?\S+ HTTP/1.1\r\n", deployment.tap.requests)
    topics = sorted(unquote_to_bytes(topic) for topic in receives)
    assert topics == [b"llama_deploy.agentic_workflow", b"llama_deploy.control_plane"]
    assert deployment.tap.requests.count(b"\r\naccept: text/event-stream\r\n") == 2
    assert b"/claim HTTP/1.1" not in deployment.tap.requests


def test_no_queue_of_its_own_is_started(deployed: tuple[Deployment, PeerProcess]) -> None:
    deployment, system = deployed
    listening = {
        connection.laddr.port
        for connection in psutil.Process(system.process.pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {int(url.rpartition(":")[2]) for url in (deployment.control_plane_url, deployment.service_url)}
