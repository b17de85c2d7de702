"""httpx on nginx with nchan: a POST publishes, and every subscriber of a channel is sent everything as an event stream.

nchan has no acks and no groups of competing consumers: a subscriber knows where it is, and each has all messages.
"""

# mypy: disable-error-code="import-not-found,import-untyped,misc"

import argparse
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
from _client import Queue
from _jobs import main

_STREAM = {"accept": "text/event-stream"}
_DATA = "data: "


class Channels(Queue):
    """Channels of one server."""

    def __init__(self, streams: httpx.AsyncClient, posts: httpx.AsyncClient) -> None:
        self._streams = streams
        self._posts = posts

    async def create(self, topic: str, groups: Sequence[str] = ()) -> None:
        """A channel is there when it is used."""

    async def publish(self, topic: str, body: str) -> None:
        """One request."""
        (await self._posts.post(f"/publish/{topic}", content=body)).raise_for_status()

    async def deliveries(self, topic: str, prefetch: int, group: str | None = None) -> AsyncIterator[tuple[Any, str]]:
        """Events of a stream."""
        async with self._streams.stream("GET", f"/subscribe/{topic}", headers=_STREAM) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if line.startswith(_DATA):
                    yield None, line.removeprefix(_DATA)

    async def ack_one(self, token: Any) -> None:
        """There are none."""


@contextlib.asynccontextmanager
async def connect(options: argparse.Namespace) -> AsyncIterator[Queue]:
    """Streams have a pool of their own, as large as need be."""
    every = httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(base_url=options.url, timeout=httpx.Timeout(None), limits=every) as streams,
        httpx.AsyncClient(base_url=options.url, timeout=30.0) as posts,
    ):
        yield Channels(streams, posts)


if __name__ == "__main__":
    main(connect)
