"""Settles of one topic: those that come while a request is on its way share the next."""

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from wakeq._connection import Connection, messages_path
from wakeq._errors import raise_for_answer, read_answer
from wakeq._json import without_none
from wakeq._lane import Lane, Part
from wakeq._model import Dead, Nack, SettleResult

REQUEST_MAX_BYTES = 1024 * 1024
_LEASES_MAX = 10_000
_KINDS = ("ack", "nack", "extend", "dead", "release")


class Settling(Part):
    """Leases that one caller ends or extends, as JSON: what has no such form is that caller's error alone."""

    __slots__ = ("counts", "lines", "results")

    def __init__(
        self,
        ack: Sequence[str] = (),
        nack: Sequence[Nack] = (),
        extend: Sequence[tuple[str, float | None]] = (),
        dead: Sequence[Dead] = (),
        release: Sequence[str] = (),
    ) -> None:
        """Raises TypeError."""
        super().__init__()
        self.counts: dict[str, int] = {}
        self.lines: dict[str, bytes] = {}
        if ack:
            self._put("ack", list(ack))
        if nack:
            self._put("nack", [_line(one._asdict()) for one in nack])
        if extend:
            self._put("extend", [_line({"lease_id": lease, "lease_s": lease_s}) for lease, lease_s in extend])
        if dead:
            self._put("dead", [_line(one._asdict()) for one in dead])
        if release:
            self._put("release", list(release))
        self.results: list[SettleResult] = []
        """In the order of ack, nack, extend, dead, release."""

    def _put(self, kind: str, ends: list[Any]) -> None:
        self.counts[kind] = len(ends)
        # A list without its brackets.
        self.lines[kind] = orjson.dumps(ends)[1:-1]

    @property
    def size(self) -> int:
        """Bytes in a request."""
        return sum(len(lines) + 1 for lines in self.lines.values())


class Settler(Lane[Settling]):
    """The lane of a topic's settles."""

    def __init__(self, connection: Connection, topic: str, *, jitter: Callable[[], float]) -> None:
        super().__init__(jitter=jitter, most=_LEASES_MAX, max_bytes=REQUEST_MAX_BYTES)
        self._connection = connection
        self._path = f"{messages_path(topic)}/settle"

    async def send(self, parts: list[Settling]) -> None:
        """All in one request; each is told what became of its own leases."""
        lines: dict[str, list[bytes]] = {kind: [] for kind in _KINDS}
        for part in parts:
            for kind, line in part.lines.items():
                lines[kind].append(line)
        kinds = [kind for kind in _KINDS if lines[kind]]
        fields = [b'"%s":[%s]' % (kind.encode(), b",".join(lines[kind])) for kind in kinds]
        answer = await self._connection.ask("POST", self._path, content=b"{%s}" % b",".join(fields), kind="settles")
        raise_for_answer(answer)
        results = read_answer(
            answer, lambda said: [SettleResult(one["lease_id"], one["status"]) for one in said["results"]]
        )
        at = 0
        for kind in kinds:
            for part in parts:
                count = part.counts.get(kind, 0)
                part.results += results[at : at + count]
                at += count
        for part in parts:
            part.end()


def _line(values: dict[str, Any]) -> dict[str, Any]:
    kept = without_none(values)
    if isinstance(kept.get("reason"), str):
        # A text of an error may have anything in it; the message must come back all the same.
        kept["reason"] = kept["reason"].encode(errors="replace").decode()
    return kept
