"""Requests and answers over httpx's transports.

The transports are asked directly: what httpx's client adds (redirects, cookies, authentication flows, decoding, proxies
by the environment) is of no use to a queue's client, and takes more than a third of what a request costs.
"""

import base64
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, urlsplit

import httpx

from wakeq._errors import ServerUnavailable, raise_for_answer
from wakeq._version import __version__

Header = tuple[bytes, bytes]
Transport = httpx.AsyncBaseTransport | Literal["httpx", "aiohttp"] | None

_STREAMS_MAX = 10_000
_REQUESTS_MAX = 100
SILENCE_S = 37.5
"""Two and a half heartbeats of 15 s: a stream that silent is dead."""
_PATHS_KEPT = 256
JSON: list[Header] = [(b"content-type", b"application/json")]


class Answer(NamedTuple):
    """A whole answer."""

    status: int
    headers: httpx.Headers
    content: bytes
    url: httpx.URL


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


class Connection:
    """Makes requests, over three pools: a settle must wait neither for a stream to end nor for a publish."""

    def __init__(self, base_url: str, *, token: str | None, timeout: float, transport: Transport) -> None:
        """Raises ValueError where ``base_url`` is no URL of a server, or ``transport`` none that there is."""
        self._base = _checked(base_url)
        self.timeout = timeout
        self._transport = transport if isinstance(transport, httpx.AsyncBaseTransport) else None
        self._make = _maker(transport)
        self._pools: dict[str, httpx.AsyncBaseTransport] = {}
        self._headers: list[Header] = [(b"host", self._base.netloc), (b"user-agent", f"wakeq/{__version__}".encode())]
        if (shown := _authorization(self._base, token)) is not None:
            self._headers.append((b"authorization", shown))
        self.url: Callable[[str], httpx.URL] = lru_cache(_PATHS_KEPT)(self._url)
        """The URL of a path and its query."""

    def _url(self, path: str) -> httpx.URL:
        prefix = self._base.raw_path.partition(b"?")[0].rstrip(b"/")
        return self._base.copy_with(raw_path=prefix + path.encode("ascii"), fragment=None, userinfo=b"")

    def _pool(self, name: str) -> httpx.AsyncBaseTransport:
        if self._transport is not None:
            return self._transport
        if name not in self._pools:
            # Plain HTTP needs no certificates, and loading them is most of what making a pool costs.
            verify = self._base.scheme == "https"
            self._pools[name] = self._make(verify=verify, most=_STREAMS_MAX if name == "streams" else _REQUESTS_MAX)
        return self._pools[name]

    async def aopen(self) -> None:
        """Start a transport that is a context manager itself."""
        if self._transport is not None:
            await self._transport.__aenter__()

    async def aclose(self) -> None:
        """Close all connections."""
        if self._transport is not None:
            await self._transport.aclose()
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            await pool.aclose()

    async def ask(
        self,
        method: str,
        url: httpx.URL,
        *,
        content: bytes = b"",
        headers: Sequence[Header] = JSON,
        pool: Literal["requests", "settles", "streams"] = "requests",
        wait_s: float | None = None,
    ) -> Answer:
        """A whole answer, whatever it says. ``wait_s`` is how long the server may be silent; None: the time-out.

        Raises ServerUnavailable.
        """
        own = [*self._headers, *headers]
        if content or method in ("POST", "PUT"):
            own.append((b"content-length", b"%d" % len(content)))
        request = httpx.Request(method, url, headers=own, stream=Content(content), extensions=self._timeouts(wait_s))
        try:
            response = await self._pool(pool).handle_async_request(request)
            try:
                body = await _whole(response)
            finally:
                await response.aclose()
        except httpx.TransportError as error:
            raise unavailable(url, error) from error
        return Answer(response.status_code, response.headers, body, url)

    @asynccontextmanager
    async def stream(
        self, url: httpx.URL, headers: Sequence[Header], silence_s: float
    ) -> AsyncIterator[httpx.Response]:
        """An answer that comes in parts; a silence of ``silence_s`` ends it.

        Raises httpx.TransportError, and WakeqError where it is refused.
        """
        own = [*self._headers, *headers]
        request = httpx.Request("GET", url, headers=own, stream=Content(b""), extensions=self._timeouts(silence_s))
        response = await self._pool("streams").handle_async_request(request)
        try:
            if not response.is_success:
                body = await _whole(response)
                raise_for_answer(Answer(response.status_code, response.headers, body, url.copy_with(query=None)))
            yield response
        finally:
            await response.aclose()

    def _timeouts(self, read_s: float | None) -> dict[str, Any]:
        limits = dict.fromkeys(("connect", "read", "write", "pool"), self.timeout)
        if read_s is not None:
            limits["read"] = read_s
        return {"timeout": limits}


def messages_path(topic: str) -> str:
    """Where a topic's messages are."""
    return f"/messages/{path_segment(topic)}"


def topic_path(topic: str) -> str:
    """Where a topic's configuration is."""
    return f"/topics/{path_segment(topic)}"


def path_segment(name: str) -> str:
    """A topic's or group's name in a path. Dots too: `.` and `..` would be taken for steps through the path."""
    return quote(name, safe="").replace(".", "%2E")


def _checked(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise ValueError(f"base_url: {base_url!r} is no URL: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"base_url: must be http://HOST:PORT or https://HOST:PORT, not {base_url!r}")
    return url


def _authorization(url: httpx.URL, token: str | None) -> bytes | None:
    if token:
        # In the words of a transport the token itself would be part of the error.
        if not is_token(token):
            raise ValueError("token: must consist of printable ASCII characters, without spaces")
        return b"Bearer " + token.encode()
    if url.username or url.password:
        return b"Basic " + base64.b64encode(f"{url.username}:{url.password}".encode())
    return None


def is_token(text: str) -> bool:
    """Whether a header can carry it as a token."""
    return all("!" <= character <= "~" for character in text)


def control_token() -> str | None:
    """What the environment has to be shown to a control plane: its own token, else the one that all servers share."""
    return os.environ.get("WAKEQ_CONTROL_TOKEN") or os.environ.get("WAKEQ_TOKEN")


def is_server_url(text: str) -> bool:
    """Whether it is what a person writes for a server: ``http://HOST:PORT``, and perhaps a path."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _maker(kind: object) -> Callable[..., httpx.AsyncBaseTransport]:
    if kind in (None, "httpx") or isinstance(kind, httpx.AsyncBaseTransport):
        # httpcore takes long to load, and httpx itself loads it only when it is needed.
        from wakeq._pool import Pool  # noqa: PLC0415

        return Pool
    if kind != "aiohttp":
        raise ValueError(f"transport: must be 'httpx', 'aiohttp' or a transport of httpx, not {kind!r}")
    try:
        # An extra, which the import of wakeq must not ask for.
        from wakeq._fast import transport  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ValueError(f"transport: 'aiohttp' needs `pip install \"wakeq[fast]\"` ({error})") from error
    return transport


def query(parameters: Mapping[str, object]) -> str:
    """The query of a path, `?` included."""
    return f"?{httpx.QueryParams({name: str(value) for name, value in parameters.items()})}" if parameters else ""


# Errors of a request that no server has read.
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


def parts_of(response: httpx.Response) -> AsyncIterator[bytes]:
    """The body as it comes. Any transport of httpx's asynchronous kind has an asynchronous stream."""
    stream: Any = response.stream
    parts: AsyncIterator[bytes] = aiter(stream)
    return parts


async def _whole(response: httpx.Response) -> bytes:
    return b"".join([part async for part in parts_of(response)])


def unavailable(url: httpx.URL, error: httpx.TransportError) -> ServerUnavailable:
    """What a transport's error means to a user."""
    reason = str(error) or type(error).__name__
    found = ServerUnavailable(f"no answer from {url.copy_with(raw_path=b'/')}: {reason}")
    found.may_have_happened = not isinstance(error, _NEVER_SENT)
    return found
