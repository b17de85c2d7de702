"""Work that goes on, whoever waits for it."""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import anyio

from wakeq_control.errors import Stopping

_T = TypeVar("_T")


class Outcome(Generic[_T]):
    """What some work comes to: any number may wait for it, and give up waiting."""

    def __init__(self) -> None:
        self._ended = anyio.Event()
        self._values: list[_T] = []
        self._error: Exception | None = None

    async def by(self, work: Callable[[], Awaitable[_T]]) -> None:
        """Do the work. What it raises is raised to who waits."""
        try:
            self._values.append(await work())
        except Exception as error:
            self._error = error
        finally:
            self._ended.set()

    async def ended(self) -> None:
        """Return when the work has come to an end, whatever that is."""
        await self._ended.wait()

    async def wait(self) -> _T:
        """What the work returned. Raises what it raised, and Stopping when it was cancelled."""
        await self._ended.wait()
        if self._error is not None:
            raise self._error
        if not self._values:
            raise Stopping
        return self._values[0]
