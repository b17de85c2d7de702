"""Connections to one server: each request has the one that was used last, and finding it costs the same for any number.

The connections are httpcore's. Its own pool looks at each of them whenever a request begins or ends, and at all of them
again for each that is idle. And a request's head and its body are written together: the head alone would wake a server
that can do nothing with it.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import httpcore
import httpx

IDLE_S = 60.0
"""How long a connection is kept that nobody uses; servers keep theirs for 75 s."""
_TOGETHER_BYTES = 65_536
"""More than that of a request isn't copied to be written at once."""
_ERRORS = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
    httpcore.ConnectionNotAvailable,
)


class Pool(httpx.AsyncBaseTransport):
    """At most so many connections; a request that finds all of them taken waits for one."""

    def __init__(self, *, verify: bool, most: int) -> None:
        """``verify``: whether certificates are checked."""
        # Loading certificates is most of what making a connection costs.
        self._context = httpx.create_ssl_context(verify=verify)
        self._backend = _Backend()
        self._places = anyio.Semaphore(most, fast_acquire=True)
        self._idle: deque[tuple[httpcore.AsyncHTTPConnection, float]] = deque()
        """With when each was used last, the longest ago first."""
        self._used: set[httpcore.AsyncHTTPConnection] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx. Raises PoolTimeout where no connection has become free in time, and httpx's other errors."""
        await self._wait_for_place(request)
        url = request.url
        asked = httpcore.Request(
            request.method,
            httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        connection: httpcore.AsyncHTTPConnection | None = None
        try:
            with _as_httpx(request):
                connection = await self._connection(asked.url.origin)
                answer = await connection.handle_async_request(asked)
        except BaseException:
            self._give_back(connection)
            raise
        body = _Body(answer.stream, request, lambda: self._give_back(connection))
        return httpx.Response(answer.status, headers=answer.headers, stream=body, extensions=answer.extensions)

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

    async def _connection(self, origin: httpcore.Origin) -> httpcore.AsyncHTTPConnection:
        while self._idle and self._idle[0][1] < anyio.current_time() - IDLE_S:
            await self._idle.popleft()[0].aclose()
        while self._idle:
            connection = self._idle.pop()[0]
            self._used.add(connection)
            # A server that was started anew has closed it, too.
            if not connection.has_expired():
                return connection
            self._used.discard(connection)
            await connection.aclose()
        connection = httpcore.AsyncHTTPConnection(
            origin, ssl_context=self._context, keepalive_expiry=IDLE_S, network_backend=self._backend
        )
        self._used.add(connection)
        return connection

    def _give_back(self, connection: httpcore.AsyncHTTPConnection | None) -> None:
        # What is broken, or has not been read to its end, has closed itself.
        if connection is not None:
            self._used.discard(connection)
            if connection.is_available():
                self._idle.append((connection, anyio.current_time()))
        self._places.release()


class _Body(httpx.AsyncByteStream):
    """A body, whose connection is free when it is closed."""

    def __init__(self, body: Any, request: httpx.Request, closed: Callable[[], None]) -> None:
        self._body = body
        self._request = request
        self._closed: Callable[[], None] | None = closed

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx(self._request):
            async for part in self._body:
                yield part

    async def aclose(self) -> None:
        closed, self._closed = self._closed, None
        try:
            await self._body.aclose()
        finally:
            if closed is not None:
                closed()


@contextmanager
def _as_httpx(request: httpx.Request) -> Any:
    """httpx's errors for httpcore's, which have the same names."""
    try:
        yield
    except _ERRORS as error:
        kind = getattr(httpx, type(error).__name__, httpx.TransportError)
        raise kind(str(error), request=request) from error


class _Backend(httpcore.AsyncNetworkBackend):
    """anyio's connections, written to as `_Stream` does it."""

    def __init__(self) -> None:
        self._anyio = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._anyio.connect_tcp(host, port, timeout, local_address, socket_options))

    async def sleep(self, seconds: float) -> None:
        await self._anyio.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    """What is written leaves when an answer is waited for."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._held = b""
        self._timeout: float | None = None
        """Of writing what is held."""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._held:
            # A server may answer before it has read all of it, and close the connection then.
            with suppress(httpcore.WriteError):
                await self._write_held()
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if len(self._held) + len(buffer) <= _TOGETHER_BYTES:
            self._held += buffer
            self._timeout = timeout
            return
        if self._held:
            await self._write_held()
        await self._stream.write(buffer, timeout)

    async def _write_held(self) -> None:
        held, self._held = self._held, b""
        await self._stream.write(held, self._timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
