"""Connections that break, stall or are spoken through a proxy, seen from the client."""

from collections.abc import Iterator
from typing import Any

import anyio
import pytest

import wakeq
from tests.support.line import Break, How, Line, line_to
from tests.support.relay import relay
from tests.support.server import ServerProcess, start_server

pytestmark = pytest.mark.anyio

PATIENCE_S = 30.0


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with start_server(tmp_path_factory.mktemp("data"), durability="os") as server:
        yield server


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    name: str = request.node.name
    return name


@pytest.fixture
def line(server: ServerProcess) -> Iterator[Line]:
    with line_to(server) as line:
        yield line


async def take(deliveries: wakeq.Consumer, count: int) -> list[tuple[Any, int]]:
    found = []
    with anyio.fail_after(PATIENCE_S):
        async for delivery in deliveries:
            async with delivery:
                found.append((delivery.body, delivery.attempt))
            if len(found) == count:
                break
    return found


async def test_a_lost_connection_costs_no_lease(server: ServerProcess, topic: str) -> None:
    async with relay(server.port) as between, wakeq.AsyncClient(between.url) as client:
        await client.create_topic(topic, schema="json")
        await client.publish_many(topic, range(3))
        # Longer than the grace, in which a server leaves what a broken stream had out.
        async with client.consume(topic, lease_s=600, prefetch=3) as deliveries:
            async with await anext(deliveries):
                between.cut()
                with anyio.move_on_after(6):
                    assert await client.claim(topic, wait_s=10) == []
                await client.publish(topic, 3)
            assert await take(deliveries, 3) == [(1, 1), (2, 1), (3, 1)]
        assert (await client.topic(topic)).messages == 0


async def test_a_silent_connection_is_dropped(
    server: ServerProcess, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wakeq._feed.SILENCE_S", 0.5)
    async with relay(server.port) as between, wakeq.AsyncClient(between.url, timeout=1.0) as client:
        await client.create_topic(topic, schema="json")
        async with client.consume(topic, prefetch=3) as deliveries:
            await client.publish(topic, "before")
            assert await take(deliveries, 1) == [("before", 1)]
            # From here on no claim makes a connection, unless a stream that was dropped has taken the one that is kept.
            await client.claim(topic)
            made = between.connections
            with anyio.fail_after(PATIENCE_S):
                while between.connections == made:
                    await client.claim(topic, wait_s=0.3)


async def test_a_publish_whose_answer_is_lost_enqueues_once(server: ServerProcess, topic: str) -> None:
    async with wakeq.AsyncClient(server.url) as direct, relay(server.port) as between:
        await direct.create_topic(topic, schema="json")
        async with wakeq.AsyncClient(between.url, timeout=0.5) as client, anyio.create_task_group() as tasks:
            await client.publish(topic, 0)
            published: list[wakeq.Published] = []

            async def publish(number: int) -> None:
                published.append(await client.publish(topic, number))

            between.lose_answers = True
            for number in range(1, 6):
                tasks.start_soon(publish, number)
            with anyio.fail_after(PATIENCE_S):
                await between.lost.wait()
            between.lose_answers = False
        assert sorted(delivery.body for delivery in await direct.claim(topic, max=100)) == list(range(6))
        assert len(published) == 5


async def test_publishes_that_shared_a_request_whose_answer_is_lost_are_enqueued_once(
    server: ServerProcess, topic: str
) -> None:
    published: dict[int, int] = {}
    async with wakeq.AsyncClient(server.url) as direct, relay(server.port) as between:
        await direct.create_topic(topic, schema="json")
        async with wakeq.AsyncClient(between.url, timeout=0.5) as client:

            async def publish(number: int) -> None:
                published[number] = (await client.publish(topic, number)).first_seq

            async def publish_all(numbers: range) -> None:
                async with anyio.create_task_group() as tasks:
                    for number in numbers:
                        tasks.start_soon(publish, number)

            # Who has just shared a request waits for others.
            await publish_all(range(5))
            between.lose_answers = True
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(publish_all, range(5, 10))
                with anyio.fail_after(PATIENCE_S):
                    await between.lost.wait()
                between.lose_answers = False
        claimed = await direct.claim(topic, max=100)
    assert {delivery.body: delivery.seq for delivery in claimed} == published
    assert sorted(published) == list(range(10))
    assert len({delivery.id for delivery in claimed}) == len(claimed) == 10


async def test_a_publish_is_not_repeated_when_the_topic_may_have_forgotten_its_key(
    server: ServerProcess, topic: str
) -> None:
    async with wakeq.AsyncClient(server.url) as direct, relay(server.port) as between:
        await direct.create_topic(topic, schema="json", dedup_window_s=1)
        async with wakeq.AsyncClient(between.url, timeout=1.0) as client, anyio.create_task_group() as tasks:
            between.lose_answers = True

            async def publish() -> None:
                with pytest.raises(wakeq.ServerUnavailable, match="deduplication window"):
                    await client.publish(topic, 1)

            tasks.start_soon(publish)
            with anyio.fail_after(PATIENCE_S):
                await between.lost.wait()
            between.lose_answers = False
        assert len(await direct.claim(topic, max=100)) == 1


# Not stalled: the server's end of such a line looks alive, and has its share of the messages.
@pytest.mark.slow
@pytest.mark.parametrize("how", ["reset", "cut", "half"])
async def test_all_is_handled_on_a_line_that_breaks(
    server: ServerProcess, line: Line, topic: str, how: How, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wakeq._feed.SILENCE_S", 1.0)
    line.breaks.extend(Break(how, answered=answered) for answered in (1_500, 150, 2_500, 3_000))
    async with (
        wakeq.AsyncClient(server.url) as direct,
        wakeq.AsyncClient(line.url, timeout=1.0) as client,
    ):
        await direct.create_topic(topic, schema="json", max_deliveries=0)
        await direct.publish_many(topic, range(50))
        handled: set[int] = set()
        async with client.consume(topic, prefetch=5, lease_s=5) as deliveries:
            with anyio.fail_after(PATIENCE_S):
                async for delivery in deliveries:
                    async with delivery:
                        handled.add(delivery.body)
                    if len(handled) == 50:
                        break
        assert line.broken.qsize() >= 3
        info = await direct.topic(topic)
        assert (info.messages, handled) == (0, set(range(50)))


async def test_a_publish_on_a_line_that_stalls_enqueues_once(server: ServerProcess, line: Line, topic: str) -> None:
    line.breaks.extend(Break("stall", answered=answered) for answered in (50, 0))
    async with wakeq.AsyncClient(server.url) as direct, wakeq.AsyncClient(line.url, timeout=0.5) as client:
        await direct.create_topic(topic, schema="json")
        with anyio.fail_after(PATIENCE_S):
            published = await client.publish(topic, "once")
        (delivery,) = await direct.claim(topic, max=10)
        assert (delivery.seq, delivery.body) == (published.first_seq, "once")
