"""When what is written leaves for the kernel: the first of a turn of the event loop at once, the rest at its end.

To wake a client that sleeps costs the kernel more than to write to it, and one that was woken by an answer is awake for
those that follow closely. So where many are answered in one turn, each is not written when it is ready, with all the
work for the next one in between, but they are written one after another. Under 64 connections from one client a third
of the server's time goes into waking it otherwise. Whoever is answered alone doesn't wait.
"""

import asyncio
from collections.abc import Callable
from typing import Any

LARGE_BYTES = 16_384
"""What is as long as that is not kept until the turn's end."""


class Turn:
    """What is written in one turn of the event loop, to all connections."""

    def __init__(self, at_end: Callable[[Callable[[], None]], object]) -> None:
        """``at_end`` calls a function when the turn ends, as ``call_soon`` does."""
        self._at_end = at_end
        self._begun = False
        self._held: dict[asyncio.Transport, list[bytes]] = {}

    def write(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write, now or at the turn's end; what is written to one transport stays in order."""
        if not self._begun:
            self._begun = True
            self._at_end(self._end)
            transport.write(data)
        elif len(data) < LARGE_BYTES:
            self._held.setdefault(transport, []).append(data)
        else:
            self.flush()
            transport.write(data)

    def flush(self) -> None:
        """Write what is held."""
        if not self._held:
            return
        held, self._held = self._held, {}
        for transport, parts in held.items():
            transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def _end(self) -> None:
        self._begun = False
        self.flush()


class Sending:
    """A transport that writes in turn. Whatever else is asked of it comes after what was written."""

    __slots__ = ("_transport", "_turn")

    def __init__(self, transport: asyncio.Transport, turn: Turn) -> None:
        self._transport = transport
        self._turn = turn

    def write(self, data: bytes) -> None:
        """See `Turn.write`."""
        self._turn.write(self._transport, data)

    def get_write_buffer_size(self) -> int:
        """The transport's."""
        self._turn.flush()
        return self._transport.get_write_buffer_size()

    def write_eof(self) -> None:
        """The transport's."""
        self._turn.flush()
        self._transport.write_eof()

    def close(self) -> None:
        """The transport's."""
        self._turn.flush()
        self._transport.close()

    def abort(self) -> None:
        """The transport's."""
        self._turn.flush()
        self._transport.abort()

    def is_closing(self) -> bool:
        """The transport's."""
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The transport's."""
        return self._transport.get_extra_info(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The transport's."""
        self._transport.set_write_buffer_limits(high, low)

    def pause_reading(self) -> None:
        """The transport's."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """The transport's."""
        self._transport.resume_reading()
