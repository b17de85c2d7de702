"""Asking again for a while, of a server that was there before and may be there again.

What is asked this way may reach the server twice: it must be the same then.
"""

from collections.abc import AsyncGenerator, AsyncIterator

from wakeq._connection import Connection
from wakeq._errors import ServerUnavailable, WakeqError
from wakeq._patience import Patience

_RETRY_MAX_S = 2.0
_STOPPING = "STOPPING"


class ServerPatience(Patience):
    """That with a server that is away; what it refuses, it refuses at once."""

    def __init__(self, retry_s: float) -> None:
        """``retry_s``: as in `Patience`."""
        super().__init__(retry_s, max_s=_RETRY_MAX_S)

    async def wait(self, error: WakeqError, at_least_s: float = 0.0) -> None:
        """See `Patience`."""
        if not is_away(error):
            raise error
        await super().wait(error, at_least_s)


def is_away(error: WakeqError) -> bool:
    """Whether nobody is there to answer, or not for long any more."""
    return isinstance(error, ServerUnavailable) or error.code == _STOPPING


async def read_lines(
    connection: Connection, path: str, *, silence_s: float, retry_s: float
) -> AsyncGenerator[bytes, None]:
    """The lines of a stream that begins anew with each request, some at a time, each once however often it breaks.

    An empty part is a sign of life. Raises WakeqError.
    """
    shown, patience = 0, ServerPatience(retry_s)
    while True:
        seen = 0
        try:
            async with connection.stream(path, [], silence_s) as response:
                async for lines, is_blank in _lines(response):
                    patience.succeeded()
                    new = lines[max(0, shown - seen) :]
                    seen += len(lines)
                    shown = max(shown, seen)
                    if new or is_blank:
                        yield b"".join(new)
            return
        except WakeqError as error:
            if shown and isinstance(error, ServerUnavailable):
                yield b""
            await patience.wait(error)


async def _lines(parts: AsyncIterator[bytes]) -> AsyncIterator[tuple[list[bytes], bool]]:
    """Whole lines, without the spaces that came in front of them, and whether nothing but spaces is behind them."""
    rest = b""
    async for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        rest = rest.lstrip(b" ")
        yield [line.lstrip(b" ") + b"\n" for line in lines], part.endswith(b" ") and not rest
