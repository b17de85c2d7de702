"""A relay of TCP connections whose faults the test chooses, in the test's own event loop."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import SocketAttribute, SocketStream


class Relay:
    """Passes bytes on until it is told otherwise."""

    def __init__(self, port: int, upstream_port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.connections = 0
        """How many have been made."""
        self._upstream_port = upstream_port
        self._open: set[anyio.CancelScope] = set()
        self.lose_answers = False
        """End a connection where an answer would have passed."""
        self.lost = anyio.Event()
        """An answer was lost."""

    def cut(self) -> None:
        """End every connection."""
        for scope in self._open:
            scope.cancel()

    async def serve(self, client: SocketStream) -> None:
        """One connection."""
        self.connections += 1
        with anyio.CancelScope() as scope:
            self._open.add(scope)
            async with (
                client,
                await anyio.connect_tcp("127.0.0.1", self._upstream_port) as upstream,
                anyio.create_task_group() as pumps,
            ):
                pumps.start_soon(self._pump, client, upstream)
                await self._answer(upstream, client)
                pumps.cancel_scope.cancel()
        self._open.discard(scope)

    async def _answer(self, upstream: SocketStream, client: SocketStream) -> None:
        try:
            async for data in upstream:
                if self.lose_answers:
                    self.lost.set()
                    return
                await client.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return

    async def _pump(self, source: SocketStream, target: SocketStream) -> None:
        try:
            async for data in source:
                await target.send(data)
            await target.send_eof()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return


@asynccontextmanager
async def relay(upstream_port: int) -> AsyncIterator[Relay]:
    """A relay on a free port, which has ended on the way out."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    async with listener, anyio.create_task_group() as tasks:
        between = Relay(listener.extra(SocketAttribute.local_port), upstream_port)
        tasks.start_soon(listener.serve, between.serve)
        try:
            yield between
        finally:
            tasks.cancel_scope.cancel()
