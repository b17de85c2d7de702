"""Connections on which no request is: each may be kept so long, and one timer runs for all of them."""

import asyncio
from typing import Protocol


class Closable(Protocol):
    """A connection."""

    def close_idle(self) -> None:
        """Close it, if it isn't being closed."""


class Idle:
    """Closes connections that have been idle for too long, in the order in which they became so."""

    def __init__(self, loop: asyncio.AbstractEventLoop, kept_s: float) -> None:
        self._loop = loop
        self._kept_s = kept_s
        self._since: dict[Closable, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def enter(self, connection: Closable) -> None:
        """It has become idle."""
        self._since.pop(connection, None)
        self._since[connection] = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._kept_s, self._look)

    def leave(self, connection: Closable) -> None:
        """A request has begun to come, or the connection is lost."""
        self._since.pop(connection, None)

    def _look(self) -> None:
        """The one that was the oldest when the timer was set has had its time, if it is still there."""
        self._timer = None
        now = self._loop.time()
        while self._since:
            connection, since = next(iter(self._since.items()))
            if since + self._kept_s > now:
                self._timer = self._loop.call_at(since + self._kept_s, self._look)
                return
            del self._since[connection]
            connection.close_idle()
