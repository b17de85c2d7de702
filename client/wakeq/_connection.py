"""Requests to one server, and its answers."""

import base64
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from urllib.parse import quote, unquote, urlencode, urlsplit

from wakeq._errors import ServerUnavailable, raise_for_answer
from wakeq._http import Http
from wakeq._version import __version__
from wakeq._wire import Arriving, Broken, Header, Kind, Request, Wire

if TYPE_CHECKING:
    import httpx

Transport: TypeAlias = "httpx.AsyncBaseTransport | None"

DEFAULT_URL = "http://127.0.0.1:8001"
DEFAULT_CONTROL_URL = "http://127.0.0.1:8000"
_PATHS_KEPT = 256
SILENCE_S = 37.5
"""Two and a half heartbeats of 15 s: a stream that silent is dead."""
JSON: list[Header] = [(b"content-type", b"application/json")]
_PORTS = {"http": 80, "https": 443}


class Answer(NamedTuple):
    """A whole answer."""

    status: int
    headers: Mapping[bytes, bytes]
    """By their names in lower case."""
    content: bytes
    url: str


class Connection:
    """Makes requests, as one client of a server."""

    def __init__(self, base_url: str, *, token: str | None, timeout: float, transport: Transport = None) -> None:
        """Raises ValueError where ``base_url`` is no URL of a server, or ``transport`` no transport of httpx."""
        base = _Base(base_url)
        self.timeout = timeout
        self._origin = base.origin
        self._prefix = base.path
        headers: list[Header] = [(b"host", base.netloc), (b"user-agent", f"wakeq/{__version__}".encode())]
        if (shown := _authorization(base, token)) is not None:
            headers.append((b"authorization", shown))
        self._wire = _wire(base, headers, timeout, transport)

    async def aopen(self) -> None:
        """Start a transport that is a context manager itself."""
        await self._wire.aopen()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._wire.aclose()

    async def ask(
        self,
        method: str,
        path: str,
        *,
        content: bytes = b"",
        headers: Sequence[Header] = JSON,
        kind: Kind = "requests",
        wait_s: float | None = None,
    ) -> Answer:
        """A whole answer, whatever it says. ``wait_s`` is how long the server may be silent; None: the time-out.

        Raises ServerUnavailable.
        """
        request = self._request(method, path, headers, content)
        try:
            arriving = await self._wire.send(request, kind, self.timeout if wait_s is None else wait_s)
            try:
                body = await arriving.whole()
            finally:
                await arriving.aclose()
        except Broken as error:
            raise self._unavailable(error) from error
        return Answer(arriving.status, arriving.headers, body, self._url(path))

    @asynccontextmanager
    async def stream(self, path: str, headers: Sequence[Header], silence_s: float) -> AsyncIterator[Arriving]:
        """An answer that comes in parts; a silence of ``silence_s`` ends it.

        Raises WakeqError where it is refused, and ServerUnavailable where it breaks, also while it is read.
        """
        request = self._request("GET", path, headers, b"")
        try:
            arriving = await self._wire.send(request, "streams", silence_s)
            try:
                if not 200 <= arriving.status < 300:
                    body = await arriving.whole()
                    raise_for_answer(Answer(arriving.status, arriving.headers, body, self._url(path).partition("?")[0]))
                yield arriving
            finally:
                await arriving.aclose()
        except Broken as error:
            raise self._unavailable(error) from error

    def _request(self, method: str, path: str, headers: Sequence[Header], content: bytes) -> Request:
        if content or method in ("POST", "PUT"):
            headers = [*headers, (b"content-length", b"%d" % len(content))]
        return Request(method, f"{self._prefix}{path}".encode("ascii"), headers, content)

    def _url(self, path: str) -> str:
        return f"{self._origin}{self._prefix}{path}"

    def _unavailable(self, error: Broken) -> ServerUnavailable:
        found = ServerUnavailable(f"no answer from {self._origin}/: {error}")
        found.may_have_happened = not error.unsent
        return found


def messages_path(topic: str) -> str:
    """Where a topic's messages are."""
    return f"/messages/{path_segment(topic)}"


def topic_path(topic: str) -> str:
    """Where a topic's configuration is."""
    return f"/topics/{path_segment(topic)}"


@lru_cache(_PATHS_KEPT)
def path_segment(name: str) -> str:
    """A topic's or group's name in a path. Dots too: `.` and `..` would be taken for steps through the path."""
    return quote(name, safe="").replace(".", "%2E")


class _Base:
    """Where a server is, by its URL."""

    def __init__(self, text: str) -> None:
        """Raises ValueError."""
        try:
            parts = urlsplit(text)
            port = parts.port
            self.host = _ascii(parts.hostname or "")
        except ValueError as error:
            raise ValueError(f"base_url: {text!r} is no URL: {error}") from None
        if any(character <= " " or character == "\x7f" for character in text):
            raise ValueError(f"base_url: {text!r} is no URL: it has spaces or control characters")
        if parts.scheme not in _PORTS or not self.host:
            raise ValueError(f"base_url: must be http://HOST:PORT or https://HOST:PORT, not {text!r}")
        self.is_secure = parts.scheme == "https"
        self.port = _PORTS[parts.scheme] if port is None else port
        self.user = unquote(parts.username or ""), unquote(parts.password or "")
        shown = f"[{self.host}]" if ":" in self.host else self.host
        netloc = shown if self.port == _PORTS[parts.scheme] else f"{shown}:{self.port}"
        self.netloc = netloc.encode("ascii")
        self.origin = f"{parts.scheme}://{netloc}"
        self.path = quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~")


def _ascii(host: str) -> str:
    return host if host.isascii() else host.encode("idna").decode("ascii")


def _wire(base: _Base, headers: list[Header], timeout: float, transport: object) -> Wire:
    if transport is None:
        return Http(base.host, base.port, is_secure=base.is_secure, headers=headers, timeout_s=timeout)
    # Takes long to load, and nothing else here needs it.
    from wakeq._over_httpx import over_httpx  # noqa: PLC0415

    return over_httpx(transport, base.origin, headers=headers, timeout_s=timeout)


def _authorization(base: _Base, token: str | None) -> bytes | None:
    if token:
        # In the words of a transport the token itself would be part of the error.
        if not is_token(token):
            raise ValueError("token: must consist of printable ASCII characters, without spaces")
        return b"Bearer " + token.encode()
    if any(base.user):
        return b"Basic " + base64.b64encode(":".join(base.user).encode())
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


def query(parameters: Mapping[str, object]) -> str:
    """The query of a path, `?` included."""
    return f"?{urlencode({name: str(value) for name, value in parameters.items()})}" if parameters else ""
