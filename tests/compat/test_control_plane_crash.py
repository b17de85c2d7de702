"""A control plane that is killed while tasks of an unmodified service wait for a human.

They wait so that the service isn't asking the control plane something at that moment: an answer that breaks off is, to
it, the failure of its task.
"""

import json
from pathlib import Path

import httpx
import pytest

from tests.compat.peer_process import START_MAX_S, peer
from tests.compat.test_control_plane import SERVICE, service_options
from tests.compat.test_deployment import unused_ports
from tests.support.server import start_control_plane, start_server

pytestmark = [pytest.mark.compat, pytest.mark.slow]

TASKS = 5
EVENTS = 10
ANSWER = {"__is_pydantic": True, "qualified_name": "workflows.events.HumanResponseEvent"}


def test_every_task_goes_on_and_no_event_is_lost(python: Path, tmp_path: Path) -> None:
    (port,) = unused_ports(1)
    with (
        start_server(tmp_path / "queue", durability="fsync") as queue,
        start_control_plane(queue, tmp_path / "control") as first,
        peer(python, "system", *service_options(first, port), errors=tmp_path / "service.log") as service,
    ):
        assert service.line(START_MAX_S) == "READY"
        with httpx.Client(base_url=first.url, timeout=60.0) as client:
            session = client.post("/sessions/create").json()
            paths = [f"/sessions/{session}/tasks/T{number}" for number in range(TASKS)]
            for number in range(TASKS):
                task = json.dumps({"user_msg": "x", "events": EVENTS, "ask": "?"})
                body = {"input": task, "service_id": SERVICE, "task_id": f"T{number}"}
                assert client.post(f"/sessions/{session}/tasks", json=body).status_code == 200
            for path in paths:
                with client.stream("GET", f"{path}/result_stream") as stream:
                    assert any("prefix" in line for line in stream.iter_lines())
                assert client.get(path).json()["status"] == "waiting_input"
        first.kill()
        with (
            start_control_plane(queue, tmp_path / "control", port=first.port) as second,
            httpx.Client(base_url=second.url, timeout=60.0) as client,
        ):
            for number, path in enumerate(paths):
                answer = json.dumps({**ANSWER, "value": {"_data": {"response": f"{number}"}}})
                said = {"service_id": SERVICE, "event_obj_str": answer}
                assert client.post(f"{path}/send_event", json=said).json() is None
            for number, path in enumerate(paths):
                lines = map(json.loads, client.get(f"{path}/result_stream").text.splitlines())
                assert [line["number"] for line in lines if "number" in line] == list(range(EVENTS))
                assert client.get(f"{path}/result").json()["result"] == f"answer: {number}"
