"""What a script of this folder does when it is run: one of the jobs, on the queue that it connects to.

Run by the python of a peer's environment: the standard library only.
"""

# mypy: disable-error-code="import-not-found"

import argparse
import asyncio
import resource
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import _load
from _client import Queue

JOBS = {"load": _load.load}

Connect = Callable[[argparse.Namespace], AbstractAsyncContextManager[Queue]]


def main(connect: Connect) -> None:
    """Parse the command line, connect and do the job."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("--url", required=True)
    parser.add_argument("--way", default="", help="how to consume, where a client has several ways")
    parser.add_argument("--batch", type=int, default=1, help="messages a request")
    parser.add_argument(
        "--in-flight", type=int, default=1, help="publishes at a time, and as many consumers of batches"
    )
    parser.add_argument("--singly", action="store_true", help="publish and ack each message by a call of its own")
    parser.add_argument("--size", type=int, default=100, help="bytes of a message")
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds before the window")
    parser.add_argument("--seconds", type=float, default=5.0)
    _raise_limits()
    try:
        asyncio.run(_run(connect, parser.parse_args()))
    except BaseExceptionGroup as failed:
        sys.exit(f"the job failed: {_first(failed)!r}")


async def _run(connect: Connect, options: argparse.Namespace) -> None:
    async with connect(options) as queue:
        await JOBS[options.job](queue, options)


def _raise_limits() -> None:
    # A consumer is a connection, with most clients.
    hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))


def _first(failed: BaseException) -> BaseException:
    # When a server goes, hundreds of calls fail for one reason.
    while isinstance(failed, BaseExceptionGroup):
        failed = failed.exceptions[0]
    return failed
