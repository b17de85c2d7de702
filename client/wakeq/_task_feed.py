"""What a running task shows, as it comes: a stream of server-sent events that is opened again where it broke off."""

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import anyio

from wakeq._control_model import TaskEvent, TaskInfo
from wakeq._errors import ServerUnavailable, Stopping, WakeqError
from wakeq._json import loads
from wakeq._patience import Patience
from wakeq._sse import ServerSentEvent, SSEParser
from wakeq._wire import Arriving

_AHEAD = 1_000
"""Events that may be here before somebody takes them."""

Opener = Callable[[int], AbstractAsyncContextManager[Arriving]]
"""Asks for the events behind an index."""


class TaskFeed:
    """The events of one task, read in the background."""

    def __init__(self, open_stream: Opener, *, after: int, retry_s: float) -> None:
        """``after``: the index of the last event that is known already; -1: none is."""
        self.ready: deque[TaskEvent] = deque()
        """What has come and was not handed over."""
        self.end: TaskInfo | None = None
        """How the task has ended."""
        self._open = open_stream
        self._last = after
        self._patience = Patience(retry_s)
        self._pause_s = 0.0
        self._error: WakeqError | None = None
        self._over = False
        self._news = anyio.Event()
        self._room = anyio.Event()
        self._reading = anyio.CancelScope()

    async def news(self) -> bool:
        """Wait for events; False when none will come. Raises what ended the feed."""
        if len(self.ready) < _AHEAD:
            self._room.set()
        while not self.ready:
            if self._error is not None:
                raise self._error
            if self._over or self.end is not None:
                return False
            await self._news.wait()
        return True

    async def run(self) -> None:
        """Until the task has ended, or nobody asks any more."""
        try:
            with self._reading:
                await self._read()
        except WakeqError as error:
            self._error = error
        finally:
            self._over = True
            self._tell()

    def stop(self) -> None:
        """Read no more; what has come and was not handed over is dropped."""
        self.ready.clear()
        self._over = True
        self._room.set()
        self._reading.cancel()
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    async def _read(self) -> None:
        while self.end is None:
            try:
                await self._stream()
            except (ServerUnavailable, Stopping) as error:
                await self._patience.wait(error, self._pause_s)

    async def _stream(self) -> None:
        parser = SSEParser()
        try:
            async with self._open(self._last) as response:
                if not response.headers.get(b"content-type", b"").startswith(b"text/event-stream"):
                    raise WakeqError("a task's events don't come as events: is it a wakeq control plane?")
                await self._follow(parser, response)
        except ServerUnavailable:
            if self.end is None:
                raise
        if self.end is None:
            raise ServerUnavailable("the stream of a task's events has ended before the task")

    async def _follow(self, parser: SSEParser, parts: AsyncIterator[bytes]) -> None:
        async for part in parts:
            try:
                for event in parser.feed(part):
                    self._take(event)
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                raise WakeqError("a task's events are not a wakeq control plane's") from error
            self._pause_s = (parser.retry_ms or 0) / 1000
            self._patience.succeeded()
            await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        # The body has to be cancelled while it is read: what it is made of would be left open here. `stop` makes room.
        with anyio.CancelScope(shield=True):
            while len(self.ready) >= _AHEAD and not self._over:
                self._room = anyio.Event()
                await self._room.wait()

    def _take(self, event: ServerSentEvent) -> None:
        if self._over:
            return
        if event.event == "end":
            self.end = TaskInfo.from_wire(loads(event.data))
        elif event.event == "message" and int(event.id) > self._last:
            self._last = int(event.id)
            self.ready.append(TaskEvent(self._last, loads(event.data)))
        self._tell()
