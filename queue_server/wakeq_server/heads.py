"""Heads that have been read before: the requests of a client mostly differ in nothing but their bodies.

To parse a head and to make a scope of it is a good part of what a publish costs. A head that is the same, byte for
byte, means the same and frames its body alike, so it is looked up instead. What was refused, ends its connection, asks
for another protocol or expects an answer before its body is not kept, nor is one whose body comes in chunks, nor one
that names what no other request has.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from wakeq_server.http.wire import Call, Scope

END = b"\r\n\r\n"
KEPT_MAX = 256
KEPT_MAX_BYTES = 1_024
"""Longer heads are of few."""

_NOT_KEPT = frozenset({b"expect", b"transfer-encoding", b"upgrade", b"idempotency-key", b"traceparent"})
"""The last two differ from request to request."""


class Head:
    """What a head says. See `wakeq_server.http.wire.KnownHead`."""

    __slots__ = ("call", "length", "scope")

    def __init__(self, scope: Scope, length: int) -> None:
        self.scope = scope
        """Without what differs from connection to connection. It is shared: to be copied, and its headers only read."""
        self.length = length
        """Bytes of the body."""
        self.call: Call | None = None


class Heads:
    """The heads that all connections have read lately."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, Head] = OrderedDict()
        self.get = self._known.get
        """By its bytes, up to the empty line and with it."""

    def keep(self, data: bytes, scope: Mapping[str, Any]) -> None:
        """Remember the head of one request that is all of ``data``, was taken, and leaves its connection open."""
        size = data.find(END) + len(END)
        length = _length(scope["headers"])
        # Where another line end was the head's, what was found is in the body.
        if size > KEPT_MAX_BYTES or length is None or size + length != len(data):
            return
        if len(self._known) >= KEPT_MAX:
            self._known.popitem(last=False)
        own = {"state": None, "client": None, "server": None}
        self._known[data[:size]] = Head({**scope, **own}, length)


def _length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """Of the body; None where the head is not to be kept."""
    length = 0
    for name, value in headers:
        if name in _NOT_KEPT:
            return None
        if name == b"content-length":
            length = int(value)
    return length
