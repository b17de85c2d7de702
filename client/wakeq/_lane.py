"""Group commit on the client's side: one request at a time, and whoever comes meanwhile shares the next one.

There is no task in the background. The first caller that finds no request on its way *leads*: it sends what waits,
itself included, tries again where that may help, and hands the lead on when its own part is done. A caller that is
cancelled cancels only its waiting: where it leads, what it carried for others goes back in line, and the next one sends
that again. So everything that goes through a lane must be such that asking twice does it once.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import anyio
import anyio.lowlevel

from wakeq._backoff import Backoff
from wakeq._errors import ServerUnavailable, WakeqError, same_error
from wakeq._loops import Loop, Signal, running_loop

_TOO_LARGE = 413
_BUSY = 503
_SOMEBODYS = (400, 415, 422, 431)


class Part:
    """What one caller puts into a request."""

    __slots__ = ("alone", "error", "group", "last_try_at", "leads", "over", "patience_s", "woken")

    def __init__(self) -> None:
        self.alone = False
        """It goes into a request of its own."""
        self.group: object | None = None
        """It shares a request only with those of the same."""
        self.patience_s = 0.0
        """How long it is tried again."""
        self.last_try_at = 0.0
        """After that nothing is, once it is submitted."""
        self.over = False
        self.error: WakeqError | None = None
        self.leads = False
        self.woken: Signal | None = None
        """It is over, or leads: who follows waits for that."""

    @property
    def size(self) -> int:
        """Bytes that it adds to a request, or a few more."""
        raise NotImplementedError

    def sent(self, at: float) -> None:
        """A request with it was made then, and may have been read."""

    def end(self, error: WakeqError | None = None) -> None:
        """It has its outcome."""
        self.over, self.error = True, error
        self.wake()

    def wake(self) -> None:
        """End the wait."""
        if self.woken is not None:
            self.woken.set()


_Part = TypeVar("_Part", bound=Part)


class Lane(ABC, Generic[_Part]):
    """Requests of one kind to one topic."""

    def __init__(self, *, jitter: Callable[[], float], most: int, max_bytes: int) -> None:
        """At most ``most`` parts and ``max_bytes`` go into a request; a part that is larger goes alone."""
        self._backoff = Backoff(jitter)
        self._most = most
        self._max_bytes = max_bytes
        self._waiting: deque[_Part] = deque()
        self._led = False
        self._crowded = False
        """Several shared the last request, so several may come at a time again."""
        self._not_before: float | None = None
        self._loop: Loop | None = None
        """That of those who go through it now."""

    @abstractmethod
    async def send(self, parts: list[_Part]) -> None:
        """Make a request and end each of its parts. Raises WakeqError where it ended none, of its own kind for all."""

    async def submit(self, part: _Part) -> None:
        """Send it, with others where there are any; returns when it is over. Raises its error."""
        loop = self._loop
        if loop is None:
            loop = self._loop = running_loop()
        now = loop.now()
        part.last_try_at = now + part.patience_s
        self._waiting.append(part)
        if self._led:
            await self._follow(part, loop)
        else:
            self._led = True
            await self._lead(part, now)
        if part.error is not None:
            raise part.error

    async def _follow(self, part: _Part, loop: Loop) -> None:
        woken = part.woken = loop.signal()
        try:
            await woken.wait()
        except BaseException:
            self._leave(part)
            if part.leads:
                self._hand_on()
            raise
        if not part.over:
            await self._lead(part, loop.now())

    async def _lead(self, own: _Part, now: float) -> None:
        try:
            if self._crowded:
                # Who was answered together asks again in the next turn, and would wait behind a request of one. Twice,
                # since a turn of trio's has no order.
                await anyio.lowlevel.checkpoint()
                await anyio.lowlevel.checkpoint()
            while not own.over:
                if self._not_before is not None:
                    await anyio.sleep_until(self._not_before)
                    now, self._not_before = anyio.current_time(), None
                if not own.over:
                    await self._send(now)
        finally:
            self._leave(own)
            self._hand_on()

    async def _send(self, started: float) -> None:
        """``started`` may be some time ago, and isn't to come."""
        parts = self._take()
        self._crowded = len(parts) > 1
        try:
            await self.send(parts)
            self._backoff.succeeded()
        except WakeqError as error:
            self._failed(parts, error, started)
        except BaseException:
            # Cancelled, perhaps between the request and its answer.
            for part in parts:
                part.sent(started)
            raise
        finally:
            # What has no outcome is first in line for the next request.
            self._waiting.extendleft(part for part in reversed(parts) if not part.over)

    def _take(self) -> list[_Part]:
        waiting = self._waiting
        parts = [waiting.popleft()]
        if not waiting or parts[0].alone:
            return parts
        size, group = parts[0].size, parts[0].group
        while waiting and len(parts) < self._most and not waiting[0].alone and waiting[0].group is group:
            size += waiting[0].size
            if size > self._max_bytes:
                break
            parts.append(waiting.popleft())
        return parts

    def _failed(self, parts: list[_Part], error: WakeqError, started: float) -> None:
        left = [part for part in parts if not part.over]
        if error.status == _TOO_LARGE and len(left) > 1:
            # Something in between takes less than the server.
            self._max_bytes = sum(part.size for part in left) // 2
        elif error.status in _SOMEBODYS and len(left) > 1:
            # One of them is wrong, and the others must not suffer for it.
            for part in left:
                part.alone = True
        elif isinstance(error, ServerUnavailable) or error.status == _BUSY:
            if getattr(error, "may_have_happened", False):
                for part in left:
                    part.sent(started)
            self._try_again(left, error)
        else:
            self._end_all(left, error)

    def _try_again(self, left: list[_Part], error: WakeqError) -> None:
        at = anyio.current_time() + self._backoff.next_delay_s(error.retry_after_s or 0.0)
        self._not_before = at
        self._end_all([part for part in (*left, *self._waiting) if part.last_try_at < at], error)
        self._waiting = deque(part for part in self._waiting if not part.over)

    def _end_all(self, parts: list[_Part], error: WakeqError) -> None:
        for part in parts:
            part.end(same_error(error))

    def _leave(self, part: _Part) -> None:
        part.over = True
        if part in self._waiting:
            self._waiting.remove(part)

    def _hand_on(self) -> None:
        """Somebody else leads, if there is anybody."""
        self._led = bool(self._waiting)
        if self._led:
            self._waiting[0].leads = True
            self._waiting[0].wake()
        else:
            # Whoever comes next has seen no failure, and isn't to wait for one; and may be on another event loop.
            self._not_before = self._loop = None
            self._backoff.succeeded()
