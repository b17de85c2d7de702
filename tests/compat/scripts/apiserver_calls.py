"""Makes the calls of the original `Client().apiserver`, and says what came of each group of them as a line of JSON.

With `--answer TASK SESSION` it only watches that task, and answers what it asks.
"""

# mypy: disable-error-code="import-not-found"

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx
from llama_deploy import Client
from llama_deploy.client.models.apiserver import Task
from llama_deploy.types.core import TaskDefinition
from llama_index.core.workflow import HumanResponseEvent

EVENTS = 40


def say(**record: Any) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


async def refusal(call: Any) -> list[Any]:
    """The status that a call is refused with, and what its error says to a person."""
    try:
        answer = await call
    except httpx.HTTPStatusError as error:
        return [error.response.status_code, str(error)]
    raise AssertionError(f"it was not refused: {answer}")


class Calls:
    """The calls, on a server on which nothing is deployed."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.client = Client(api_server_url=options.api_server, timeout=60.0)
        self.server = self.client.apiserver
        self.file: Path = options.file
        # Only newer ones can say where a file's paths begin; to the others it is where the server runs.
        takes_base = "base_path" in type(self.server.deployments).create.__code__.co_varnames
        self.base = {"base_path": str(options.file.parent)} if takes_base else {}

    async def create(self, **options: Any) -> Any:
        with self.file.open() as file:
            return await self.server.deployments.create(file, **self.base, **options)

    async def status(self) -> list[str]:
        status = await self.server.status()
        return [status.status.value, *(status.deployments or [])]

    async def deployments(self) -> Any:
        """Make one, find it, make it again, reload it."""
        before = await self.status()
        missing = await refusal(self.server.deployments.get(self.file.stem))
        gone = await refusal(self.create(reload=True))
        made = await self.create()
        again = await refusal(self.create())
        reloaded = await self.create(reload=True)
        found = await self.server.deployments.get(made.id)
        say(
            before=before,
            missing=missing,
            gone=gone,
            made=made.id,
            again=again,
            reloaded=reloaded.id,
            found=found.id,
            after=await self.status(),
        )
        return found

    async def runs(self, deployment: Any) -> None:
        """Tasks that are waited for."""

        def run(session_id: str | None = None, **arguments: Any) -> Any:
            return deployment.tasks.run(TaskDefinition(input=json.dumps(arguments), session_id=session_id))

        before = await deployment.sessions.list()
        session = await deployment.sessions.create()
        say(
            right=await run(user_msg="hello"),
            wrong=await refusal(run(resume="x")),
            none=await refusal(run()),
            in_a_session=[await run(session.session_id, user_msg="hello") for _ in range(2)],
            failed=await run(user_msg="fail"),
        )
        listed = await deployment.sessions.list()
        await deployment.sessions.delete(session.session_id)
        left = await deployment.sessions.list()
        say(before=before, listed=[one["session_id"] == session.session_id for one in listed], left=left)

    async def streams(self, deployment: Any) -> None:
        """Tasks that are watched, and asked for by themselves."""
        task = await deployment.tasks.create(TaskDefinition(input=json.dumps({"user_msg": "hello", "events": EVENTS})))
        # As soon as there is one.
        result = await task.results()
        events = [event async for event in task.events()]
        again = [event async for event in task.events()]
        say(result=result.result, numbers=numbers(events), again=again == events)
        asks = await deployment.tasks.create(TaskDefinition(input=json.dumps({"user_msg": "x", "ask": True})))
        await answer(asks, "wf", "Bea")
        say(answered=(await asks.results()).result)
        lost = Task(client=self.client, id="nope", session_id=asks.session_id, deployment_id=deployment.id)
        say(unknown=await refusal(anext(lost.events())), gone=await self._unknown_deployment())

    async def _unknown_deployment(self) -> list[Any]:
        lost = Task(client=self.client, id="nope", session_id="nope", deployment_id="nope")
        return await refusal(anext(lost.events()))


def numbers(events: list[dict[str, Any]]) -> list[int]:
    inner = (event.get("_data", event) for event in events)
    return [event["number"] for event in inner if "number" in event]


async def answer(task: Any, service: str, text: str) -> None:
    """Watch a task to its end, and answer its question."""
    asked, sent = [], []
    async for event in task.events():
        data = event.get("_data", event)
        if "prefix" in data:
            asked.append(data["prefix"])
            sent.append(await task.send_event(HumanResponseEvent(response=text), service))
    said = "service_id" if hasattr(sent[0], "service_id") else "agent_id"
    say(asked=asked, sent=[getattr(one, said) for one in sent])


async def run(options: argparse.Namespace) -> None:
    calls = Calls(options)
    if options.answer:
        task_id, session_id = options.answer
        task = Task(client=calls.client, id=task_id, session_id=session_id, deployment_id=options.file.stem)
        await answer(task, options.service, "Ann")
        return
    deployment = await calls.deployments()
    await calls.runs(deployment)
    await calls.streams(deployment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--api-server", required=True)
    parser.add_argument("--file", type=Path, required=True, help="a deployment's, called by its name")
    parser.add_argument("--service", default="wf")
    parser.add_argument("--answer", nargs=2, metavar=("TASK", "SESSION"))
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
