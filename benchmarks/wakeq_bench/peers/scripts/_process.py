"""How a process of llama_deploy starts and ends.

The scripts that import this run under the python of a llama_deploy environment, and import the standard library and
llama_deploy only.
"""

# mypy: disable-error-code="import-not-found"

import asyncio
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
