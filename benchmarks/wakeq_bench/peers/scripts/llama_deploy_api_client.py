"""Runs tasks through the original `Client().apiserver`, and prints a line of JSON a task: result and seconds."""

# mypy: disable-error-code="import-not-found"

import argparse
import asyncio
import json
import time

from _output import say_json
from llama_deploy import Client
from llama_deploy.types.core import TaskDefinition


async def run(options: argparse.Namespace) -> None:
    """Run the tasks one after the other."""
    client = Client(api_server_url=options.api_server, timeout=60.0)
    deployment = await client.apiserver.deployments.get(options.deployment)
    for _ in range(options.runs):
        task = TaskDefinition(input=json.dumps({"user_msg": options.user_msg}))
        started = time.perf_counter()
        result = await deployment.tasks.run(task)
        say_json({"result": result, "seconds": time.perf_counter() - started})


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--api-server", required=True)
    parser.add_argument("--deployment", required=True)
    parser.add_argument("--user-msg", required=True)
    parser.add_argument("--runs", type=int, default=1)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
