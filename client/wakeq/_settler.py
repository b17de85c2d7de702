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
        each: tuple[Sequence[Any], ...] = (ack, nack, extend, dead, release)
        self.counts = {kind: len(ends) for kind, ends in zip(_KINDS, each, strict=True)}
        self.lines = {
            "ack": _inside(list(ack)),
            "nack": _inside([_line(one._asdict()) for one in nack]),
            "extend": _inside([_line({"lease_id": lease, "lease_s": lease_s}) for lease, lease_s in extend]),
            "dead": _inside([_line(one._asdict()) for one in dead]),
            "release": _inside(list(release)),
        }
        self.results: list[SettleResult] = []
        """In the order of ack, nack, extend, dead, release."""

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
        fields = [
            b'"%s":[%s]' % (kind.encode(), b",".join([part.lines[kind] for part in parts if part.lines[kind]]))
            for kind in _KINDS
        ]
        answer = await self._connection.ask("POST", self._path, content=b"{%s}" % b",".join(fields), kind="settles")
        raise_for_answer(answer)
        results = read_answer(answer, lambda said: [SettleResult(**result) for result in said["results"]])
        at = 0
        for kind in _KINDS:
            for part in parts:
                part.results += results[at : at + part.counts[kind]]
                at += part.counts[kind]
        for part in parts:
            part.end()


def _inside(values: list[Any]) -> bytes:
    """A JSON list without its brackets."""
    return orjson.dumps(values)[1:-1]


def _line(values: dict[str, Any]) -> dict[str, Any]:
    kept = without_none(values)
    if isinstance(kept.get("reason"), str):
        # A text of an error may have anything in it; the message must come back all the same.
        kept["reason"] = kept["reason"].encode(errors="replace").decode()
    return kept
