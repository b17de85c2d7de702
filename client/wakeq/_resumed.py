"""Asking again for a while, of a server that was there before and may be there again.

What is asked this way may reach the server twice: it must be the same then.
"""

import random
from collections.abc import AsyncGenerator, AsyncIterator

import anyio
import httpx

from wakeq._backoff import Backoff
from wakeq._connection import Connection, parts_of, unavailable
from wakeq._errors import ServerUnavailable, WakeqError

_RETRY_MAX_S = 2.0
_STOPPING = "STOPPING"


class Patience:
    """That of one series of tries."""

    def __init__(self, retry_s: float) -> None:
        """``retry_s``: how long the server may be away at a time."""
        self._retry_s = retry_s
        self._backoff = Backoff(random.random, max_s=_RETRY_MAX_S)
        self._until: float | None = None

    def succeeded(self) -> None:
        """The next failure is a first one."""
        self._backoff.succeeded()
        self._until = None

    async def wait(self, error: WakeqError) -> None:
        """Wait until it may be tried again. Raises the error where that is of no use, or would be too late."""
        now = anyio.current_time()
        if self._until is None:
            self._until = now + self._retry_s
        if now >= self._until or not is_away(error):
            raise error
        await anyio.sleep(self._backoff.next_delay_s(error.retry_after_s or 0.0))


def is_away(error: WakeqError) -> bool:
    """Whether nobody is there to answer, or not for long any more."""
    return isinstance(error, ServerUnavailable) or error.code == _STOPPING


async def read_lines(
    connection: Connection, path: str, *, silence_s: float, retry_s: float
) -> AsyncGenerator[bytes, None]:
    """The lines of a stream that begins anew with each request, some at a time, each once however often it breaks.

    An empty part is a sign of life. Raises WakeqError.
    """
    url = connection.url(path)
    shown, patience = 0, Patience(retry_s)
    while True:
        seen = 0
        try:
            async with connection.stream(url, [], silence_s) as response:
                async for lines, is_blank in _lines(parts_of(response)):
                    patience.succeeded()
                    new = lines[max(0, shown - seen) :]
                    seen += len(lines)
                    shown = max(shown, seen)
                    if new or is_blank:
                        yield b"".join(new)
            return
        except httpx.TransportError as error:
            if shown:
                yield b""
            await patience.wait(unavailable(url, error))
        except WakeqError as error:
            await patience.wait(error)


async def _lines(parts: AsyncIterator[bytes]) -> AsyncIterator[tuple[list[bytes], bool]]:
    """Whole lines, without the spaces that came in front of them, and whether nothing but spaces is behind them."""
    rest = b""
    async for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        rest = rest.lstrip(b" ")
        yield [line.lstrip(b" ") + b"\n" for line in lines], part.endswith(b" ") and not rest
