"""A producer and a worker whose server is restarted, killed and drained: what was promised holds all the while."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

import wakeq
from tests.support.server import start_server

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PATIENCE_S = 60.0
MESSAGES = 600


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


class Restarts:
    """A server on one port and one directory, again and again."""

    def __init__(self, data: Path, stack: ExitStack) -> None:
        self._data = data
        self._stack = stack
        self.server = stack.enter_context(start_server(data, durability="fsync"))

    async def kill(self) -> None:
        await anyio.to_thread.run_sync(self.server.kill)

    async def drain(self) -> None:
        assert await anyio.to_thread.run_sync(self.server.terminate) == 0

    async def start(self) -> None:
        again = start_server(self._data, durability="fsync", port=self.server.port)
        self.server = await anyio.to_thread.run_sync(self._stack.enter_context, again)


@pytest.fixture
def restarts(tmp_path: Path) -> Iterator[Restarts]:
    with ExitStack() as stack:
        yield Restarts(tmp_path, stack)


class Load:
    """Publishes numbers and handles them; notes what is seen of each."""

    def __init__(self, client: wakeq.AsyncClient) -> None:
        self._client = client
        self.published: dict[int, int] = {}
        """The seq of each number."""
        self.seqs: dict[int, set[int]] = {}
        """Under which seqs each number was delivered: two would be two messages."""
        self.handled: set[int] = set()
        self.running: set[int] = set()
        self.half = anyio.Event()
        self.done = anyio.Event()

    async def produce(self, numbers: range) -> None:
        for number in numbers:
            self.published[number] = (await self._client.publish("t", number)).first_seq
            if len(self.published) == MESSAGES // 2:
                self.half.set()

    async def work(self) -> None:
        async with self._client.consume("t", prefetch=16) as deliveries:
            async for delivery in deliveries:
                async with delivery:
                    self.running.add(delivery.body)
                    await anyio.lowlevel.checkpoint()
                    self.seqs.setdefault(delivery.body, set()).add(delivery.seq)
                    self.running.remove(delivery.body)
                    self.handled.add(delivery.body)
                if len(self.handled) == MESSAGES:
                    self.done.set()
                    return

    async def run(self, disturb: Any) -> None:
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                for worker in range(4):
                    tasks.start_soon(self.produce, range(worker, MESSAGES, 4))
                tasks.start_soon(self.work)
                tasks.start_soon(disturb, self)


@pytest.mark.parametrize("way", ["kill", "drain"])
async def test_every_message_is_handled_once_published_whatever_the_server_does(restarts: Restarts, way: str) -> None:
    async with wakeq.AsyncClient(restarts.server.url) as client:
        await client.create_topic("t", schema="json", max_deliveries=0)
        load = Load(client)

        async def disturb(load: Load) -> None:
            for _ in range(2):
                await (restarts.kill() if way == "kill" else restarts.drain())
                await restarts.start()
            await load.half.wait()
            await (restarts.kill() if way == "kill" else restarts.drain())
            await restarts.start()

        await load.run(disturb)
        assert load.handled == set(range(MESSAGES))
        # One message each, whatever was published again: under the seq that its publisher was told.
        assert load.seqs == {number: {seq} for number, seq in load.published.items()}
        info = await client.topic("t")
        assert (info.messages, info.groups["default"].dead) == (0, 0)


async def test_nothing_is_acked_before_its_handler_has_ended(restarts: Restarts) -> None:
    async with wakeq.AsyncClient(restarts.server.url) as client:
        await client.create_topic("t", schema="json", retry_backoff_s={"min": 0, "max": 0})
        await client.publish_many("t", range(3))
        async with client.consume("t", lease_s=60) as deliveries:
            first = await anext(deliveries)
            async with first:
                for _ in range(2):
                    await (await anext(deliveries)).ack()
                await restarts.kill()
                await restarts.start()
                assert (await client.topic("t")).messages == 1


async def test_leases_outlast_handlers_that_take_longer(restarts: Restarts) -> None:
    async with wakeq.AsyncClient(restarts.server.url) as client:
        await client.create_topic("t", schema="json")
        await client.publish_many("t", range(3))
        with anyio.fail_after(PATIENCE_S):
            async with client.consume("t", lease_s=1, prefetch=3) as deliveries:
                async with await anext(deliveries) as slow:
                    # Longer than its lease, and than those that wait here for their turn.
                    until = time.monotonic() + 2.5
                    while time.monotonic() < until:
                        assert await client.claim("t", wait_s=0.5) == []
                    assert slow.attempt == 1
                for _ in range(2):
                    async with await anext(deliveries) as waited:
                        assert waited.attempt == 1
        assert (await client.topic("t")).messages == 0


async def test_what_a_cancelled_consumer_had_comes_back_at_once(restarts: Restarts) -> None:
    url = restarts.server.url
    async with wakeq.AsyncClient(url) as other:
        await other.create_topic("t", schema="json")
        await other.publish_many("t", range(5))
        in_hand = anyio.Event()

        async def consume() -> None:
            async with wakeq.AsyncClient(url) as client:
                async for delivery in client.consume("t", lease_s=600):
                    async with delivery:
                        in_hand.set()
                        await anyio.sleep_forever()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume)
            await in_hand.wait()
            tasks.cancel_scope.cancel()
        # Not when their grace or their lease is over: they are there already.
        again = await other.claim("t", max=10)
        # It had begun with the first alone.
        attempts = sorted((delivery.body, delivery.attempt) for delivery in again)
        assert attempts == [(0, 2), (1, 1), (2, 1), (3, 1), (4, 1)]


async def test_a_loop_that_is_left_gives_back_what_it_had_not_reached(restarts: Restarts) -> None:
    async with wakeq.AsyncClient(restarts.server.url) as client:
        await client.create_topic("t", schema="json")
        await client.publish_many("t", range(5))
        async for delivery in client.consume("t", lease_s=600):
            async with delivery:
                break
        with anyio.fail_after(PATIENCE_S):
            seen: list[tuple[int, int]] = []
            while len(seen) < 4:
                claimed = await client.claim("t", max=10, wait_s=20)
                seen += [(delivery.body, delivery.attempt) for delivery in claimed]
        assert sorted(seen) == [(1, 1), (2, 1), (3, 1), (4, 1)]


async def test_a_hundred_publishes_at_once_are_a_few_requests(restarts: Restarts) -> None:
    async with wakeq.AsyncClient(restarts.server.url) as client:
        await client.create_topic("t", schema="json", max_message_bytes=10)
        outcomes: dict[int, Any] = {}

        async def publish(number: int) -> None:
            try:
                body = "far too large" if number == 50 else number
                outcomes[number] = await client.publish("t", body, headers={"N": str(number)})
            except wakeq.MessageTooLarge as error:
                outcomes[number] = error

        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(publish, number)
        assert isinstance(outcomes[50], wakeq.MessageTooLarge)
        assert (outcomes[50].status, outcomes[50].detail[:12]) == (413, "the message ")
        by_seq = {delivery.seq: delivery for delivery in await client.claim("t", max=200)}
        del outcomes[50]
        assert {n: (by_seq[p.first_seq].body, by_seq[p.first_seq].headers) for n, p in outcomes.items()} == {
            n: (n, {"n": str(n)}) for n in outcomes
        }
        assert len(by_seq) == 99
