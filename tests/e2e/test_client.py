"""wakeq.AsyncClient on real servers, on asyncio and on trio."""

import itertools
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import orjson
import pytest

import wakeq
from tests.support import stream_proxy as proxy
from tests.support.server import ServerProcess, start_server

pytestmark = pytest.mark.anyio

PATIENCE_S = 20.0


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with start_server(tmp_path_factory.mktemp("data"), durability="os") as server:
        yield server


@pytest.fixture
async def client(server: ServerProcess) -> AsyncIterator[wakeq.AsyncClient]:
    async with wakeq.AsyncClient(server.url) as client:
        yield client


async def next_of(consumer: wakeq.Consumer) -> wakeq.Delivery:
    with anyio.fail_after(PATIENCE_S):
        return await anext(consumer)


async def test_what_is_published_is_claimed(client: wakeq.AsyncClient, request: pytest.FixtureRequest) -> None:
    topic = f"{request.node.name} ü?&%#"
    await client.create_topic(topic, lease_s=100)
    published = await client.publish(topic, {"ü": [1, None]})
    assert published.first_seq == published.last_seq
    (delivery,) = await client.claim(topic)
    assert (delivery.topic, delivery.seq, delivery.body) == (topic, published.first_seq, {"ü": [1, None]})
    assert (delivery.attempt, delivery.content_type, delivery.headers) == (1, None, {})
    left = delivery.lease_expires_at - delivery.published_at
    assert timedelta(0) <= left - timedelta(seconds=100) < timedelta(seconds=20)
    assert delivery.published_at.tzinfo == UTC
    await delivery.ack()
    assert await client.claim(topic) == []


@pytest.fixture
async def queue(client: wakeq.AsyncClient, request: pytest.FixtureRequest) -> tuple[wakeq.AsyncClient, str]:
    """A client, and a topic for one test."""
    name = request.node.name
    await client.create_topic(name, lease_s=500, retry_backoff_s={"min": 0, "max": 0})
    return client, name


Queue = tuple[wakeq.AsyncClient, str]


async def test_a_batch_is_published_in_order(queue: Queue) -> None:
    client, topic = queue
    published = await client.publish_many(topic, (n for n in range(300)))
    assert published.last_seq - published.first_seq == 299
    assert [d.body for d in await client.claim(topic, max=1_000)] == list(range(300))


async def test_bytes_go_to_an_any_topic_and_come_back(queue: Queue) -> None:
    client, topic = queue
    await client.create_topic(topic, schema="any")
    await client.publish(topic, b"\x00\xff")
    (delivery,) = await client.claim(topic)
    assert (delivery.body, delivery.content_type) == (b"\x00\xff", "application/octet-stream")


async def test_what_a_publish_says_of_its_message_is_handed_over(queue: Queue) -> None:
    client, topic = queue
    headers = {"Tenant": "ü", "traceparent": "00-1-2-3"}
    await client.publish(topic, 1, key="größe", headers=headers, idempotency_key="a b")
    (claimed,) = await client.claim(topic)
    assert (claimed.id, claimed.key) == ("a b", "größe")
    assert claimed.headers == {"tenant": "ü", "traceparent": "00-1-2-3"}
    await client.publish(topic, 2, headers={"n": ""})
    async with client.consume(topic) as consumer:
        streamed = await next_of(consumer)
    assert (streamed.key, streamed.headers) == (None, {"n": ""})
    # What every publish has that wasn't given one.
    assert streamed.id is not None
    assert len(streamed.id) == 32


async def test_a_publish_that_comes_again_enqueues_nothing(queue: Queue) -> None:
    client, topic = queue
    first = await client.publish(topic, 1, idempotency_key="k")
    assert await client.publish(topic, 1, idempotency_key="k") == first
    with pytest.raises(wakeq.IdempotencyConflict):
        await client.publish(topic, 2, idempotency_key="k")
    assert [d.body for d in await client.claim(topic, max=9)] == [1]


async def test_a_delayed_publish_is_delivered_when_its_delay_is_over(queue: Queue) -> None:
    client, topic = queue
    await client.publish(topic, "late", delay_s=0.3, ttl_s=500)
    assert await client.claim(topic) == []
    assert [d.body for d in await client.claim(topic, wait_s=20)] == ["late"]


async def test_a_group_has_deliveries_of_its_own(queue: Queue) -> None:
    client, topic = queue
    await client.put_group(topic, "audit")
    await client.publish(topic, 1)
    for group in (None, "audit"):
        (delivery,) = await client.claim(topic, group=group)
        await delivery.ack()
    await client.publish(topic, 2)
    async with client.consume(topic, group="audit") as consumer:
        assert (await next_of(consumer)).body == 2


@pytest.mark.parametrize("name", [".", "..", "a.b", "a%2Fb", "?#;"])
async def test_any_name_is_one_segment_of_a_path(client: wakeq.AsyncClient, name: str) -> None:
    await client.create_topic(name)
    assert (await client.topic(name)).name == name
    await client.put_group(name, name)
    await client.publish(name, 1)
    assert [d.body for d in await client.claim(name, group=name)] == [1]
    await client.delete_topic(name)


async def test_a_parked_claim_wakes(queue: Queue) -> None:
    client, topic = queue
    async with anyio.create_task_group() as tasks:
        with anyio.fail_after(PATIENCE_S):
            tasks.start_soon(client.publish, topic, "hello")
            deliveries = await client.claim(topic, wait_s=50, lease_s=5, group="default")
    assert [d.body for d in deliveries] == ["hello"]


async def test_a_claim_may_wait_longer_than_the_clients_own_timeout(server: ServerProcess, queue: Queue) -> None:
    _, topic = queue
    async with wakeq.AsyncClient(server.url, timeout=0.3) as hasty:
        assert await hasty.claim(topic, wait_s=0.6) == []


async def test_a_client_says_who_it_is(server: ServerProcess, queue: Queue) -> None:
    _, topic = queue
    async with (
        wakeq.AsyncClient(server.url) as first,
        wakeq.AsyncClient(server.url) as second,
        wakeq.AsyncClient(server.url, consumer="worker ü") as named,
    ):
        # Answered from one queue at a time, whose consumers are then in their grace.
        for client in (first, second, named):
            await client.claim(topic, wait_s=0.01)
            await client.claim(topic, wait_s=0.01)
        answer = await anyio.to_thread.run_sync(httpx.get, f"{server.url}/topics/{topic}/consumers")
        one, other, last = [consumer["id"] for consumer in answer.json()["consumers"]]
    host_and_process = f"{socket.gethostname()}:{os.getpid()}:"
    assert one.startswith(host_and_process)
    assert other.startswith(host_and_process)
    assert one != other
    assert last == "worker ü"


@pytest.mark.parametrize("consumer", ["", "x" * 256, "a\nb", " a"])
async def test_a_name_that_is_none_is_refused(consumer: str) -> None:
    with pytest.raises(ValueError, match="consumer: must have 1 to 255 characters"):
        wakeq.AsyncClient(consumer=consumer)


async def test_a_settle_never_waits_for_parked_claims(queue: Queue) -> None:
    client, topic = queue
    await client.publish(topic, 1)
    (delivery,) = await client.claim(topic)
    async with anyio.create_task_group() as tasks:
        # httpx gives a client a hundred connections.
        for _ in range(101):
            tasks.start_soon(_claim_parked, client, topic)
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(PATIENCE_S):
            await delivery.ack()
        tasks.cancel_scope.cancel()


async def _claim_parked(client: wakeq.AsyncClient, topic: str) -> None:
    await client.claim(topic, wait_s=50)


async def test_settle_tells_the_fate_of_each_lease(queue: Queue) -> None:
    client, topic = queue
    await client.publish_many(topic, range(5))
    a, b, c, d, e = [delivery.lease_id for delivery in await client.claim(topic, max=5)]
    results = await client.settle(
        topic,
        ack=[a, "nonsense"],
        nack=[wakeq.Nack(b), wakeq.Nack(c, 500), wakeq.Nack(a)],
        extend=[(d, None), (d, 9)],
        release=[e, a],
    )
    assert [(r.lease_id, r.status) for r in results] == [
        (a, "ok"), ("nonsense", "unknown"), (b, "ok"), (c, "ok"), (a, "stale"), (d, "ok"), (d, "ok"),
        (e, "ok"), (a, "stale"),
    ]  # fmt: skip
    assert [(r.body, r.attempt) for r in await client.claim(topic, max=9)] == [(1, 2), (4, 1)]


async def test_what_is_released_counts_no_attempt(queue: Queue) -> None:
    client, topic = queue
    await client.configure_topic(topic, max_deliveries=1)
    await client.publish(topic, 1)
    for _ in range(2):
        (claimed,) = await client.claim(topic)
        await claimed.release()
        assert (claimed.attempt, claimed.settled) == (1, True)
        async with client.consume(topic) as consumer:
            consumed = await next_of(consumer)
        # Not before, since the same consumer would have it again at once.
        await consumed.release()
        assert (consumed.attempt, consumed.settled) == (1, True)
    with pytest.raises(wakeq.LeaseLost):
        await consumed.ack()
    assert [delivery.attempt for delivery in await client.claim(topic)] == [1]


class Watched(httpx.AsyncHTTPTransport):
    """A transport that notes when streams end, and what is released."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/settle"):
            self.seen += orjson.loads(await request.aread()).get("release", [])
        response = await super().handle_async_request(request)
        if "event-stream" in response.headers["content-type"]:
            close = response.aclose

            async def aclose() -> None:
                try:
                    await close()
                finally:
                    self.seen.append("closed")

            response.aclose = aclose  # type: ignore[method-assign]
        return response


@pytest.mark.parametrize("closed", [False, True])
async def test_the_server_sees_a_stream_end_before_its_messages_are_released(
    queue: Queue, server: ServerProcess, closed: bool
) -> None:
    """Else it might send them there again, which would count."""
    client, topic = queue
    await client.publish_many(topic, range(3))
    transport = Watched()
    async with wakeq.AsyncClient(server.url, transport=transport) as watched:
        consumer = watched.consume(topic)
        first = await next_of(consumer)
        released = [delivery.lease_id for delivery in consumer._feed.ready]
        if closed:
            await consumer.aclose()
        else:
            consumer.stop()
        with anyio.fail_after(PATIENCE_S):
            assert [d.body for d in await client.claim(topic, max=9, wait_s=PATIENCE_S)] == [1, 2]
        assert transport.seen == ["closed", *released]
        assert len(released) == 2
        await first.ack()


class Reading(httpx.AsyncByteStream):
    """A stream that tells of each part before it hands it over."""

    def __init__(self, inner: Any, told: Callable[[bytes], None]) -> None:
        self._inner = inner
        self._told = told

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._inner:
            self._told(part)
            yield part

    async def aclose(self) -> None:
        await self._inner.aclose()


class Told(httpx.AsyncHTTPTransport):
    """A transport that tells of what streams bring."""

    told: Callable[[bytes], None]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if "event-stream" in response.headers["content-type"]:
            response.stream = Reading(response.stream, self.told)
        return response


async def test_what_was_being_read_when_a_consumer_stopped_is_released(queue: Queue, server: ServerProcess) -> None:
    client, topic = queue
    transport = Told()
    async with wakeq.AsyncClient(server.url, transport=transport) as told:
        consumer = told.consume(topic, lease_s=600)
        transport.told = lambda part: consumer.stop() if b"event: message" in part else None
        await client.publish(topic, 1)
        with anyio.fail_after(PATIENCE_S):
            assert await anext(consumer, None) is None
            (delivery,) = await client.claim(topic, wait_s=PATIENCE_S)
        assert delivery.attempt == 1


async def test_what_a_consumer_had_not_reached_counts_no_attempt_however_often_it_is_started(queue: Queue) -> None:
    client, topic = queue
    await client.configure_topic(topic, max_deliveries=2)
    await client.publish_many(topic, range(10))
    for number in range(5):
        async with client.consume(topic, lease_s=600) as consumer:
            delivery = await next_of(consumer)
            assert (delivery.body, delivery.attempt) == (number, 1)
            async with delivery:
                pass
    assert [(d.body, d.attempt) for d in await client.claim(topic, max=9)] == [(number, 1) for number in range(5, 10)]


async def test_a_lost_lease_is_an_error_of_its_own(queue: Queue) -> None:
    client, topic = queue
    await client.publish(topic, 1)
    (delivery,) = await client.claim(topic)
    await delivery.extend()
    await delivery.extend(5)
    await delivery.nack()
    await delivery.nack()
    for late in (delivery.ack, delivery.extend):
        with pytest.raises(wakeq.LeaseLost, match=delivery.lease_id) as lost:
            await late()
        assert (lost.value.code, lost.value.status) == ("", None)
    (again,) = await client.claim(topic)
    assert again.attempt == 2
    await again.ack()
    await again.ack()


async def test_a_consumer_is_given_what_comes(queue: Queue) -> None:
    client, topic = queue
    async with client.consume(topic, prefetch=2) as consumer:
        await client.publish_many(topic, range(5))
        for number in range(5):
            delivery = await next_of(consumer)
            assert (delivery.body, delivery.attempt) == (number, 1)
            await delivery.ack()
        await client.publish(topic, "more")
        async for delivery in consumer:
            assert delivery.body == "more"
            await delivery.nack()
            break
        again = await next_of(consumer)
        assert (again.body, again.attempt) == ("more", 2)
        await again.ack()
        assert consumer.streams


async def test_a_consumer_has_at_most_its_prefetch(queue: Queue) -> None:
    client, topic = queue
    await client.publish_many(topic, range(5))
    async with client.consume(topic, prefetch=2, lease_s=400) as consumer:
        first = await next_of(consumer)
        assert (await next_of(consumer)).body == 1
        assert [d.body for d in await client.claim(topic, max=9)] == [2, 3, 4]
        assert first.lease_expires_at - first.published_at > timedelta(seconds=399)


async def test_a_consumer_that_is_cancelled_can_go_on(queue: Queue) -> None:
    client, topic = queue
    async with client.consume(topic) as consumer:
        with anyio.move_on_after(0.05):
            await anext(consumer)
        await client.publish(topic, "late")
        assert (await next_of(consumer)).body == "late"


# Errors


class Refusal:
    """A call that is refused, and as what."""

    def __init__(self, error: type[wakeq.WakeqError], code: str, status: int, call: Callable[..., Any]) -> None:
        self.error, self.code, self.status, self.call = error, code, status, call


REFUSALS = {
    "unknown topic": Refusal(wakeq.TopicNotFound, "TOPIC_NOT_FOUND", 404, lambda c, t: c.publish("none", {})),
    "batch": Refusal(wakeq.TopicNotFound, "TOPIC_NOT_FOUND", 404, lambda c, t: c.publish_many("none", [1])),
    "claim": Refusal(wakeq.TopicNotFound, "TOPIC_NOT_FOUND", 404, lambda c, t: c.claim("none")),
    "settle": Refusal(wakeq.TopicNotFound, "TOPIC_NOT_FOUND", 404, lambda c, t: c.settle("none", ack=["x"])),
    "consume": Refusal(wakeq.TopicNotFound, "TOPIC_NOT_FOUND", 404, lambda c, t: anext(c.consume("none"))),
    "group": Refusal(wakeq.GroupNotFound, "GROUP_NOT_FOUND", 404, lambda c, t: c.claim(t, group="x")),
    "stream group": Refusal(wakeq.GroupNotFound, "GROUP_NOT_FOUND", 404, lambda c, t: anext(c.consume(t, group="x"))),
    "range": Refusal(wakeq.BadRequest, "BAD_REQUEST", 400, lambda c, t: c.claim(t, max=0)),
    "stream range": Refusal(wakeq.BadRequest, "BAD_REQUEST", 400, lambda c, t: anext(c.consume(t, prefetch=0))),
    "config": Refusal(wakeq.BadRequest, "BAD_REQUEST", 400, lambda c, t: c.create_topic(t, no_such_field=1)),
    "empty": Refusal(wakeq.BadRequest, "BAD_REQUEST", 400, lambda c, t: c.publish_many(t, [])),
    "large": Refusal(wakeq.MessageTooLarge, "MESSAGE_TOO_LARGE", 413, lambda c, t: c.publish(t, "x" * 2_000_000)),
    "type": Refusal(wakeq.UnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE", 415, lambda c, t: c.publish(t, b"bytes")),
    "ttl": Refusal(wakeq.BadRequest, "BAD_REQUEST", 400, lambda c, t: c.publish(t, 1, ttl_s=0)),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refusal_is_raised_by_its_class_with_code_and_status(queue: Queue, name: str) -> None:
    client, topic = queue
    refusal = REFUSALS[name]
    with pytest.raises(refusal.error) as raised:
        await refusal.call(client, topic)
    assert type(raised.value) is refusal.error
    assert (raised.value.code, raised.value.status) == (refusal.code, refusal.status)
    assert raised.value.detail == str(raised.value) != ""


async def test_a_full_topic_says_when_to_come_again(queue: Queue) -> None:
    client, topic = queue
    await client.create_topic(topic, max_messages=1)
    await client.publish(topic, 1)
    refusals: list[wakeq.TopicFull] = []

    async def publish(body: int) -> None:
        with pytest.raises(wakeq.TopicFull) as full:
            await client.publish(topic, body)
        refusals.append(full.value)

    async with anyio.create_task_group() as tasks:
        # The first goes alone, and the others share a request.
        for body in range(3):
            tasks.start_soon(publish, body)
    assert [refusal.retry_after_s for refusal in refusals] == [1.0, 1.0, 1.0]


async def test_an_invalid_message_says_what_is_wrong(queue: Queue) -> None:
    client, topic = queue
    await client.create_topic(topic, schema="queue_message")
    for publish in (client.publish(topic, {"data": 1}), client.publish_many(topic, [{}, {"data": 1}])):
        with pytest.raises(wakeq.InvalidMessage) as invalid:
            await publish
        assert (invalid.value.code, invalid.value.status) == ("INVALID_MESSAGE", 422)


async def test_a_server_that_is_not_there(unused_tcp_url: str) -> None:
    async with wakeq.AsyncClient(unused_tcp_url, retry_s=0) as client:
        for call in (client.publish("t", 1), client.claim("t"), client.settle("t", ack=["x"])):
            with pytest.raises(wakeq.ServerUnavailable, match=r"127\.0\.0\.1") as raised:
                await call
            assert (raised.value.code, raised.value.status) == ("", None)


@pytest.fixture
def unused_tcp_url(free_tcp_port: int) -> str:
    return f"http://127.0.0.1:{free_tcp_port}"


async def test_the_url_is_the_environments_unless_one_is_given(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch, unused_tcp_url: str
) -> None:
    monkeypatch.setenv("WAKEQ_URL", server.url)
    async with wakeq.AsyncClient() as client:
        await client.create_topic("from-the-environment")
    async with wakeq.AsyncClient(unused_tcp_url) as client:
        with pytest.raises(wakeq.ServerUnavailable):
            await client.create_topic("t")


# What passes by itself


class Restarts:
    """A server on one port and one directory, again and again."""

    def __init__(self, data: Path, stack: ExitStack) -> None:
        self._data = data
        self._stack = stack
        self.server = stack.enter_context(start_server(data, durability="fsync"))

    async def kill(self) -> None:
        await anyio.to_thread.run_sync(self.server.kill)

    async def terminate(self) -> int:
        return await anyio.to_thread.run_sync(self.server.terminate)

    async def start(self) -> None:
        again = start_server(self._data, durability="fsync", port=self.server.port)
        self.server = await anyio.to_thread.run_sync(self._stack.enter_context, again)


@pytest.fixture
def restarts(tmp_path: Path) -> Iterator[Restarts]:
    with ExitStack() as stack:
        yield Restarts(tmp_path, stack)


async def test_a_consumer_survives_a_killed_server(restarts: Restarts) -> None:
    async with wakeq.AsyncClient(restarts.server.url) as client:
        await client.create_topic("t")
        async with client.consume("t", prefetch=10) as consumer:
            await client.publish_many("t", ["held", "acked"])
            held, acked = await next_of(consumer), await next_of(consumer)
            await acked.ack()
            # Which is answered when it is on disk.
            await held.extend(60)
            await restarts.kill()
            await restarts.start()
            await client.publish("t", "after")
            assert (await next_of(consumer)).body == "after"
            await held.ack()
            assert consumer.streams


async def test_a_consumer_survives_a_drain(restarts: Restarts) -> None:
    async with wakeq.AsyncClient(restarts.server.url) as client:
        await client.create_topic("t")
        async with client.consume("t") as consumer, anyio.create_task_group() as tasks:
            await client.publish("t", "before")
            await (await next_of(consumer)).ack()
            found: list[Any] = []

            async def take() -> None:
                found.append((await next_of(consumer)).body)

            tasks.start_soon(take)
            assert await restarts.terminate() == 0
            await restarts.start()
            await client.publish("t", "after")
        assert found == ["after"]


@pytest.fixture
def between(server: ServerProcess, request: pytest.FixtureRequest) -> Iterator[proxy.Proxy]:
    """A proxy that treats streams as the test says, one after the other and the last for ever."""
    *first, last = request.param
    answers = itertools.chain(first, itertools.repeat(last))
    with proxy.proxy(server.port, lambda handler: next(answers)(handler)) as between:
        yield between


def seen(between: proxy.Proxy) -> list[str]:
    return [between.seen.get_nowait() for _ in range(between.seen.qsize())]


@pytest.mark.parametrize("between", [[proxy.silent], [proxy.head_only], [proxy.another_type]], indirect=True)
async def test_where_streams_are_held_back_messages_are_claimed(
    between: proxy.Proxy, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wakeq._feed.FIRST_BYTE_S", 0.1)
    # The proxy's end waits for the last one.
    monkeypatch.setattr("wakeq._feed.POLL_WAIT_S", 0.3)
    direct, topic = queue
    async with wakeq.AsyncClient(between.url) as client, client.consume(topic, prefetch=2) as consumer:
        await direct.publish_many(topic, range(3))
        for number in range(3):
            delivery = await next_of(consumer)
            assert (delivery.body, delivery.attempt) == (number, 1)
            await delivery.ack()
        assert not consumer.streams
    requests = seen(between)
    assert requests[:2] == ["stream", "claim"]
    assert requests.count("stream") == 1


ONCE = [[proxy.ends_at_once, proxy.another_type], [proxy.unavailable, proxy.another_type]]


@pytest.mark.parametrize("between", ONCE, indirect=True)
async def test_a_stream_that_fails_at_first_is_opened_again(between: proxy.Proxy, queue: Queue) -> None:
    direct, topic = queue
    async with wakeq.AsyncClient(between.url) as client, client.consume(topic) as consumer:
        await direct.publish(topic, "hello")
        assert (await next_of(consumer)).body == "hello"
    # It may have claimed again before it was closed.
    assert seen(between)[:3] == ["stream", "stream", "claim"]
