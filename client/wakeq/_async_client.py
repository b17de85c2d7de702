"""The asynchronous client, for asyncio and trio alike."""

import os
import random
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
import orjson

from wakeq._consumer import Consumer
from wakeq._errors import LeaseLost, ServerUnavailable, raise_for_answer
from wakeq._model import Delivery, Nack, Published, SettleResult

DEFAULT_URL = "http://127.0.0.1:8001"
_STREAMS_MAX = 10_000
# An answer that was parked may come this much after its time.
_SLACK_S = 10.0


class AsyncClient:
    """A connection to one queue server; use it as an async context manager, or `aclose` it."""

    def __init__(
        self,
        base_url: str | None = None,
        *,
        token: str | None = None,
        timeout_s: float = 10.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """``base_url`` None: the environment's ``WAKEQ_URL``, else the local server.

        ``token`` is what the server asks for (``wakeq serve --token-file``), None: the environment's ``WAKEQ_TOKEN``.
        ``timeout_s`` bounds connecting, and the silence of a server that isn't asked to wait.
        """
        url = base_url or os.environ.get("WAKEQ_URL") or DEFAULT_URL
        # Plain HTTP needs no certificates, and loading them is most of what making a client costs.
        common: dict[str, Any] = {"base_url": url, "transport": transport, "verify": url.startswith("https:")}
        token = token or os.environ.get("WAKEQ_TOKEN")
        if token:
            common["headers"] = {"authorization": f"Bearer {token}"}
        self._http = httpx.AsyncClient(timeout=timeout_s, **common)
        # Streams and parked claims hold a connection each; a settle must never wait for one of them to end.
        self._parked = httpx.AsyncClient(timeout=timeout_s, limits=httpx.Limits(max_connections=_STREAMS_MAX), **common)
        self._timeout_s = timeout_s

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

    async def create_topic(self, topic: str, **config: Any) -> None:
        """Make a topic, or replace its configuration: ``schema``, ``lease_s``, … as in docs/protocol.md.

        Raises BadRequest naming the field.
        """
        await self._ask("PUT", f"/topics/{quote(topic, safe='')}", json=config)

    async def publish(self, topic: str, body: Any) -> Published:
        """Publish a JSON value, or bytes (as ``application/octet-stream``, on a topic whose schema is ``any``).

        Returns when the message is as durable as the server makes it. Raises TopicNotFound, InvalidMessage,
        MessageTooLarge, TopicFull, StorageFull, StorageFailed, ServerUnavailable.
        """
        kind, content = ("octet-stream", body) if isinstance(body, bytes) else ("json", orjson.dumps(body))
        answer = await self._ask(
            "POST", self._path(topic), content=content, headers={"content-type": f"application/{kind}"}
        )
        seq = int(answer.headers["wakeq-seq"])
        return Published(seq, seq)

    async def publish_many(self, topic: str, bodies: Iterable[Any]) -> Published:
        """Publish JSON values in one request: all of them or none. Raises what `publish` raises."""
        lines = b"\n".join(map(orjson.dumps, bodies))
        headers = {"content-type": "application/x-ndjson"}
        answer = orjson.loads((await self._ask("POST", self._path(topic), content=lines, headers=headers)).content)
        return Published(answer["first_seq"], answer["last_seq"])

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
            timeout=httpx.Timeout(self._timeout_s, read=wait_s + _SLACK_S),
        )
        return [Delivery.from_wire(self, topic, wire) for wire in orjson.loads(answer.content)["messages"]]

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
    ) -> list[SettleResult]:
        """End or extend leases by their ids, in this order; returns when that is durable.

        A lease that has ended is no error here: its result says ``stale``.
        """
        ask = {
            "ack": list(ack),
            "nack": [_without_none(lease_id=n.lease_id, delay_s=n.delay_s) for n in nack],
            "extend": [_without_none(lease_id=lease_id, lease_s=lease_s) for lease_id, lease_s in extend],
        }
        answer = await self._ask("POST", f"{self._path(topic)}/settle", json=ask)
        return [SettleResult(**result) for result in orjson.loads(answer.content)["results"]]

    async def settle_one(
        self,
        topic: str,
        *,
        ack: str | None = None,
        nack: Nack | None = None,
        extend: tuple[str, float | None] | None = None,
    ) -> None:
        """Settle a single lease. Raises LeaseLost where it has ended."""
        (result,) = await self.settle(
            topic, ack=[ack] if ack else (), nack=[nack] if nack else (), extend=[extend] if extend else ()
        )
        if result.status != "ok":
            raise LeaseLost(f"the lease {result.lease_id} has ended")

    def stream(self, topic: str, params: Mapping[str, str], silence_s: float) -> Any:
        """An open response of a stream, for `Consumer`; a silence of ``silence_s`` ends it."""
        headers = {"accept": "text/event-stream", "cache-control": "no-store"}
        timeout = httpx.Timeout(self._timeout_s, read=silence_s)
        return self._parked.stream("GET", self._path(topic), params=params, headers=headers, timeout=timeout)

    def _path(self, topic: str) -> str:
        return f"/messages/{quote(topic, safe='')}"

    async def _ask(
        self, method: str, path: str, *, client: httpx.AsyncClient | None = None, **more: Any
    ) -> httpx.Response:
        try:
            response = await (client or self._http).request(method, path, **more)
        except httpx.TransportError as error:
            raise unavailable(error) from error
        raise_for_answer(response)
        return response


def unavailable(error: httpx.TransportError) -> ServerUnavailable:
    """What a transport's error means to a user."""
    reason = str(error) or type(error).__name__
    return ServerUnavailable(f"no answer from {error.request.url.copy_with(path='/', query=None)}: {reason}")


def _without_none(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}
