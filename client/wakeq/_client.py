"""The synchronous client: the asynchronous one, on an event loop in a thread of its own."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from wakeq._async_client import AsyncClient
from wakeq._connection import Transport
from wakeq._consumer import Consumer
from wakeq._delivery import SyncDelivery
from wakeq._model import Dead, GroupInfo, Nack, Peeked, Published, Redriven, SettleResult, TopicInfo
from wakeq._portal import OnPortal
from wakeq._sync_consumer import SyncConsumer


class Client(OnPortal):
    """A connection to one queue server for programs without an event loop; any number of threads may use it.

    Use it as a context manager, or `close` it. Its thread starts with the first call. What its methods do is described
    at those of `AsyncClient`.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        token: str | None = None,
        timeout: float = 10.0,
        retry_s: float = 60.0,
        consumer: str | None = None,
        transport: Transport = None,
        propagator: Callable[[], Mapping[str, str]] | None = None,
    ) -> None:
        """As `AsyncClient`."""
        self._client = AsyncClient(
            base_url,
            token=token,
            timeout=timeout,
            retry_s=retry_s,
            consumer=consumer,
            transport=transport,
            propagator=propagator,
        )
        super().__init__(self._client)

    def publish(
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
        """See `AsyncClient.publish`."""
        return self._call(
            self._client.publish,
            topic,
            body,
            delay_s=delay_s,
            ttl_s=ttl_s,
            key=key,
            headers=headers,
            idempotency_key=idempotency_key,
        )

    def publish_many(
        self,
        topic: str,
        bodies: Iterable[Any],
        *,
        delay_s: float | None = None,
        ttl_s: float | None = None,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Published:
        """See `AsyncClient.publish_many`."""
        return self._call(
            self._client.publish_many,
            topic,
            bodies,
            delay_s=delay_s,
            ttl_s=ttl_s,
            key=key,
            headers=headers,
            idempotency_key=idempotency_key,
        )

    def claim(
        self,
        topic: str,
        *,
        max: int = 1,  # noqa: A002  the protocol's word
        wait_s: float = 0.0,
        lease_s: float | None = None,
        group: str | None = None,
    ) -> list[SyncDelivery]:
        """See `AsyncClient.claim`."""
        claimed = self._call(self._client.claim, topic, max=max, wait_s=wait_s, lease_s=lease_s, group=group)
        return [SyncDelivery(self, delivery) for delivery in claimed]

    def consume(
        self,
        topic: str,
        *,
        group: str | None = None,
        prefetch: int = 32,
        lease_s: float = 30.0,
        grace_s: float | None = None,
    ) -> SyncConsumer:
        """See `AsyncClient.consume`."""

        async def made() -> Consumer:
            return self._client.consume(topic, group=group, prefetch=prefetch, lease_s=lease_s, grace_s=grace_s)

        return SyncConsumer(self, self._call(made))

    def settle(
        self,
        topic: str,
        *,
        ack: Sequence[str] = (),
        nack: Sequence[Nack] = (),
        extend: Sequence[tuple[str, float | None]] = (),
        dead: Sequence[Dead] = (),
        release: Sequence[str] = (),
    ) -> list[SettleResult]:
        """See `AsyncClient.settle`."""
        return self._call(self._client.settle, topic, ack=ack, nack=nack, extend=extend, dead=dead, release=release)

    def create_topic(self, topic: str, **config: Any) -> TopicInfo:
        """See `AsyncClient.create_topic`."""
        return self._call(self._client.create_topic, topic, **config)

    def configure_topic(self, topic: str, **changes: Any) -> TopicInfo:
        """See `AsyncClient.configure_topic`."""
        return self._call(self._client.configure_topic, topic, **changes)

    def topic(self, topic: str) -> TopicInfo:
        """See `AsyncClient.topic`."""
        return self._call(self._client.topic, topic)

    def topics(self, *, after: str = "") -> Iterator[TopicInfo]:
        """See `AsyncClient.topics`."""
        behind: str | None = after
        while behind is not None:
            page, behind = self._call(self._client._topics_from, behind)
            yield from page

    def delete_topic(self, topic: str) -> None:
        """See `AsyncClient.delete_topic`."""
        self._call(self._client.delete_topic, topic)

    def pause(self, topic: str) -> TopicInfo:
        """See `AsyncClient.pause`."""
        return self._call(self._client.pause, topic)

    def resume(self, topic: str) -> TopicInfo:
        """See `AsyncClient.resume`."""
        return self._call(self._client.resume, topic)

    def peek(
        self,
        topic: str,
        *,
        state: Literal["ready", "delayed", "leased", "dead"] = "ready",
        group: str | None = None,
        after: int = 0,
        limit: int = 20,
    ) -> list[Peeked]:
        """See `AsyncClient.peek`."""
        return self._call(self._client.peek, topic, state=state, group=group, after=after, limit=limit)

    def purge(self, topic: str, *, group: str | None = None) -> int:
        """See `AsyncClient.purge`."""
        return self._call(self._client.purge, topic, group=group)

    def redrive(self, topic: str, *, group: str | None = None, max: int | None = None) -> Redriven:  # noqa: A002
        """See `AsyncClient.redrive`."""
        return self._call(self._client.redrive, topic, group=group, max=max)

    def put_group(self, topic: str, group: str) -> GroupInfo:
        """See `AsyncClient.put_group`."""
        return self._call(self._client.put_group, topic, group)

    def group(self, topic: str, group: str) -> GroupInfo:
        """See `AsyncClient.group`."""
        return self._call(self._client.group, topic, group)

    def delete_group(self, topic: str, group: str) -> None:
        """See `AsyncClient.delete_group`."""
        self._call(self._client.delete_group, topic, group)
