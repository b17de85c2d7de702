"""What a script of this folder does when it is run: one of the jobs, on the queue that it connects to.

Run by the python of a peer's environment: the standard library only.
"""

# mypy: disable-error-code="import-not-found"

import argparse
import asyncio
import gc
import resource
import selectors
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import _drain
import _fanout
import _fill
import _idle
import _latency
import _load
import _mixed
from _client import Queue

JOBS = {
    "load": (_load.load, _load.add_options),
    "latency": (_latency.latency, _latency.add_options),
    "idle": (_idle.idle, _idle.add_options),
    "fanout": (_fanout.fanout, _fanout.add_options),
    "mixed": (_mixed.mixed, _mixed.add_options),
    "fill": (_fill.fill, _fill.add_options),
    "drain": (_drain.drain, _drain.add_options),
}
_ON_TIME = ("latency", "fanout", "mixed")

Connect = Callable[[argparse.Namespace], AbstractAsyncContextManager[Queue]]


def main(connect: Connect) -> None:
    """Parse the command line, connect and do the job."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--url", required=True)
    common.add_argument("--way", default="", help="how to consume, where a client has several ways")
    parser = argparse.ArgumentParser(description=__doc__)
    jobs = parser.add_subparsers(dest="job", required=True)
    for name, (_, add_options) in JOBS.items():
        add_options(jobs.add_parser(name, parents=[common]))
    options = parser.parse_args()
    _raise_limits()
    try:
        with asyncio.Runner(loop_factory=_exact_loop if options.job in _ON_TIME else None) as runner:
            runner.run(_run(connect, options))
    except BaseExceptionGroup as failed:
        sys.exit(f"the job failed: {_first(failed)!r}")


async def _run(connect: Connect, options: argparse.Namespace) -> None:
    async with connect(options) as queue:
        if options.job in _ON_TIME:
            # Else the collector walks, now and then, all that was imported, and whatever is due meanwhile is late.
            gc.collect()
            gc.freeze()
        await JOBS[options.job][0](queue, options)


def _exact_loop() -> asyncio.AbstractEventLoop:
    # Not epoll, whose timeouts are whole milliseconds: what is due would be sent up to one late.
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def _raise_limits() -> None:
    # A consumer is a connection, with most clients.
    hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))


def _first(failed: BaseException) -> BaseException:
    # When a server goes, hundreds of calls fail for one reason.
    while isinstance(failed, BaseExceptionGroup):
        failed = failed.exceptions[0]
    return failed
