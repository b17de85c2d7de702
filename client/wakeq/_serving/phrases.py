"""Answers whose status line says more than its number, and whose head and body are one write.

Clients that show an error by its status line only, as httpx's own errors do, hide what the body says. The reason in
that line is free text (RFC 9112, section 4), and those clients print it.

A head that is written alone would wake a client that can do nothing with it.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from wakeq._serving.sending import Sending, Turn

REASON_MAX = 1_000
"""Characters of a reason; readers of status lines have limits of their own."""
_STATUS_LINE = b"HTTP/1.1 "
_CODE_END = len(_STATUS_LINE) + 4


def phrased() -> Any:
    """Makes the connections of a server, for the event loop that runs."""
    return partial(PhrasedProtocol, turn=Turn(asyncio.get_running_loop().call_soon))


class PhrasedProtocol(HttpToolsProtocol):
    """uvicorn's, and a request can find it, in ``scope["state"]["connection"]``."""

    def __init__(self, *arguments: Any, turn: Turn, **named: Any) -> None:
        """``turn`` is that of all connections of the loop."""
        super().__init__(*arguments, **named)
        self._turn = turn
        self._is_gone = False
        self._when_gone: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """uvicorn's, on a transport that knows about reasons."""
        self._answers = _Answers(transport, self._turn, self.loop)
        super().connection_made(self._answers)  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        """uvicorn's, and who asked is told."""
        super().connection_lost(exc)
        self._is_gone = True
        if self._when_gone is not None:
            self._when_gone()

    def on_message_begin(self) -> None:
        """uvicorn's, and the request can find its connection."""
        super().on_message_begin()
        self.scope["state"] = {"connection": self}

    def say(self, reason: str) -> None:
        """What the next status line has behind its number."""
        shown = " ".join(reason.split())[:REASON_MAX]
        self._answers.reason = "".join(c if " " <= c <= "~" else "?" for c in shown).encode("ascii")

    def close(self) -> None:
        """Close the connection, whatever has been sent."""
        self.transport.close()

    def when_gone(self, call: Callable[[], None] | None) -> None:
        """Have this called when the client hangs up, or now where it has; None: nothing any more."""
        self._when_gone = call
        if call is None:
            return
        # uvicorn stops reading where a body is large, and whoever reads nothing sees no end.
        self.flow.resume_reading()
        if self._is_gone:
            call()


class _Answers(Sending):
    """Puts a reason into the next status line, and keeps a head for its body, until the turn's end at most."""

    __slots__ = ("_head", "_loop", "reason")

    def __init__(self, transport: asyncio.Transport, turn: Turn, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(transport, turn)
        self._loop = loop
        self._head = b""
        self.reason: bytes | None = None

    def write(self, data: bytes) -> None:
        """See `Sending`."""
        head, self._head = self._head, b""
        if head:
            super().write(head + data)
        elif data.startswith(_STATUS_LINE):
            # A body that begins so leaves a little later.
            self._head = self._with_reason(data)
            self._loop.call_soon(self._write_head)
        else:
            super().write(data)

    def _with_reason(self, data: bytes) -> bytes:
        reason, self.reason = self.reason, None
        if reason is None:
            return data
        head, _, rest = data.partition(b"\r\n")
        return head[:_CODE_END] + reason + b"\r\n" + rest

    def _write_head(self) -> None:
        head, self._head = self._head, b""
        if head and not self.is_closing():
            super().write(head)

    def get_write_buffer_size(self) -> int:
        """See `Sending`."""
        self._write_head()
        return super().get_write_buffer_size()

    def write_eof(self) -> None:
        """See `Sending`."""
        self._write_head()
        super().write_eof()

    def close(self) -> None:
        """See `Sending`."""
        self._write_head()
        super().close()

    def abort(self) -> None:
        """See `Sending`."""
        self._write_head()
        super().abort()
