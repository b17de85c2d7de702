"""aiohttp on nginx with nchan: a POST publishes, and every subscriber of a channel is sent everything as it comes.

nchan has no acks and no groups of competing consumers: a subscriber knows where it is, and each has all messages.
"""

# mypy: disable-error-code="import-not-found,import-untyped,misc"

import argparse
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
from _client import Queue
from _jobs import main

_STREAM = {"accept": "text/event-stream"}
_DATA = b"data: "
# A line of a stream is a message, of up to a megabyte.
_LINE_MAX_BYTES = 2_000_000


class Channels(Queue):
    """Channels of one server."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def create(self, topic: str, groups: Sequence[str] = ()) -> None:
        """A channel is there when it is used."""

    async def publish(self, topic: str, body: str) -> None:
        """One request."""
        async with self._session.post(f"/publish/{topic}", data=body) as answer:
            answer.raise_for_status()
            await answer.read()

    async def deliveries(self, topic: str, prefetch: int, group: str | None = None) -> AsyncIterator[tuple[Any, bytes]]:
        """Events of a stream."""
        async with self._session.get(f"/subscribe/{topic}", headers=_STREAM) as answer:
            answer.raise_for_status()
            async for line in answer.content:
                if line.startswith(_DATA):
                    yield None, line.removeprefix(_DATA).rstrip()

    async def ack_one(self, token: Any) -> None:
        """There are none."""


@contextlib.asynccontextmanager
async def connect(options: argparse.Namespace) -> AsyncIterator[Queue]:
    """As many connections as there are calls at a time, and no limit on how long a stream lasts."""
    async with aiohttp.ClientSession(
        options.url,
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
        read_bufsize=_LINE_MAX_BYTES,
    ) as session:
        yield Channels(session)


if __name__ == "__main__":
    main(connect)
