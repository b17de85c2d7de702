"""How long a request may take to come."""

import asyncio
from typing import Any

from wakeq_server.settings import BODY_MIN_BYTES_PER_S


class Arrival:
    """A request that comes in parts: whether it comes fast enough.

    A head has its time from its first byte. A body may make no progress for its time, and in each such span must come
    at `BODY_MIN_BYTES_PER_S` at least: else a byte now and then would hold everything that came before.
    """

    __slots__ = ("_began", "_bytes", "_last", "_timeout_s", "has_head", "is_for_nobody", "scope", "size", "timer")

    def __init__(self, scope: Any, timeout_s: float, now: float, *, has_head: bool, size: int = 0) -> None:
        self.scope = scope
        """uvicorn makes one a request, which is how requests are told apart here."""
        self.has_head = has_head
        self.is_for_nobody = False
        self.size = size
        """Bytes that have come of it; of a body, since it was first waited for."""
        self.timer: asyncio.TimerHandle
        self._timeout_s = timeout_s
        self.begin_anew(now)

    def begin_anew(self, now: float) -> None:
        """Count from now on."""
        self._began = self._last = now
        self._bytes = 0

    def note(self, size: int, now: float) -> None:
        """Some more has come."""
        self._bytes += size
        self.size += size
        self._last = now

    @property
    def due(self) -> float:
        """When to look at it."""
        return self._timeout_s + (min(self._began, self._last) if self.has_head else self._began)

    def over(self, now: float) -> bool:
        """Whether it has had its time. To be asked when it is due."""
        if not self.has_head or now - self._last >= self._timeout_s:
            return True
        if now - self._began < self._timeout_s:
            return False
        if self._bytes < BODY_MIN_BYTES_PER_S * self._timeout_s:
            return True
        self._began, self._bytes = now, 0
        return False
