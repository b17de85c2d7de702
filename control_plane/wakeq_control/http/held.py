"""Answers that are waited for.

Clients of llama_deploy up to 0.5 give up after 5 s without a byte. So an answer that takes longer is begun, and a space
is sent every 3 s, which JSON allows in front of a value, and so do those who read lines of JSON. wakeq's own wait
longer, and theirs go at moments that all share, which wakes an idle server once. Once an answer is begun its status
stands: what goes wrong after that can only end it.
"""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import anyio

from wakeq._serving.moments import Beats
from wakeq_control.errors import ControlError, Stopping
from wakeq_control.http.wire import Gone, Headers, Request

_T = TypeVar("_T")
BEAT_S = 3.0
"""Seconds between the spaces."""
OWN_BEAT_S = 15.0
"""About as many between the signs of life that wakeq's own clients get."""
LONGEST_BEAT_S = OWN_BEAT_S * 2
"""More than there are between any two."""


class Lot:
    """The requests that wait: told when the server stops."""

    def __init__(self) -> None:
        self.beats = Beats(OWN_BEAT_S)
        """When wakeq's own clients get a sign of life."""
        self.stopping = False
        self._waiting: set[anyio.CancelScope] = set()

    def stop(self) -> None:
        """End all waits, and let none begin."""
        self.stopping = True
        for scope in list(self._waiting):
            scope.cancel()

    async def attend(self, request: Request, work: Callable[[], Awaitable[_T]]) -> _T:
        """Do work as long as the client is there. Raises Gone, Stopping, and what the work raises."""
        if self.stopping:
            raise Stopping
        scope = anyio.CancelScope()
        if not request.when_gone(scope.cancel):
            return await self._attend_watched(request, work)
        self._waiting.add(scope)
        try:
            with scope:
                return await work()
        finally:
            request.when_gone(None)
            self._waiting.discard(scope)
        raise self._why_cancelled()

    async def _attend_watched(self, request: Request, work: Callable[[], Awaitable[_T]]) -> _T:
        """The same by a task that waits for the client to hang up, where the server tells nobody else."""
        ended = _Ended[_T]()
        async with anyio.create_task_group() as tasks:
            self._waiting.add(tasks.cancel_scope)
            tasks.start_soon(_watch, request, tasks.cancel_scope)
            try:
                await ended.by(work)
            finally:
                self._waiting.discard(tasks.cancel_scope)
            tasks.cancel_scope.cancel()
        return ended.result(self._why_cancelled())

    def _why_cancelled(self) -> type[Exception]:
        return Stopping if self.stopping else Gone


class _Ended(Generic[_T]):
    """How some work has ended; a task group would put its errors into groups."""

    def __init__(self) -> None:
        self._outcomes: list[_T] = []
        self._error: Exception | None = None

    async def by(self, work: Callable[[], Awaitable[_T]]) -> None:
        try:
            self._outcomes.append(await work())
        except (ControlError, Gone) as error:
            self._error = error

    def result(self, cancelled: type[Exception]) -> _T:
        if self._error is not None:
            raise self._error
        if not self._outcomes:
            raise cancelled
        return self._outcomes[0]


async def _watch(request: Request, scope: anyio.CancelScope) -> None:
    await request.hung_up()
    scope.cancel()


class Held:
    """An answer that is begun when it is known or takes long."""

    def __init__(self, request: Request, headers: Headers, *, beats: Beats | None = None, beat: bytes = b" ") -> None:
        """``beats``: when the signs of life are due, each of which is ``beat``; None: after each `BEAT_S`."""
        self._request = request
        self._headers = headers
        self._beats = beats
        self._beat = beat
        self.begun = False
        self.blank = False
        """Whether the last that was sent is a sign of life."""

    async def wait(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """What work returns, however long it takes. It is cancelled and begun again for each sign of life."""
        while True:
            with anyio.CancelScope(deadline=self._next_beat(anyio.current_time())):
                return await work()
            await self.write(self._beat)
            self.blank = True

    def _next_beat(self, now: float) -> float:
        return now + BEAT_S if self._beats is None else self._beats.next(now)

    async def write(self, part: bytes) -> None:
        """Send a part, the head before the first."""
        await self.begin()
        self.blank = False
        await self._request.send({"type": "http.response.body", "body": part, "more_body": True})

    async def begin(self) -> None:
        """Send the head, unless that is done."""
        if not self.begun:
            self.begun = True
            await self._request.send({"type": "http.response.start", "status": 200, "headers": self._headers})

    async def end(self, part: bytes = b"") -> None:
        """Finish it."""
        await self.begin()
        await self._request.send({"type": "http.response.body", "body": part})
