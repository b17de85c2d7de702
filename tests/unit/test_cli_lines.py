"""Lines of an input, in batches."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wakeq.cli import _lines
from wakeq.cli._lines import BadLine, Batch, batches

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Pieces(io.BytesIO):
    """An input that gives what it has in pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__()
        self._pieces = iter([piece for piece in pieces if piece])

    def read(self, size: int | None = -1, /) -> bytes:
        return next(self._pieces, b"")


async def all_of(pieces: list[bytes]) -> list[Batch]:
    return [batch async for batch in batches(Pieces(pieces))]


def numbered(content: bytes) -> list[tuple[int, bytes]]:
    return [(number, line.strip()) for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]


@given(st.lists(st.text("a\n \r", max_size=12).map(str.encode), max_size=8))
async def test_pieces_of_any_size_make_the_same_lines(pieces: list[bytes]) -> None:
    found = await all_of(pieces)
    assert [tuple(line) for batch in found for line in batch.lines] == numbered(b"".join(pieces))
    assert all(batch.lines for batch in found)
    assert [batch.read for batch in found] == sorted(batch.read for batch in found)


async def test_a_batch_has_so_many_lines_and_bytes() -> None:
    found = await all_of([b"1\n" * (2 * _lines.BATCH_LINES + 1)])
    assert [len(batch.lines) for batch in found] == [_lines.BATCH_LINES, _lines.BATCH_LINES, 1]
    half = b"x" * (_lines.BATCH_BYTES // 2)
    found = await all_of([b"\n".join([half, half, half, half + half + half, b"1"])])
    assert [[len(line.content) // len(half) for line in batch.lines] for batch in found] == [[1, 1], [1], [3], [0]]


@pytest.mark.parametrize("pieces", [1, 3])
async def test_a_line_that_no_server_takes_is_named_before_it_is_whole(
    pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_lines, "LINE_MAX_BYTES", 10)
    with pytest.raises(BadLine, match=r"^line 3 is longer than"):
        await all_of([b"1\n2\n", *[b"x" * 12] * pieces, b"\n"])
