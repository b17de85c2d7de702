"""What the scripts of this folder share: how a process starts, says that it is ready, and ends.

The scripts run under the python of a llama_deploy environment and import the standard library and llama_deploy only.
"""

# mypy: disable-error-code="import-not-found"

import asyncio
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

import uvicorn

# An access log line a request would be measured as the original's own cost.
uvicorn.config.LOGGING_CONFIG["loggers"]["uvicorn.access"]["handlers"] = []


def run_until_terminated(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `main` until SIGTERM or SIGINT (exit status 0), or until it ends by itself (1).

    It runs beside the main thread, where uvicorn installs no signal handlers; several servers in one process
    would take them from each other. The end is abrupt: the versions differ in how their own shutdown fails.
    """
    ending = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    threading.Thread(target=_run_and_exit, args=(main,), daemon=True).start()
    signal.sigwait(ending)
    _exit(0)


def say(line: str) -> None:
    """Write one line to standard output, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def say_json(record: dict[str, Any]) -> None:
    """Write one record as a line of JSON to standard output, at once."""
    say(json.dumps(record))


async def wait_until_listening(host: str, port: int) -> None:
    """Return as soon as something accepts connections there."""
    while True:
        await asyncio.sleep(0.02)
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            continue
        writer.close()
        await writer.wait_closed()
        return


def _run_and_exit(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        asyncio.run(main())
    except BaseException:
        traceback.print_exc()
    _exit(1)


def _exit(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
