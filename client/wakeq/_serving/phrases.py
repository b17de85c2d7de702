"""Answers whose status line says more than its number.

Clients that show an error by its status line only, as httpx's own errors do, hide what the body says. The reason in
that line is free text (RFC 9112, section 4), and those clients print it.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

REASON_MAX = 1_000
"""Characters of a reason; readers of status lines have limits of their own."""
_STATUS_LINE = b"HTTP/1.1 "
_CODE_END = len(_STATUS_LINE) + 4


class PhrasedProtocol(HttpToolsProtocol):
    """uvicorn's, and a request can find it, in ``scope["state"]["connection"]``."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """uvicorn's, on a transport that knows about reasons."""
        self._reasons = _Reasons(transport)
        super().connection_made(self._reasons)  # type: ignore[arg-type]

    def on_message_begin(self) -> None:
        """uvicorn's, and the request can find its connection."""
        super().on_message_begin()
        self.scope["state"] = {"connection": self}

    def say(self, reason: str) -> None:
        """What the next status line has behind its number."""
        shown = " ".join(reason.split())[:REASON_MAX]
        self._reasons.next = "".join(c if " " <= c <= "~" else "?" for c in shown).encode("ascii")

    def close(self) -> None:
        """Close the connection, whatever has been sent."""
        self.transport.close()


class _Reasons:
    """A transport that puts a reason into the next status line."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.next: bytes | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self.next is not None and data.startswith(_STATUS_LINE):
            head, _, rest = data.partition(b"\r\n")
            data = head[:_CODE_END] + self.next + b"\r\n" + rest
            self.next = None
        self._transport.write(data)

    def close(self) -> None:
        self._transport.close()
