"""A transport of httpx, as what carries requests."""

from collections.abc import AsyncIterator, Sequence

import httpx

from wakeq._wire import Arriving, Broken, Header, Kind, Request, Wire

# Errors of a request that no server has read.
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


def over_httpx(transport: object, base: str, *, headers: Sequence[Header], timeout_s: float) -> Wire:
    """Raises ValueError where it is none."""
    if not isinstance(transport, httpx.AsyncBaseTransport):
        raise ValueError(f"transport: must be an asynchronous transport of httpx, not {transport!r}")
    return OverHttpx(transport, base, headers=headers, timeout_s=timeout_s)


class OverHttpx(Wire):
    """One that a program gives, with limits of its own."""

    def __init__(
        self, transport: httpx.AsyncBaseTransport, base: str, *, headers: Sequence[Header], timeout_s: float
    ) -> None:
        """``base`` is the URL of the server, without a path; ``headers`` are those of all requests."""
        self._headers = headers
        self._transport = transport
        self._base = httpx.URL(base)
        self._timeout_s = timeout_s

    async def aopen(self) -> None:
        """See `Wire`: one may be a context manager itself."""
        await self._transport.__aenter__()

    async def aclose(self) -> None:
        """See `Wire`."""
        await self._transport.aclose()

    async def send(self, request: Request, kind: Kind, silence_s: float) -> Arriving:
        """See `Wire`."""
        limits = {**dict.fromkeys(("connect", "write", "pool"), self._timeout_s), "read": silence_s}
        asked = httpx.Request(
            request.method,
            self._base.copy_with(raw_path=request.target),
            headers=[*self._headers, *request.headers],
            stream=Content(request.content),
            extensions={"timeout": limits},
        )
        try:
            return _Response(await self._transport.handle_async_request(asked))
        except httpx.TransportError as error:
            raise _broken(error) from error


class _Response(Arriving):
    """httpx's."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers = {name.lower(): value for name, value in response.headers.raw}
        self._response = response
        # Any transport of httpx's asynchronous kind has an asynchronous stream.
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._parts: AsyncIterator[bytes] = aiter(response.stream)

    async def __anext__(self) -> bytes:
        """See `Arriving`."""
        try:
            return await anext(self._parts)
        except httpx.TransportError as error:
            raise _broken(error) from error

    async def aclose(self) -> None:
        """See `Arriving`."""
        await self._response.aclose()


class Content(httpx.ByteStream):
    """The body of a request. httpx's is read by a generator, of which trio warns when a broken connection leaves it."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._content = content

    def __aiter__(self) -> AsyncIterator[bytes]:
        """All of it at once."""
        return _Once(self._content)


class _Once:
    """An iterator of one part."""

    def __init__(self, part: bytes) -> None:
        self._parts = [part]

    def __aiter__(self) -> "_Once":
        return self

    async def __anext__(self) -> bytes:
        if not self._parts:
            raise StopAsyncIteration
        return self._parts.pop()


def _broken(error: httpx.TransportError) -> Broken:
    return Broken(str(error) or type(error).__name__, unsent=isinstance(error, _NEVER_SENT))
