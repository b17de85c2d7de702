"""Idempotency keys: a publish that comes again is answered as the first time, and enqueues nothing.

A key is kept as a 16-byte hash, with one of everything else in its publish: the same key with another message is the
client's mistake, and is told.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wakeq_server.core.model import NOTHING_SAID, NewMessage

if TYPE_CHECKING:
    from wakeq_server.core.transactions import Publish

KEYS_MAX = 200_000


@dataclass(frozen=True, slots=True)
class Seen:
    """A key that was used."""

    fingerprint: bytes
    first_seq: int
    count: int
    expires: float
    publish: "Publish | None"
    """The publish that used it, while that isn't durable yet."""

    def by(self, publish: "Publish") -> "Seen":
        """The same, until the publish is durable."""
        return Seen(self.fingerprint, self.first_seq, self.count, self.expires, publish)


def digest(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def fingerprint(messages: Sequence[NewMessage]) -> bytes:
    """What is kept of the rest."""
    parts: list[bytes] = []
    for message in messages:
        # Nearly all say nothing else, and to say that takes longer than all the rest.
        rest = _NOTHING_SAID if message[1:] == NOTHING_SAID else _beside_body(message)
        parts += (rest, len(message.body).to_bytes(8, "little"), message.body)
    return hashlib.blake2b(b"".join(parts), digest_size=16).digest()


def _beside_body(message: NewMessage) -> bytes:
    # A tracer gives every try of a publish another traceparent.
    headers = sorted((name, text) for name, text in (message.headers or {}).items() if name != "traceparent")
    rest = (message.content_type, headers, message.id, message.key, message.delay_s, message.ttl_s)
    return repr(rest).encode("utf-8", "backslashreplace")


_NOTHING_SAID = _beside_body(NewMessage(b""))


class Dedup:
    """The keys of one topic, oldest first."""

    __slots__ = ("_seen", "shortened")

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, Seen] = OrderedDict()
        self.shortened = 0
        """How many keys were forgotten before their time, since there were too many."""

    def __len__(self) -> int:
        return len(self._seen)

    def get(self, key: bytes, now: float) -> Seen | None:
        """What is known of a key, within its window."""
        seen = self._seen.get(key)
        return seen if seen is not None and (seen.expires > now or seen.publish is not None) else None

    def put(self, key: bytes, seen: Seen) -> None:
        """Remember a key."""
        self._seen[key] = seen
        self._seen.move_to_end(key)

    def settle(self, key: bytes, seen: Seen) -> None:
        """Its publish is durable; ``seen`` is without it."""
        if key in self._seen:
            self._seen[key] = seen

    def forget(self, key: bytes) -> None:
        """Its publish has failed."""
        self._seen.pop(key, None)

    def trim(self, now: float) -> bool:
        """Forget what is over, and the oldest where there are too many. Whether anything went."""
        before = len(self._seen)
        while self._seen:
            key, oldest = next(iter(self._seen.items()))
            over = oldest.expires <= now
            if oldest.publish is not None or not (over or len(self._seen) > KEYS_MAX):
                break
            self.shortened += not over
            del self._seen[key]
        return len(self._seen) < before

    def items(self) -> Iterator[tuple[bytes, Seen]]:
        """All that is remembered."""
        return iter(self._seen.items())
