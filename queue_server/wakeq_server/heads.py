"""Heads that have been read before: the requests of a client mostly differ in nothing but their bodies.

To parse a head and to make a scope of it is a good part of what a publish costs. A head that is the same, byte for
byte, means the same and frames its body alike, so it is looked up instead. What was refused, ends its connection, asks
for another protocol or expects an answer before its body is not kept, nor is one whose body comes in chunks, nor one
that names what no other request has.

An idempotency key is each publish's own. Where it is one word, so that it can end neither its line nor the head, it is
cut out, and the rest is looked up.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from wakeq_server.http.wire import Call, Scope
from wakeq_server.settings import KEY_MAX

END = b"\r\n\r\n"
KEPT_MAX = 256
KEPT_MAX_BYTES = 1_024
"""Longer heads are of few."""

_NOT_KEPT = frozenset({b"expect", b"transfer-encoding", b"upgrade", b"traceparent"})
"""The last differs from request to request."""
_KEY = b"idempotency-key"
_find_key = re.compile(rb"\r\nidempotency-key: ?([!-~]{1,%d})(?=\r\n)" % KEY_MAX, re.IGNORECASE).search


class Head:
    """What a head says. See `wakeq_server.http.wire.KnownHead`."""

    __slots__ = ("_key_at", "call", "length", "scope")

    def __init__(self, scope: Scope, length: int, key_at: int | None = None) -> None:
        self.scope = scope
        """Without what differs from connection to connection. It is shared: to be copied, and its headers only read."""
        self.length = length
        """Bytes of the body."""
        self.call: Call | None = None
        self._key_at = key_at

    @property
    def has_key(self) -> bool:
        """Whether it has an idempotency key, which is another each time."""
        return self._key_at is not None

    def headers(self, key: bytes) -> list[tuple[bytes, bytes]]:
        """Those of a request with that key."""
        headers: list[tuple[bytes, bytes]] = self.scope["headers"].copy()
        assert self._key_at is not None
        headers[self._key_at] = (_KEY, key)
        return headers


class Heads:
    """The heads that all connections have read lately."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, Head] = OrderedDict()
        self._keyed: OrderedDict[bytes, Head] = OrderedDict()
        """By their bytes without the key."""
        self.get = self._known.get
        """By its bytes, up to the empty line and with it."""

    def get_keyed(self, data: bytes, size: int) -> tuple[Head, bytes] | None:
        """The head of that size, and its idempotency key, where it has one."""
        found = _find_key(data, 0, size)
        if found is None:
            return None
        head = self._keyed.get(data[: found.start(1)] + data[found.end(1) : size])
        return None if head is None else (head, found[1])

    def keep(self, data: bytes, scope: Mapping[str, Any]) -> None:
        """Remember the head of one request that is all of ``data``, was taken, and leaves its connection open."""
        size = data.find(END) + len(END)
        headers = scope["headers"]
        length = _length(headers)
        # Where another line end was the head's, what was found is in the body.
        if size > KEPT_MAX_BYTES or length is None or size + length != len(data):
            return
        scope = {**scope, "state": None, "client": None, "server": None}
        keys = [at for at, (name, _) in enumerate(headers) if name == _KEY]
        if not keys:
            _put(self._known, data[:size], Head(scope, length))
        elif len(keys) == 1:
            found = _find_key(data, 0, size)
            if found is not None and headers[keys[0]][1] == found[1]:
                _put(self._keyed, data[: found.start(1)] + data[found.end(1) : size], Head(scope, length, keys[0]))


def _put(known: OrderedDict[bytes, Head], text: bytes, head: Head) -> None:
    if len(known) >= KEPT_MAX:
        known.popitem(last=False)
    known[text] = head


def _length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """Of the body; None where the head is not to be kept."""
    length = 0
    for name, value in headers:
        if name in _NOT_KEPT:
            return None
        if name == b"content-length":
            length = int(value)
    return length
