"""Connections to one server: each request has the one that was used last, and finding it costs the same for any number.

httpcore's own pool looks at each of its connections whenever a request begins or ends, and at all of them again for
each that is idle. Here every connection is a transport of its own, whose pool has one place.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable

import anyio
import httpx

IDLE_S = 60.0
"""How long a connection is kept that nobody uses; servers keep theirs for 75 s."""


class Pool(httpx.AsyncBaseTransport):
    """At most so many connections; a request that finds all of them taken waits for one."""

    def __init__(self, *, verify: bool, most: int) -> None:
        """``verify``: whether certificates are checked."""
        # Loading certificates is most of what making a connection costs.
        context = httpx.create_ssl_context(verify=verify)
        limits = httpx.Limits(max_connections=1, keepalive_expiry=IDLE_S)
        self._make: Callable[[], httpx.AsyncBaseTransport] = lambda: httpx.AsyncHTTPTransport(
            verify=context, limits=limits
        )
        self._places = anyio.Semaphore(most, fast_acquire=True)
        self._idle: deque[tuple[httpx.AsyncBaseTransport, float]] = deque()
        """With when each was used last, the longest ago first."""
        self._used: set[httpx.AsyncBaseTransport] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx. Raises PoolTimeout where no connection has become free in time, and what a transport raises."""
        await self._wait_for_place(request)
        connection = self._idle.pop()[0] if self._idle else self._make()
        self._used.add(connection)
        try:
            response = await connection.handle_async_request(request)
        except BaseException:
            self._give_back(connection)
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Body(response.stream, lambda: self._give_back(connection))
        await self._close_unused()
        return response

    async def aclose(self) -> None:
        """Close all connections."""
        connections = [*self._used, *(connection for connection, _ in self._idle)]
        self._idle.clear()
        for connection in connections:
            await connection.aclose()

    async def _wait_for_place(self, request: httpx.Request) -> None:
        try:
            self._places.acquire_nowait()
        except anyio.WouldBlock:
            limit_s = request.extensions.get("timeout", {}).get("pool")
            try:
                with anyio.fail_after(limit_s):
                    await self._places.acquire()
            except TimeoutError:
                raise httpx.PoolTimeout("all connections are in use", request=request) from None

    def _give_back(self, connection: httpx.AsyncBaseTransport) -> None:
        # One that is broken has closed itself, and connects anew with its next request.
        self._used.discard(connection)
        self._idle.append((connection, anyio.current_time()))
        self._places.release()

    async def _close_unused(self) -> None:
        while self._idle and self._idle[0][1] < anyio.current_time() - IDLE_S:
            await self._idle.popleft()[0].aclose()


class _Body(httpx.AsyncByteStream):
    """A body, whose connection is free when it is closed."""

    def __init__(self, body: httpx.AsyncByteStream, closed: Callable[[], None]) -> None:
        self._body = body
        self._closed: Callable[[], None] | None = closed

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._body)

    async def aclose(self) -> None:
        closed, self._closed = self._closed, None
        try:
            await self._body.aclose()
        finally:
            if closed is not None:
                closed()
