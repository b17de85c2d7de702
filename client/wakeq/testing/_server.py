"""The server, as a transport of httpx.

httpx's own transport for ASGI applications returns when the application has finished, and so can neither park nor
stream.
"""

import logging
from collections.abc import AsyncIterator, Mapping, MutableMapping
from contextlib import AsyncExitStack
from importlib import import_module
from typing import Any, Self

import anyio
import anyio.to_thread
import httpx
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from wakeq._async_client import AsyncClient
from wakeq._version import __version__

_URL = "http://127.0.0.1"
_log = logging.getLogger("wakeq")

Event = MutableMapping[str, Any]


class MemoryServer(httpx.AsyncBaseTransport):
    """A server on memory; an async context manager, and the transport that reaches it."""

    def __init__(self, **settings: Any) -> None:
        """``settings`` are those of `wakeq serve` by their names in its configuration file."""
        self._settings = {"durability": "memory"} | settings
        self._stack = AsyncExitStack()
        self._tasks: TaskGroup | None = None
        self._app: Any = None

    async def __aenter__(self) -> Self:
        # Importing a server reads many files, which a loop isn't to wait for.
        opened = await anyio.to_thread.run_sync(_opened, self._settings)
        async with AsyncExitStack() as stack:
            _, self._app = await stack.enter_async_context(opened)
            self._tasks = await stack.enter_async_context(anyio.create_task_group())
            self._stack = stack.pop_all()
        return self

    async def aclose(self) -> None:
        """End it; what is in it is gone."""
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()
        await self._stack.aclose()

    def client(self, **options: Any) -> AsyncClient:
        """A client of this server, with the options of `AsyncClient`; any number of them share it."""
        return AsyncClient(_URL, transport=_Shared(self), **options)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """An answer, once it has begun. Raises httpx.TransportError."""
        if self._tasks is None:
            raise httpx.ConnectError("the server is not running: use it as an async context manager")
        exchange = _Exchange(request)
        self._tasks.start_soon(exchange.run, self._app)
        return await exchange.response()


def _opened(settings: Mapping[str, Any]) -> Any:
    # By name: who imports the client imports no server.
    return import_module("wakeq_server.app").open_app(
        import_module("wakeq_server.settings").Settings(**settings), __version__
    )


class _Shared(httpx.AsyncBaseTransport):
    """A server that goes on when a client of it is closed."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._server.handle_async_request(request)


class _Exchange(httpx.AsyncByteStream):
    """One request, and its answer as a stream."""

    def __init__(self, request: httpx.Request) -> None:
        self._request = request
        self._read_s: float | None = request.extensions.get("timeout", {}).get("read")
        # No room: an application knows what was written when it is read.
        channel = anyio.create_memory_object_stream[Event](0)
        self._send: MemoryObjectSendStream[Event] = channel[0]
        self._events: MemoryObjectReceiveStream[Event] = channel[1]
        self._asked = False
        self._gone = anyio.Event()

    async def run(self, app: Any) -> None:
        """Until the application has answered, or failed."""
        with self._send:
            try:
                await app(self._scope(), self._receive, self._answer)
            except Exception:
                _log.exception("the server failed at %s %s", self._request.method, self._request.url)

    def _scope(self) -> Event:
        url = self._request.url
        path, _, query = url.raw_path.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": self._request.method,
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": path,
            "query_string": query,
            "headers": [(name.lower(), value) for name, value in self._request.headers.raw],
            "client": ("127.0.0.1", 1),
            "server": (url.host, url.port),
        }

    async def _receive(self) -> Event:
        if self._asked:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        self._asked = True
        return {"type": "http.request", "body": await self._request.aread(), "more_body": False}

    async def _answer(self, event: Event) -> None:
        try:
            await self._send.send(event)
        except anyio.BrokenResourceError:
            # Whoever asked has gone; the application finds that out from its next event.
            return

    async def response(self) -> httpx.Response:
        """The answer, of which nothing but the head has come."""
        try:
            start = await self._next()
        except BaseException:
            await self.aclose()
            raise
        return httpx.Response(start["status"], headers=start.get("headers", []), stream=self)

    async def _next(self) -> Event:
        with anyio.move_on_after(self._read_s):
            try:
                return await self._events.receive()
            except anyio.EndOfStream:
                raise httpx.ReadError("the server ended the answer early") from None
        raise httpx.ReadTimeout("the server was silent for too long")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            event = await self._next()
            more = event.get("more_body", False)
            if event.get("body"):
                yield event["body"]

    async def aclose(self) -> None:
        """Hang up."""
        self._gone.set()
        self._events.close()
