"""Consumers in one process, each on a topic of its own, in one of the ways that a client of wakeq can wait.

Run as `python -m wakeq_bench.scenarios.consumers WAY --url URL --topics N`. Prints READY, then a record a message; a
SIGUSR1 is answered by a record of how many requests have been made. Ends on SIGTERM.
"""

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Awaitable, Callable

import httpx

import wakeq

POLL_EVERY_S = 0.05
TOPIC_PREFIX = "topic-"

_WAIT_S = 60
_SLACK_S = 10.0
_CONNECTIONS_MAX = 1_000


class Requests:
    """Counts what an httpx client sends."""

    def __init__(self) -> None:
        self.count = 0

    async def add(self, _request: httpx.Request) -> None:
        """One more."""
        self.count += 1


async def poll(http: httpx.AsyncClient, topic: str, query: str) -> None:
    """Ask, sleep, ask again: what llama_deploy's client does, with a connection that is kept."""
    while True:
        _record(topic, (await http.get(f"/messages/{topic}{query}")).content)
        await asyncio.sleep(POLL_EVERY_S)


async def long_poll(http: httpx.AsyncClient, topic: str) -> None:
    """Ask, and ask again when answered: the server keeps the request until there is a message."""
    while True:
        _record(topic, (await http.get(f"/messages/{topic}?wait={_WAIT_S}")).content)


async def stream(client: wakeq.AsyncClient, topic: str) -> None:
    """Take messages from a stream of server-sent events, and ack each."""
    async with client.consume(topic) as deliveries:
        async for delivery in deliveries:
            _say({"topic": topic, "received_at": time.time()})
            await delivery.ack()


async def consume(way: str, url: str, topics: int) -> None:
    """Run the consumers until one of them fails."""
    requests = Requests()
    names = [f"{TOPIC_PREFIX}{number}" for number in range(topics)]
    async with (
        httpx.AsyncClient(
            base_url=url,
            timeout=_WAIT_S + _SLACK_S,
            limits=httpx.Limits(max_connections=_CONNECTIONS_MAX),
            event_hooks={"request": [requests.add]},
        ) as http,
        wakeq.AsyncClient(url) as client,
    ):
        for name in names:
            (await http.post(f"/topics/{name}")).raise_for_status()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: _say({"requests": requests.count}))
        ways: dict[str, Callable[[str], Awaitable[None]]] = {
            "poll": lambda topic: poll(http, topic, ""),
            "poll-nowait": lambda topic: poll(http, topic, "?wait=0"),
            "long-poll": lambda topic: long_poll(http, topic),
            "sse": lambda topic: stream(client, topic),
        }
        _write("READY")
        await asyncio.gather(*(ways[way](name) for name in names))


def main() -> None:
    """Parse the command line and consume."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=("poll", "poll-nowait", "long-poll", "sse"))
    parser.add_argument("--url", required=True)
    parser.add_argument("--topics", type=int, required=True, help="how many; a consumer each")
    options = parser.parse_args()
    asyncio.run(consume(options.way, options.url, options.topics))


def _record(topic: str, body: bytes) -> None:
    if body.strip() not in (b"", b"null"):
        _say({"topic": topic, "received_at": time.time()})


def _say(record: dict[str, object]) -> None:
    _write(json.dumps(record))


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
