"""A deployment as llama_deploy's quick start has it, its workflow on the libraries that llama_deploy 0.8.1 brings."""

import json
import os
from pathlib import Path

import pytest

from tests.compat.under_test import python_of
from tests.support.deployments import deployed, quick_start

pytestmark = [pytest.mark.compat, pytest.mark.slow]

WORKFLOW = """\
import asyncio

from llama_index.core.workflow import Context, Event, StartEvent, StopEvent, Workflow, step
from pydantic import Field


class Heard(Event):
    message: str = Field(description="What was heard.")


class EchoWorkflow(Workflow):
    def __init__(self, *args, **kwargs):
        kwargs.setdefault("timeout", None)
        super().__init__(*args, **kwargs)

    @step()
    async def echo(self, ctx: Context, ev: StartEvent) -> StopEvent:
        message = str(ev.get("message", ""))
        ctx.write_event_to_stream(Heard(message=message))
        return StopEvent(result=f"Message received: {message}")


echo_workflow = EchoWorkflow()


async def main():
    print(await echo_workflow.run(message="Hello!"))


if __name__ == "__main__":
    asyncio.run(main())
"""


def test_it_runs_unchanged(tmp_path: Path) -> None:
    file = quick_start(tmp_path)
    (tmp_path / "src" / "workflow.py").write_text(WORKFLOW)
    (libraries,) = python_of("0.8.1").parents[1].glob("lib/python3*/site-packages")
    # In front of wakeq's own, as packages of the service's own environment are.
    path = os.pathsep.join([str(libraries), os.environ.get("PYTHONPATH", "")])
    file.write_text(
        file.read_text().replace(
            "    name: Echo Workflow\n", f"    name: Echo Workflow\n    env: {{PYTHONPATH: '{path}'}}\n"
        )
    )
    with deployed(file, tmp_path / "data") as deployment:
        session = deployment.post("/sessions/create").json()
        deployment.begin(session, "T", "echo_workflow", message="Hello!")
        of_task = f"/sessions/{session}/tasks/T"
        assert deployment.get(f"{of_task}/result?wait=20").json()["result"] == "Message received: Hello!"
        first, *_ = deployment.get(f"{of_task}/result_stream").body.splitlines()
        assert json.loads(first) == {"message": "Hello!"}
        service = deployment.parts()["echo_workflow"]
        assert any(str(libraries) in mapped.path for mapped in service.memory_maps())
