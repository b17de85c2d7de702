"""The event loop that runs, found out once: asking anyio for it each time costs more than an event or a clock does."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, Protocol

import anyio


class Signal(Protocol):
    """What one task waits for."""

    def set(self) -> object:
        """It has happened."""

    def wait(self) -> Awaitable[object]:
        """Return when it has."""


class Loop(NamedTuple):
    """What waiting takes of an event loop."""

    now: Callable[[], float]
    """The clock that anyio's deadlines go by."""
    signal: Callable[[], Signal]
    """Makes one."""


def running_loop() -> Loop:
    """The one that runs this task."""
    if not on_asyncio():
        return Loop(anyio.current_time, anyio.Event)
    loop = asyncio.get_running_loop()
    return Loop(loop.time, partial(_Future, loop))


def on_asyncio() -> bool:
    """Whether this task is asyncio's. Its loop may run and have another as its guest."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


class _Future:
    """A signal of asyncio's."""

    __slots__ = ("_future",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._future: asyncio.Future[None] = loop.create_future()

    def set(self) -> None:
        """See `Signal`."""
        # Whoever waited may have been cancelled.
        if not self._future.done():
            self._future.set_result(None)

    def wait(self) -> Awaitable[None]:
        """See `Signal`."""
        return self._future
