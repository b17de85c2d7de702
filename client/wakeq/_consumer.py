"""Deliveries over a stream of server-sent events, with a long poll where none gets through.

A server sends the head of a stream and a `retry:` at once. Where that does not arrive, something between holds events
back (a proxy that buffers), and waiting longer would not help: then messages are claimed, which every proxy lets
through, since each answer ends.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio
import httpx

from wakeq._backoff import Backoff
from wakeq._delivery import Delivery
from wakeq._errors import Draining, ServerUnavailable, StorageFailed, TooManyParked, raise_for_answer
from wakeq._json import loads
from wakeq._sse import SSEParser

if TYPE_CHECKING:
    from wakeq._async_client import AsyncClient

FIRST_BYTE_S = 5.0
"""A stream that has shown nothing by then is held back by something."""
SILENCE_S = 37.5
"""Two and a half heartbeats of 15 s: a stream that silent is dead."""
POLL_WAIT_S = 50.0
_TRY_AGAIN = (ServerUnavailable, Draining, TooManyParked, StorageFailed)


class _HeldBack(Exception):
    """Events don't get through."""


class Consumer:
    """An async iterator of deliveries; also an async context manager, which closes the stream."""

    def __init__(
        self,
        client: "AsyncClient",
        topic: str,
        *,
        group: str | None,
        prefetch: int,
        lease_s: float,
        jitter: Callable[[], float],
    ) -> None:
        """Made by `AsyncClient.consume`."""
        self._client = client
        self._topic = topic
        self._group = group
        self._prefetch = prefetch
        self._lease_s = lease_s
        self._backoff = Backoff(jitter)
        self._pause_s = 0.0
        self._ready: deque[Delivery] = deque()
        self._open: AsyncExitStack | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self._parser = SSEParser()
        self.streams = True
        """False once this consumer has found that only long polls get through."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery:
        """The next message; what passes by itself is waited out. Raises TopicNotFound, GroupNotFound, BadRequest."""
        while not self._ready:
            try:
                await (self._read() if self.streams else self._poll())
            except _HeldBack:
                self.streams = False
                await self.aclose()
            except _TRY_AGAIN as error:
                await self.aclose()
                await anyio.sleep(self._backoff.next_delay_s(error.retry_after_s or self._pause_s))
        return self._ready.popleft()

    async def aclose(self) -> None:
        """Close the stream. What is leased and not settled comes back to the topic within its grace."""
        stack, self._open, self._chunks = self._open, None, None
        if stack is not None:
            await stack.aclose()

    async def _poll(self) -> None:
        self._ready.extend(
            await self._client.claim(
                self._topic, max=self._prefetch, wait_s=POLL_WAIT_S, lease_s=self._lease_s, group=self._group
            )
        )
        self._backoff.succeeded()

    async def _read(self) -> None:
        chunks = self._chunks or await self._connect()
        try:
            chunk = await anext(chunks)
        except StopAsyncIteration:
            raise ServerUnavailable("the stream has ended") from None
        except httpx.TransportError as error:
            raise ServerUnavailable(f"the stream broke: {error!r}") from error
        self._take_in(chunk)

    async def _connect(self) -> AsyncIterator[bytes]:
        params = {"lease": str(self._lease_s), "prefetch": str(self._prefetch)}
        if self._group is not None:
            params["group"] = self._group
        stack = AsyncExitStack()
        try:
            with anyio.move_on_after(FIRST_BYTE_S) as first:
                chunks = await self._first_chunk(stack, params)
            if first.cancelled_caught:
                raise _HeldBack
        except httpx.TransportError as error:
            await stack.aclose()
            raise ServerUnavailable(f"the stream can't be opened: {error!r}") from error
        except BaseException:
            with anyio.CancelScope(shield=True):
                await stack.aclose()
            raise
        self._open, self._chunks = stack, chunks
        self._backoff.succeeded()
        return chunks

    async def _first_chunk(self, stack: AsyncExitStack, params: dict[str, str]) -> AsyncIterator[bytes]:
        stream: Any = self._client._stream(self._topic, params, SILENCE_S)
        response: httpx.Response = await stack.enter_async_context(stream)
        if not response.is_success:
            await response.aread()
            raise_for_answer(response)
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            raise _HeldBack
        self._parser = SSEParser()
        chunks = response.aiter_raw()
        try:
            self._take_in(await anext(chunks))
        except StopAsyncIteration:
            # Out of here it would end the consumer's own iteration.
            raise ServerUnavailable("the stream has ended before it began") from None
        return chunks

    def _take_in(self, chunk: bytes) -> None:
        for event in self._parser.feed(chunk):
            if event.event == "drain":
                raise Draining("the server is draining")
            if event.event == "message":
                wire = loads(event.data)
                self._ready.append(Delivery(self._topic, wire, self._client._holder))
        if self._parser.retry_ms is not None:
            self._pause_s = self._parser.retry_ms / 1000
