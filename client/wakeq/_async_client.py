"""The asynchronous client, for asyncio and trio alike."""

import os
import random
import secrets
import socket
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx
import orjson

from wakeq._administration import Administration, path_segment
from wakeq._attributes import publish_headers
from wakeq._consumer import Consumer
from wakeq._delivery import Delivery, Holder
from wakeq._errors import LeaseLost, ServerUnavailable, raise_for_answer, read_answer
from wakeq._model import Dead, Nack, Published, SettleResult

DEFAULT_URL = "http://127.0.0.1:8001"
_STREAMS_MAX = 10_000
_CONSUMER_MAX = 255
# An answer that was parked may come this much after its time.
_SLACK_S = 10.0


class AsyncClient(Administration):
    """A connection to one queue server; use it as an async context manager, or `aclose` it."""

    def __init__(
        self,
        base_url: str | None = None,
        *,
        token: str | None = None,
        timeout: float = 10.0,
        consumer: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """``base_url`` None: the environment's ``WAKEQ_URL``, else the local server.

        ``token`` is what the server asks for (``wakeq serve --token-file``), None: the environment's ``WAKEQ_TOKEN``.
        ``timeout`` (seconds) bounds connecting, and the silence of a server that isn't asked to wait. ``consumer`` is
        what this client is called where consumers are listed: 1 to 255 printable characters, no space at the ends;
        None: the host's name, the process's id and something random. Raises ValueError where it is no such name.
        """
        if consumer is None:
            consumer = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        elif not (1 <= len(consumer) <= _CONSUMER_MAX and consumer.isprintable() and consumer == consumer.strip()):
            raise ValueError(
                f"consumer: must have 1 to {_CONSUMER_MAX} characters, all of them printable, and no space at its ends"
            )
        url = base_url or os.environ.get("WAKEQ_URL") or DEFAULT_URL
        # Plain HTTP needs no certificates, and loading them is most of what making a client costs.
        common: dict[str, Any] = {"base_url": url, "transport": transport, "verify": url.startswith("https:")}
        token = token or os.environ.get("WAKEQ_TOKEN")
        shown = {b"authorization": b"Bearer " + token.encode()} if token else {}
        self._http = httpx.AsyncClient(timeout=timeout, headers=shown, **common)
        # Streams and parked claims hold a connection each; a settle must never wait for one of them to end.
        self._parked = httpx.AsyncClient(
            timeout=timeout,
            limits=httpx.Limits(max_connections=_STREAMS_MAX),
            headers=shown | {b"wakeq-consumer": consumer.encode()},
            **common,
        )
        self._timeout = timeout
        self._holder = _Direct(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._parked.aclose()
        await self._http.aclose()

    async def publish(
        self,
        topic: str,
        body: Any,
        *,
        delay_s: float | None = None,
        ttl_s: float | None = None,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Published:
        """Publish a JSON value, or bytes (as ``application/octet-stream``, on a topic whose schema is ``any``).

        It isn't delivered in the first ``delay_s`` seconds, and dropped if it still isn't after ``ttl_s``. Of the
        messages with one ordering ``key``, one is out at a time. ``headers`` are handed over with it, their names in
        lower case. A publish that comes again with its ``idempotency_key`` enqueues nothing and returns the same.

        Returns when the message is as durable as the server makes it. Raises TopicNotFound, BadRequest,
        InvalidMessage, IdempotencyConflict, MessageTooLarge, UnsupportedMediaType, TopicFull, StorageFull,
        StorageFailed, ServerUnavailable.
        """
        kind, content = ("octet-stream", body) if isinstance(body, bytes) else ("json", orjson.dumps(body))
        said = [(b"content-type", f"application/{kind}".encode())]
        said += publish_headers(delay_s, ttl_s, key, headers or {}, idempotency_key)
        answer = await self._ask("POST", self._path(topic), content=content, headers=said)
        seq = read_answer(answer, lambda _: int(answer.headers["wakeq-seq"]))
        return Published(seq, seq)

    async def publish_many(self, topic: str, bodies: Iterable[Any], *, idempotency_key: str | None = None) -> Published:
        """Publish JSON values in one request: all of them or none. The key is the batch's.

        Raises what `publish` raises.
        """
        lines = b"\n".join(map(orjson.dumps, bodies))
        headers = [(b"content-type", b"application/x-ndjson")]
        headers += publish_headers(None, None, None, {}, idempotency_key)
        answer = await self._ask("POST", self._path(topic), content=lines, headers=headers)
        return read_answer(answer, lambda said: Published(said["first_seq"], said["last_seq"]))

    async def claim(
        self,
        topic: str,
        *,
        max: int = 1,  # noqa: A002  the protocol's word
        wait_s: float = 0.0,
        lease_s: float | None = None,
        group: str | None = None,
    ) -> list[Delivery]:
        """Lease up to ``max`` messages as soon as there is one; an empty list after ``wait_s`` seconds.

        Raises TopicNotFound, GroupNotFound, BadRequest, Draining, ServerUnavailable.
        """
        ask = {"max": max, "wait_s": wait_s, "lease_s": lease_s, "group": group}
        answer = await self._ask(
            "POST",
            f"{self._path(topic)}/claim",
            client=self._parked,
            json={name: value for name, value in ask.items() if value is not None},
            timeout=httpx.Timeout(self._timeout, read=wait_s + _SLACK_S),
        )
        return read_answer(answer, lambda said: [Delivery(topic, wire, self._holder) for wire in said["messages"]])

    def consume(self, topic: str, *, group: str | None = None, prefetch: int = 32, lease_s: float = 30.0) -> Consumer:
        """Deliveries as they come, over one stream that reconnects by itself.

        At most ``prefetch`` of them are unsettled at a time, each leased for ``lease_s`` seconds.
        """
        return Consumer(self, topic, group=group, prefetch=prefetch, lease_s=lease_s, jitter=random.random)

    async def settle(
        self,
        topic: str,
        *,
        ack: Sequence[str] = (),
        nack: Sequence[Nack] = (),
        extend: Sequence[tuple[str, float | None]] = (),
        dead: Sequence[Dead] = (),
    ) -> list[SettleResult]:
        """End or extend leases by their ids, in this order; returns when that is durable.

        A lease that has ended is no error here: its result says ``stale``.
        """
        ask = {
            "ack": list(ack),
            "nack": [_without_none(**one._asdict()) for one in nack],
            "extend": [_without_none(lease_id=lease_id, lease_s=lease_s) for lease_id, lease_s in extend],
            "dead": [_without_none(**one._asdict()) for one in dead],
        }
        answer = await self._ask("POST", f"{self._path(topic)}/settle", json=ask)
        return read_answer(answer, lambda said: [SettleResult(**result) for result in said["results"]])

    def _stream(self, topic: str, params: Mapping[str, str], silence_s: float) -> Any:
        """An open response of a stream, for `Consumer`; a silence of ``silence_s`` ends it."""
        headers = {"accept": "text/event-stream", "cache-control": "no-store"}
        timeout = httpx.Timeout(self._timeout, read=silence_s)
        return self._parked.stream("GET", self._path(topic), params=params, headers=headers, timeout=timeout)

    def _path(self, topic: str) -> str:
        return f"/messages/{path_segment(topic)}"

    async def _ask(
        self, method: str, path: str, *, client: httpx.AsyncClient | None = None, **more: Any
    ) -> httpx.Response:
        try:
            response = await (client or self._http).request(method, path, **more)
        except httpx.TransportError as error:
            raise unavailable(error) from error
        raise_for_answer(response)
        return response


class _Direct(Holder):
    """Settles each delivery by a request of its own."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def settle(
        self, topic: str, *, ack: str | None = None, nack: Nack | None = None, dead: Dead | None = None
    ) -> None:
        ends = {"ack": [ack] if ack else (), "nack": [nack] if nack else (), "dead": [dead] if dead else ()}
        _check(await self._client.settle(topic, **ends))  # type: ignore[arg-type]

    async def extend(self, topic: str, lease_id: str, lease_s: float | None) -> None:
        _check(await self._client.settle(topic, extend=[(lease_id, lease_s)]))


def _check(results: list[SettleResult]) -> None:
    (result,) = results
    if result.status != "ok":
        raise LeaseLost(f"the lease {result.lease_id} has ended")


def unavailable(error: httpx.TransportError) -> ServerUnavailable:
    """What a transport's error means to a user."""
    reason = str(error) or type(error).__name__
    return ServerUnavailable(f"no answer from {error.request.url.copy_with(path='/', query=None)}: {reason}")


def _without_none(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}
