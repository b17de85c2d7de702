"""A control plane that is killed while an unmodified service works for it."""

import json
from pathlib import Path

import httpx
import pytest

from tests.compat.peer_process import START_MAX_S, peer
from tests.compat.test_deployment import unused_ports
from tests.compat.under_test import python_of
from tests.support.server import start_control_plane, start_server

pytestmark = [pytest.mark.compat, pytest.mark.slow]

SERVICE = "agentic_workflow"
TASKS = 8
EVENTS = 25


def test_every_task_ends_once_and_no_event_is_lost(tmp_path: Path) -> None:
    # 0.4.2 loses a task whose control plane it can't reach; later versions let it be.
    python, (port,) = python_of("0.8.1"), unused_ports(1)
    with (
        start_server(tmp_path / "queue", durability="fsync") as queue,
        start_control_plane(queue, tmp_path / "control") as first,
    ):
        options = ["--control-plane-url", first.url, "--port", port, "--service-name", SERVICE]
        with peer(python, "service", *options, errors=tmp_path / "service.log") as service:
            assert service.line(START_MAX_S) == "READY"
            with httpx.Client(base_url=first.url, timeout=60.0) as client:
                session = client.post("/sessions/create").json()
                for number in range(TASKS):
                    task = {"input": json.dumps({"user_msg": f"{number}", "events": EVENTS})}
                    body = {**task, "service_id": SERVICE, "task_id": f"T{number}"}
                    assert client.post(f"/sessions/{session}/tasks", json=body).status_code == 200
                # Something has been heard, and most has not.
                with client.stream("GET", f"/sessions/{session}/tasks/T0/result_stream") as stream:
                    assert json.loads(next(stream.iter_lines())) == {"number": 0}
                first.kill()
            with (
                start_control_plane(queue, tmp_path / "control", port=first.port) as second,
                httpx.Client(base_url=second.url, timeout=60.0) as client,
            ):
                for number in range(TASKS):
                    path = f"/sessions/{session}/tasks/T{number}"
                    lines = client.get(f"{path}/result_stream").text.splitlines()
                    numbers = [json.loads(line)["number"] for line in lines if "number" in json.loads(line)]
                    assert numbers == list(range(EVENTS))
                    assert client.get(f"{path}/result").json()["result"] == f"echo: {number}"
