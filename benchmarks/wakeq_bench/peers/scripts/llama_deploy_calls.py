"""Makes each call of the original Client's core API once, and prints what came of it as a line of JSON."""

# mypy: disable-error-code="import-not-found"

import argparse
import asyncio
from typing import Any

import httpx
from _output import say_json
from llama_deploy import Client
from llama_deploy.types.core import ServiceDefinition


async def refused(call: Any) -> int:
    """The status that a call is refused with; 0 where it isn't."""
    try:
        await call
    except httpx.HTTPStatusError as error:
        return error.response.status_code
    return 0


async def services(client: Any) -> dict[str, Any]:
    """Register, list, deregister."""
    core = client.core.services
    await core.register(ServiceDefinition(service_name="other", description="d"))
    registered = sorted(service.id for service in await core.list())
    await core.deregister("other")
    return {"registered": registered, "left": sorted(service.id for service in await core.list())}


async def sessions(client: Any, service: str) -> dict[str, Any]:
    """Make sessions, find them, run tasks in one, delete it."""
    core = client.core.sessions
    session = await core.create()
    results = await asyncio.gather(*(session.run(service, user_msg=str(number)) for number in range(5)))
    tasks = await session.get_tasks()
    again = await core.get(session.id)
    other = await core.get_or_create("there is none")
    listed = {one.id for one in await core.list()}
    found = [again.id == session.id, other.id != session.id, {session.id, other.id} <= listed]
    ghost = await refused(session.run("ghost", user_msg="x"))
    await core.delete(session.id)
    return {
        "results": results,
        "tasks": len({task.task_id for task in tasks}),
        "found": found,
        "ghost": ghost,
        "deleted": await refused(core.get(session.id)),
    }


async def run(options: argparse.Namespace) -> None:
    """Make the calls."""
    client = Client(control_plane_url=options.control_plane_url, timeout=60.0)
    say_json({"services": await services(client), "sessions": await sessions(client, options.service)})


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--control-plane-url", required=True)
    parser.add_argument("--service", default="agentic_workflow")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
