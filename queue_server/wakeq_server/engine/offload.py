"""Blocking calls, off the event loop and one at a time. A test decides by itself when they end."""

from collections.abc import Callable
from typing import Protocol, TypeVar

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
