"""Parts of a deployment that are killed under tasks: to the client every task ends, and ends once."""

import json
import os
from pathlib import Path

import pytest

from tests.support.deployments import deployed

pytestmark = pytest.mark.slow

TASKS = int(os.environ.get("DEPLOY_TASKS", "30"))
EVENTS = 5
FILE = """\
name: Faults
control-plane: {port: 0}
message-queue: {type: simple, port: 0}
services:
  count: {name: Counts, source: {type: local, name: .}, path: "flows:count"}
"""
FLOWS = """\
from wakeq_control.service import TaskContext


async def count(number: int, events: int, ask: bool, *, task: TaskContext) -> str:
    for index in range(events):
        task.emit({"n": index})
    if ask:
        task.emit({"prefix": "?"})
        return f"{number}: {await task.receive()}"
    return f"{number}: done"
"""


def test_every_task_ends_once_whatever_is_killed(tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(FLOWS)
    file = tmp_path / "deployment.yml"
    file.write_text(FILE)
    victims = [("queue",), ("control-plane",), ("count",), ("control-plane", "queue"), ("count", "queue")]
    with deployed(file, tmp_path / "data") as deployment:
        session = deployment.post("/sessions/create").json()
        paths = [f"/sessions/{session}/tasks/T{number}" for number in range(TASKS)]
        for number in range(TASKS):
            # Some are in the middle when it happens: they wait for an answer that comes after it.
            deployment.begin(session, f"T{number}", "count", number=number, events=EVENTS, ask=number % 5 == 0)
            if number % (TASKS // len(victims)) == TASKS // len(victims) - 1:
                for victim in victims[number // (TASKS // len(victims))]:
                    deployment.kill_part(victim)
        for number in range(0, TASKS, 5):
            said = {"event_obj_str": json.dumps("answer"), "service_id": "count"}
            assert deployment.post(f"{paths[number]}/send_event", said).status == 200
        for number, path in enumerate(paths):
            task = {"result": None}
            while task["result"] is None:
                task = deployment.get(f"{path}/result?wait=20").json() or task
            assert task["result"] == f"{number}: {'answer' if number % 5 == 0 else 'done'}"
            assert deployment.get(path).json()["status"] == "succeeded"
            lines = [json.loads(line) for line in deployment.get(f"{path}/result_stream").body.splitlines()]
            assert [line["n"] for line in lines if "n" in line] == list(range(EVENTS))
        assert len(deployment.get(f"/sessions/{session}/tasks").json()) == TASKS
        assert deployment.terminate() == 0
