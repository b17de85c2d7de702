"""What comes to a consumer: a stream of server-sent events that is opened again and again, or long polls.

A server sends the head of a stream and a `retry:` at once. Where that does not arrive, something between holds events
back (a proxy that buffers), and waiting longer would not help: then messages are claimed, which every proxy lets
through, since each answer ends.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import anyio

from wakeq._backoff import Backoff
from wakeq._claims import Claims
from wakeq._connection import SILENCE_S
from wakeq._delivery import Delivery
from wakeq._errors import Draining, ServerUnavailable, StorageFailed, TooManyParked, WakeqError
from wakeq._json import loads
from wakeq._keeper import Keeper
from wakeq._sse import SSEParser

FIRST_BYTE_S = 5.0
"""A stream that has shown nothing by then is held back by something."""
POLL_WAIT_S = 50.0
CLOSE_S = 5.0
"""How long telling the server what has ended may take in the end."""
_TRY_AGAIN = (ServerUnavailable, Draining, TooManyParked, StorageFailed)


class _HeldBack(Exception):
    """Events don't get through."""


class Feed:
    """Deliveries of one consumer, taken and kept in the background."""

    def __init__(
        self,
        claims: Claims,
        keeper: Keeper,
        *,
        topic: str,
        group: str | None,
        prefetch: int,
        lease_s: float,
        grace_s: float | None,
        jitter: Callable[[], float],
    ) -> None:
        self.ready: deque[Delivery] = deque()
        """What has come and was not handed over."""
        self.streams = True
        self.keeper = keeper
        self._claims = claims
        self._topic = topic
        self._group = group
        self._prefetch = prefetch
        self._lease_s = lease_s
        self._grace_s = grace_s
        self._backoff = Backoff(jitter)
        self._pause_s = 0.0
        self._draining = False
        self._error: WakeqError | None = None
        self._stopped = False
        self._closing = False
        self._unwanted: list[str] = []
        """Leases of what has come and will not be handed over."""
        self._disconnected = False
        self._news: anyio.Event | None = None
        """Whoever waits for something to happen."""
        self._receiving = anyio.CancelScope()
        self._whole = anyio.CancelScope(shield=True)
        self._started = False
        self._ended = anyio.Event()

    async def news(self) -> bool:
        """Wait for deliveries; False when none will come. Raises what ended the feed."""
        while not self.ready:
            if self._stopped:
                return False
            if self._error is not None:
                raise self._error
            self.keeper.flush()
            if self._news is None:
                self._news = anyio.Event()
            await self._news.wait()
        return True

    async def run(self) -> None:
        """Until `aclose`, whatever is cancelled around it: those who hold deliveries settle them in that case."""
        self._started = True
        try:
            with self._whole:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._receive_until_stopped)
                    await self.keeper.run()
        finally:
            self._ended.set()

    def stop(self) -> None:
        """Take no more, and give back what was not handed over; what was is kept on being extended."""
        self._stopped = True
        self._receiving.cancel()
        self._unwanted += [delivery.lease_id for delivery in self.ready]
        self.ready.clear()
        if self._disconnected:
            self._give_back()
        self._tell()

    async def aclose(self) -> None:
        """Stop, tell the server what has ended, and end."""
        self._close()
        if self._started:
            with anyio.move_on_after(CLOSE_S, shield=True):
                await self._ended.wait()
            self._whole.cancel()

    def abandon(self) -> None:
        """Nobody will ask any more."""
        self._close()

    def _close(self) -> None:
        self._closing = True
        self.stop()

    def _give_back(self) -> None:
        """When the server can see that nobody receives: else it might send us the same messages again."""
        self.keeper.release_soon(self._unwanted)
        self._unwanted = []
        if self._closing:
            self.keeper.end()

    def _tell(self) -> None:
        news, self._news = self._news, None
        if news is not None:
            news.set()

    async def _receive_until_stopped(self) -> None:
        with self._receiving:
            await self._receive()
        self._disconnected = True
        self._give_back()
        if not self._closing:
            await self._renew()

    async def _receive(self) -> None:
        while True:
            await self.keeper.room(max(1, self._prefetch))
            try:
                await (self._stream() if self.streams else self._poll())
            except _HeldBack:
                self.streams = False
            except _TRY_AGAIN as error:
                await self._wait_to_try(error)
            except WakeqError as error:
                self._error = error
                self._tell()
                return

    async def _wait_to_try(self, error: WakeqError) -> None:
        # What stood in the way of events may be gone with the connection.
        self.streams = True
        if not isinstance(error, Draining):
            await self._renew()
        await anyio.sleep(self._backoff.next_delay_s(error.retry_after_s or self._pause_s))

    async def _renew(self) -> None:
        """Before connecting again: the server leaves what a broken stream had out for a few seconds only."""
        try:
            await self.keeper.renew()
        except WakeqError:
            # The stream, or the poll, is about to find out the same.
            return

    async def _poll(self) -> None:
        wires = await self._claims.claim(
            self._topic,
            max=max(1, self._prefetch - self.keeper.held),
            wait_s=POLL_WAIT_S,
            lease_s=self._lease_s,
            group=self._group,
        )
        self._backoff.succeeded()
        self._take([Delivery(self._topic, wire, self.keeper) for wire in wires])

    async def _stream(self) -> None:
        self._draining = False
        parser = SSEParser()
        async with AsyncExitStack() as stack:
            with anyio.move_on_after(FIRST_BYTE_S) as first:
                chunks = await self._open(stack, parser)
            if first.cancelled_caught:
                raise _HeldBack
            async for chunk in chunks:
                self._take_in(parser, chunk)
                self._backoff.succeeded()
        if self._draining:
            raise Draining("the server is draining")
        raise ServerUnavailable(f"the stream of topic {self._topic} has ended")

    async def _open(self, stack: AsyncExitStack, parser: SSEParser) -> AsyncIterator[bytes]:
        response = await stack.enter_async_context(
            self._claims.stream(
                self._topic,
                lease=self._lease_s,
                prefetch=self._prefetch,
                group=self._group,
                grace=self._grace_s,
                silence_s=SILENCE_S,
            )
        )
        if not response.headers.get(b"content-type", b"").startswith(b"text/event-stream"):
            raise _HeldBack
        async for chunk in response:
            self._take_in(parser, chunk)
            break
        return response

    def _take_in(self, parser: SSEParser, chunk: bytes) -> None:
        deliveries = []
        try:
            for kind, data, _ in parser.feed(chunk):
                if kind == "message":
                    deliveries.append(Delivery(self._topic, loads(data), self.keeper))
                elif kind == "drain":
                    self._draining = True
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise WakeqError(f"the stream of topic {self._topic} is not a wakeq server's") from error
        if parser.retry_ms is not None:
            self._pause_s = parser.retry_ms / 1000
        self._take(deliveries)

    def _take(self, deliveries: list[Delivery]) -> None:
        if not deliveries:
            return
        self.keeper.take(deliveries)
        if self._stopped:
            # What was being read already when that was asked for.
            self._unwanted += [delivery.lease_id for delivery in deliveries]
            return
        self.ready.extend(deliveries)
        self._tell()
