"""Blocking calls, off the event loop and one at a time. A test decides by itself when they end."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol, TypeVar

import anyio
import anyio.to_thread

T = TypeVar("T")


class Offload(Protocol):
    """Runs what blocks, where it blocks nobody. Once begun, it is waited for, cancelled or not."""

    async def __call__(self, call: Callable[[], T]) -> T:
        """Wait for the calls before, then for this one."""


class OneThread:
    """Everything that asks the store: in a thread, after the one before."""

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(1)

    async def __call__(self, call: Callable[[], T]) -> T:
        """See `Offload`."""
        return await anyio.to_thread.run_sync(call, limiter=self._limiter)


class _Call:
    """One call, and what has become of it."""

    __slots__ = ("call", "done", "error", "result")

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.done = anyio.Event()
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """In the thread."""
        try:
            self.result = self.call()
        except BaseException as error:
            self.error = error


class OwnThread:
    """The same in a thread that does nothing else, for who calls thousands of times a second.

    anyio's threads are looked up and limited anew for each call: 45 microseconds there and back, of which this takes 8.
    """

    def __init__(self, soon: Callable[[Callable[[], object]], object]) -> None:
        """``soon`` has the event loop make a call, and may itself be called in any thread."""
        self._soon = soon
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()

    async def __call__(self, call: Callable[[], T]) -> T:
        """See `Offload`."""
        made = _Call(call)
        self._calls.put(made)
        with anyio.CancelScope(shield=True):
            await made.done.wait()
        if made.error is not None:
            raise made.error
        result: T = made.result
        return result

    def work(self) -> None:
        """The thread: make calls until `end`."""
        while (made := self._calls.get()) is not None:
            made.run()
            self._soon(made.done.set)

    def end(self) -> None:
        """Let the thread end when it has made the calls before."""
        self._calls.put(None)


@asynccontextmanager
async def own_thread(name: str, soon: Callable[[Callable[[], object]], object]) -> AsyncIterator[OwnThread]:
    """A thread for calls, which has ended when this has; nothing may call any more by then."""
    offload = OwnThread(soon)
    thread = Thread(target=offload.work, name=name, daemon=True)
    thread.start()
    try:
        yield offload
    finally:
        offload.end()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(thread.join)
