"""What tells a server to stop: a signal, or, where servers share a process, whoever runs them."""

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Self

import anyio

Stops = Callable[[], AbstractContextManager[AsyncIterator[object]]]
"""Opens what comes once to say stop, and once more to say at once."""


def signals() -> AbstractContextManager[AsyncIterator[object]]:
    """SIGTERM and SIGINT. A process has one receiver of them at a time."""
    return anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT)


class Told:
    """A server's `Stops` where a program says so; what was said before it listens counts."""

    def __init__(self) -> None:
        self._left = 0
        self._said = anyio.Event()

    def tell(self) -> None:
        """Say it, once more."""
        self._left += 1
        self._said.set()

    def __call__(self) -> AbstractContextManager[AsyncIterator[object]]:
        return nullcontext(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> None:
        while not self._left:
            self._said = anyio.Event()
            await self._said.wait()
        self._left -= 1
