"""The least that a server on uvicorn can do: bare ASGI apps, run with the settings of wakeq's own server.

Run as `python -m wakeq_bench.baseline APP`, which prints a record with its `url` when it listens.
"""

import argparse
import asyncio
import gc
import json
import resource
import sys
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_HOST = "127.0.0.1"


async def null(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer `null` to everything."""
    await _answer(send, b"null")


async def sink(_scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body, and answer `null`."""
    await _body(receive)
    await _answer(send, b"null")


class Exchange:
    """GET parks, longest parked first; POST hands its body over, or keeps it; `/parked` tells how many are parked."""

    def __init__(self) -> None:
        self._parked: deque[asyncio.Future[bytes]] = deque()
        self._waiting: deque[bytes] = deque()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["method"] == "POST":
            self._hand_over(await _body(receive))
            await _answer(send, b"null")
        elif scope["path"] == "/parked":
            await _answer(send, str(len(self._parked)).encode())
        else:
            await _answer(send, self._waiting.popleft() if self._waiting else await self._park())

    async def _park(self) -> bytes:
        waiter: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._parked.append(waiter)
        return await waiter

    def _hand_over(self, body: bytes) -> None:
        if self._parked:
            self._parked.popleft().set_result(body)
        else:
            self._waiting.append(body)


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        event = await receive()
        parts.append(event.get("body", b""))
        if not event.get("more_body", False):
            return b"".join(parts)


async def _answer(send: Send, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _tune_process() -> None:
    # As wakeq's server tunes its own, so that servers are compared and not collectors of garbage.
    hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    gc.collect()
    gc.freeze()
    gc.set_threshold(1_000, 5, 1_000)


APPS: dict[str, Callable[[], App]] = {"null": lambda: null, "sink": lambda: sink, "exchange": Exchange}


def main() -> None:
    """Serve one of the apps on a free port of the loopback address until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("app", choices=sorted(APPS))
    _tune_process()
    config = uvicorn.Config(
        APPS[parser.parse_args().app](),
        host=_HOST,
        port=0,
        http="httptools",
        loop="uvloop",
        lifespan="off",
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        backlog=4096,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )
    listening = config.bind_socket()
    listening.listen(config.backlog)
    sys.stdout.write(json.dumps({"url": f"http://{_HOST}:{listening.getsockname()[1]}"}) + "\n")
    sys.stdout.flush()
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
