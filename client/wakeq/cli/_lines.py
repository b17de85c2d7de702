"""Lines of an input, in batches: as many as have come, and none held back for what may still come."""

from collections.abc import AsyncIterator
from typing import BinaryIO, NamedTuple

from wakeq.cli import _pipes

BATCH_LINES = 1_000
BATCH_BYTES = 1024 * 1024
LINE_MAX_BYTES = 16 * 1024 * 1024
"""What a server takes of a batch, and so of a line."""


class BadLine(Exception):
    """A line is no message; the text names it."""


class Line(NamedTuple):
    """A line that isn't blank."""

    number: int
    """From 1; blank lines count."""
    content: bytes


class Batch(NamedTuple):
    """Lines that go together."""

    lines: list[Line]
    read: int
    """Bytes of the input that have been read by now."""


async def batches(source: BinaryIO) -> AsyncIterator[Batch]:
    """All lines, in order. Raises BadLine."""
    batch: list[Line] = []
    size = 0
    async for number, content, more, read in _numbered(source):
        if content:
            if batch and (len(batch) == BATCH_LINES or size + len(content) > BATCH_BYTES):
                yield Batch(batch, read)
                batch, size = [], 0
            batch.append(Line(number, content))
            size += len(content)
        if batch and not more:
            yield Batch(batch, read)
            batch, size = [], 0


async def _numbered(source: BinaryIO) -> AsyncIterator[tuple[int, bytes, bool, int]]:
    """Each line with its number, without blanks; whether more is there; and how much has been read."""
    number, read = 0, 0
    rest = bytearray()
    async for chunk, more in _pipes.read(source):
        read += len(chunk)
        head, newline, tail = chunk.rpartition(b"\n")
        if newline:
            lines = bytes(rest + head).split(b"\n")
            for at, line in enumerate(lines, 1):
                _check(number + at, line)
                yield number + at, line.strip(), more or at < len(lines), read
            number += len(lines)
            rest = bytearray(tail)
        else:
            rest += tail
        _check(number + 1, rest)
    yield number + 1, bytes(rest).strip(), False, read


def _check(number: int, line: bytes | bytearray) -> None:
    if len(line) > LINE_MAX_BYTES:
        raise BadLine(f"line {number} is longer than {LINE_MAX_BYTES >> 20} MiB")
