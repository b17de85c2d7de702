"""What a program iterates over to see what a task shows."""

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from wakeq._control_model import TaskEvent, TaskInfo
from wakeq._portal import OnPortal
from wakeq._task_feed import TaskFeed


class TaskEvents:
    """An async iterator of a task's events, in order and each once, that ends with the task.

    Also an async context manager, which closes the stream. Without it that happens when the loop is left and nothing
    else refers to the iterator, or when the client is closed.
    """

    def __init__(self, feed: TaskFeed, start: Callable[[TaskFeed], None]) -> None:
        """Made by `AsyncControlPlane.events`."""
        self._feed = feed
        self._start: Callable[[TaskFeed], None] | None = start
        self._thread = 0

    @property
    def end(self) -> TaskInfo | None:
        """How the task has ended, once the iteration has; None: not yet."""
        return None if self._feed.ready else self._feed.end

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TaskEvent:
        """The next event; lost connections are waited out. Raises SessionNotFound, TaskNotFound, ServerUnavailable."""
        if not await self._more():
            raise StopAsyncIteration
        return self._feed.ready.popleft()

    async def _take(self) -> list[TaskEvent]:
        """All that have come, as soon as there is one; none is the end."""
        await self._more()
        taken = list(self._feed.ready)
        self._feed.ready.clear()
        return taken

    async def _more(self) -> bool:
        if self._start is not None:
            start, self._start = self._start, None
            self._thread = threading.get_ident()
            start(self._feed)
        return await self._feed.news()

    async def aclose(self) -> None:
        """Close the stream: the iteration ends."""
        self._start = None
        self._feed.stop()

    def __del__(self) -> None:
        # From another thread the loop can't be told; then the client's end does this.
        if self._thread == threading.get_ident():
            self._feed.stop()


class SyncTaskEvents:
    """`TaskEvents` without an event loop."""

    def __init__(self, client: OnPortal, events: TaskEvents) -> None:
        """Made by `ControlPlane.events`."""
        self._client = client
        self._events = events
        # Going to the loop and back costs more than an event, so it is done for several.
        self._ready: deque[TaskEvent] = deque()

    @property
    def end(self) -> TaskInfo | None:
        """See `TaskEvents.end`."""
        return None if self._ready else self._events.end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TaskEvent:
        """The next event; lost connections are waited out. Raises SessionNotFound, TaskNotFound, ServerUnavailable."""
        if not self._ready:
            self._ready.extend(self._client._call(self._events._take))
        if not self._ready:
            raise StopIteration
        return self._ready.popleft()

    def close(self) -> None:
        """See `TaskEvents.aclose`."""
        self._ready.clear()
        self._client._call(self._events.aclose)

    def __del__(self) -> None:
        self._client._soon(self._events.aclose)
