"""One message as a request, and what its answer means."""

import base64
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple, Protocol
from urllib.parse import unquote_to_bytes, urlsplit

import anyio
import anyio.to_thread
import httpcore

from wakeq_server.core.model import Delivery, Message, Push, PushConfig
from wakeq_server.push.targets import Allowed, CheckedNetwork
from wakeq_server.settings import PUSH_ANSWER_MAX_BYTES, PUSH_CONNECT_S, PUSH_IDLE_S, PUSH_LEASE_SPARE_S

Header = tuple[bytes, bytes]

_PORTS = {"http": 80, "https": 443}
# RFC 9110, 5.6.2 and 5.5: what may stand in a field's name, and in its value once it is UTF-8.
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"(?![ \t])[^\x00-\x08\x0a-\x1f\x7f]*(?<![ \t])")


class Answered(NamedTuple):
    """The target has answered; whatever it said, it was reached."""

    status: int


class Failed(NamedTuple):
    """The target was reached, and has not answered in time, or not in HTTP."""

    problem: str


class Unreachable(NamedTuple):
    """There was no connection, or it broke before an answer."""

    problem: str


Outcome = Answered | Failed | Unreachable


class Poster(Protocol):
    """Posts messages."""

    async def post(self, push: Push, delivery: Delivery) -> Outcome:
        """Post one. Never raises, but for being cancelled."""


def lease_s(config: PushConfig) -> float:
    """How long a pushed message is leased: longer than its request can take, so that no lease has to be extended."""
    return request_s(config) + PUSH_LEASE_SPARE_S


def request_s(config: PushConfig) -> float:
    """How long a request may take at all: a connection, a handshake, and the answer, whatever comes meanwhile."""
    return 2 * PUSH_CONNECT_S + config.timeout_s


def origin(url: str) -> str:
    """Of a URL what may be logged: credentials stand in front of the host, and often behind the path's `?`."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{_host(url)}"


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


class HttpPoster:
    """Posts over connections that are kept for the next message. Made by `open_poster`."""

    def __init__(self, allowed: Allowed, user_agent: str) -> None:
        self._network = CheckedNetwork(allowed)
        self._user_agent = user_agent.encode()
        self._pools: dict[str, httpcore.AsyncConnectionPool] = {"http": self._pool(None)}
        self._making = anyio.Lock()

    async def post(self, push: Push, delivery: Delivery) -> Outcome:
        """See `Poster`."""
        too_late = Failed(f"no answer within {push.config.timeout_s:.10g} s")
        outcome: Outcome = too_late
        try:
            with anyio.move_on_after(request_s(push.config)):
                async with self._asked(push, delivery) as answer:
                    outcome = Answered(answer.status)
                    await _read_on(answer)
        except Exception as error:
            # Once there is a status, what becomes of the rest of the answer doesn't matter.
            return outcome if isinstance(outcome, Answered) else _meaning(error, too_late)
        return outcome

    @asynccontextmanager
    async def _asked(self, push: Push, delivery: Delivery) -> AsyncIterator[httpcore.Response]:
        parts = urlsplit(push.config.url)
        pool = await self._pool_for(parts.scheme)
        url = httpcore.URL(
            scheme=parts.scheme.encode(),
            host=(parts.hostname or "").encode(),
            port=parts.port or _PORTS[parts.scheme],
            target=((parts.path or "/") + ("?" + parts.query if parts.query else "")).encode(),
        )
        wait_s = push.config.timeout_s
        timeouts = {"connect": PUSH_CONNECT_S, "read": wait_s, "write": wait_s, "pool": None}
        headers = [(b"Host", _host(push.config.url).encode()), (b"User-Agent", self._user_agent)]
        headers += [*_authorization(push.config.url), *message_headers(push, delivery)]
        body = delivery.message.body
        async with pool.stream("POST", url, headers=headers, content=body, extensions={"timeout": timeouts}) as answer:
            yield answer

    async def _pool_for(self, scheme: str) -> httpcore.AsyncConnectionPool:
        async with self._making:
            if scheme not in self._pools:
                # It reads the system's certificates, which takes a while and some memory.
                self._pools[scheme] = self._pool(await anyio.to_thread.run_sync(ssl.create_default_context))
            return self._pools[scheme]

    def _pool(self, context: ssl.SSLContext | None) -> httpcore.AsyncConnectionPool:
        """As many connections as pushes have requests in flight."""
        return httpcore.AsyncConnectionPool(
            ssl_context=context, max_connections=None, keepalive_expiry=PUSH_IDLE_S, network_backend=self._network
        )

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            await pool.aclose()


@asynccontextmanager
async def open_poster(allowed: Allowed, user_agent: str) -> AsyncIterator[HttpPoster]:
    """A poster whose connections are closed on the way out."""
    poster = HttpPoster(allowed, user_agent)
    try:
        yield poster
    finally:
        with anyio.CancelScope(shield=True):
            await poster.aclose()


async def _read_on(answer: httpcore.Response) -> None:
    size = 0
    async for part in answer.aiter_stream():
        size += len(part)
        if size > PUSH_ANSWER_MAX_BYTES:
            return


def _meaning(error: Exception, too_late: Failed) -> Outcome:
    """What it means that there was no answer."""
    match error:
        case httpcore.ConnectTimeout():
            return Unreachable(str(error) or "no connection in time")
        case httpcore.TimeoutException():
            return too_late
        case httpcore.LocalProtocolError():
            return Failed(f"the message can't be sent: {error}")
        # Its own words are for a connection that was closed; another's, for what its parser has refused.
        case httpcore.RemoteProtocolError() if _origin_of(error) is not None:
            return Failed(f"the answer is not HTTP: {error}")
    return Unreachable(_said(error))


def _said(error: BaseException) -> str:
    """What went wrong, in the operating system's words where it was that which said so."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or _origin_of(cause)
    return str(error) or type(error).__name__


def _origin_of(error: BaseException) -> BaseException | None:
    """The exception that httpcore has turned into this one, if it has; it leaves `__cause__` empty."""
    return next((part for part in error.args if isinstance(part, BaseException)), None)


def message_headers(push: Push, delivery: Delivery) -> list[Header]:
    """What a request says about its message."""
    message = delivery.message
    said = [
        ("Content-Type", message.content_type or "application/json"),
        ("Wakeq-Topic", push.topic),
        ("Wakeq-Group", push.config.group),
        ("Wakeq-Seq", str(message.seq)),
        ("Wakeq-Attempt", str(delivery.attempt)),
        ("Wakeq-Id", delivery.id),
        ("Idempotency-Key", delivery.id),
        *_optional(message),
    ]
    return [header for name, value in said if (header := _header(name, value)) is not None]


def _optional(message: Message) -> Iterator[tuple[str, str]]:
    if message.key is not None:
        yield "Wakeq-Ordering-Key", message.key
    for name, value in (message.headers or {}).items():
        yield ("traceparent" if name == "traceparent" else f"Wakeq-H-{name}"), value


def _header(name: str, value: str) -> Header | None:
    """A header; None where HTTP can't carry it: an envelope may say anything in its fields, line breaks too."""
    try:
        header = name.encode(), value.encode()
    except UnicodeEncodeError:
        return None
    return header if _TOKEN.fullmatch(header[0]) and _VALUE.fullmatch(header[1]) else None


def _authorization(url: str) -> list[Header]:
    """The user and password of a URL, as the Basic scheme has them (RFC 7617)."""
    user, at, _ = urlsplit(url).netloc.rpartition("@")
    name, _, password = user.partition(":")
    said = unquote_to_bytes(name) + b":" + unquote_to_bytes(password)
    return [(b"Authorization", b"Basic " + base64.b64encode(said))] if at else []
