"""Lines by anyio, for trio."""

import select
import socket
import ssl
from typing import Any

import anyio
from anyio.abc import ByteStream, SocketAttribute

from wakeq._line import Line, LineTooSlow

_PIECE_BYTES = 65_536


async def connect(host: str, port: int, context: ssl.SSLContext | None) -> Line:
    """A line to a server. Raises OSError."""
    options: dict[str, Any] = {}
    if context is not None:
        # What is sent says by itself where it ends.
        options = {"tls": True, "ssl_context": context, "tls_standard_compatible": False}
    return AnyioLine(await anyio.connect_tcp(host, port, **options))


class AnyioLine(Line):
    """A stream of anyio's."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._readable = select.poll()
        raw_socket: socket.socket = stream.extra(SocketAttribute.raw_socket)  # noqa: S610  no Django here
        self._readable.register(raw_socket, select.POLLIN)

    async def send(self, data: bytes, limit_s: float) -> None:
        """See `Line`."""
        try:
            for start in range(0, len(data), _PIECE_BYTES):
                with anyio.fail_after(limit_s):
                    await self._stream.send(data[start : start + _PIECE_BYTES])
        except TimeoutError:
            raise LineTooSlow from None
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            # It may have answered before it has read everything, which is then still to be read.
            return

    async def receive(self, limit_s: float) -> bytes:
        """See `Line`."""
        try:
            with anyio.fail_after(limit_s):
                return await self._stream.receive()
        except TimeoutError:
            raise LineTooSlow from None
        except anyio.EndOfStream:
            return b""
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise ConnectionError(str(error.__cause__ or error) or "the connection broke") from error

    @property
    def is_quiet(self) -> bool:
        """See `Line`."""
        return not self._readable.poll(0)

    async def aclose(self) -> None:
        """See `Line`."""
        await anyio.aclose_forcefully(self._stream)
