"""Runs tasks through the original Client and prints a line of JSON a task.

`seconds` is from the creation of the task to its result, `events` how many events arrived, `event_data` what they held,
and `last_event_seconds` how long the last of them took.
"""

# mypy: disable-error-code="import-not-found"

import argparse
import asyncio
import time
from typing import Any

from _output import say_json
from llama_deploy import Client
from llama_index.core.workflow import HumanResponseEvent


async def run_streamed(session: Any, options: argparse.Namespace) -> tuple[str, list[dict[str, Any]], float]:
    """Run a task, collect its events, and give the answer when it asks for one; also when the last one came."""
    last = 0.0
    task = await session.run_nowait(options.service, **dict(options.arg))
    events = []
    async for data in session.get_task_result_stream(task):
        events.append(data)
        last = time.perf_counter()
        if options.respond is not None and "prefix" in data.get("_data", data):
            await session.send_event(options.service, task, HumanResponseEvent(response=options.respond))
    return (await session.get_task_result(task)).result, events, last


async def run_task(client: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Run one task in a session of its own."""
    session = await client.core.sessions.create()
    started = time.perf_counter()
    if options.stream or options.respond is not None:
        result, events, last = await run_streamed(session, options)
    else:
        result, events, last = await session.run(options.service, **dict(options.arg)), [], started
    seconds = time.perf_counter() - started
    said = {"result": result, "seconds": seconds, "events": len(events), "event_data": events}
    return {**said, "last_event_seconds": last - started}


async def run(options: argparse.Namespace) -> None:
    """Run the tasks one after the other."""
    client = Client(control_plane_url=options.control_plane_url, timeout=options.timeout)
    for _ in range(options.runs):
        say_json(await run_task(client, options))


def pair(text: str) -> tuple[str, str]:
    """`name=value`, split."""
    name, separator, value = text.partition("=")
    if not (name and separator):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form name=value")
    return name, value


def parser() -> argparse.ArgumentParser:
    """The command line's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--control-plane-url", required=True)
    parser.add_argument("--service", default="agentic_workflow")
    parser.add_argument("--arg", type=pair, action="append", default=[], help="NAME=VALUE, handed to the workflow")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--stream", action="store_true", help="read the events of each task")
    parser.add_argument("--respond", help="answer so when the workflow asks a human; implies --stream")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for a task")
    return parser


if __name__ == "__main__":
    asyncio.run(run(parser().parse_args()))
