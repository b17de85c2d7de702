"""What happens to messages while their bodies are being read from the store."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import pytest

from tests.support.clock import jump_clock, standing_trio
from tests.support.stores import KeepingStore
from wakeq_server.core.model import DEFAULT_GROUP, NewMessage, Settle, TopicConfig
from wakeq_server.engine.base import Subscription
from wakeq_server.engine.clocks import Clocks
from wakeq_server.engine.embedded import EmbeddedEngine, open_engine
from wakeq_server.errors import StorageFailed, TopicNotFound

pytestmark = pytest.mark.anyio

T = TypeVar("T")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return standing_trio()


class Desk:
    """Makes the store's calls, and lets one that is `held` wait until it is told to `go`."""

    def __init__(self) -> None:
        self.held = False
        self.go = anyio.Event()

    async def __call__(self, call: Callable[[], T]) -> T:
        if self.held:
            self.held = False
            await self.go.wait()
        return call()


@asynccontextmanager
async def an_engine(desk: Desk, store: KeepingStore) -> AsyncIterator[EmbeddedEngine]:
    """An engine that keeps no body in memory, with one message in a topic."""
    clocks = Clocks(lambda: 1000.0, lambda: 0.0)
    async with open_engine(store, clocks, memory_budget=0, writing=desk, reading=desk) as engine:
        await engine.create_topic("t", TopicConfig())
        await engine.publish("t", [NewMessage(b"1")])
        yield engine


async def bodies(subscription: Subscription) -> list[bytes | None]:
    return [delivery.message.body for delivery in await subscription.take(1, 0.0)]


async def test_a_message_that_is_acked_while_somebody_looks_is_not_shown() -> None:
    desk = Desk()
    async with an_engine(desk, KeepingStore()) as engine, anyio.create_task_group() as tasks:
        (delivery,) = await (await engine.subscribe("t")).take(1, 0.0)
        shown: list[object] = [None]

        async def look() -> None:
            shown[:] = await engine.peek("t", DEFAULT_GROUP, "leased", 0, 10)

        desk.held = True
        tasks.start_soon(look)
        await anyio.wait_all_tasks_blocked()
        await engine.settle("t", [Settle("ack", delivery.lease.encode())])
        assert shown == [None]
        desk.go.set()
        await anyio.wait_all_tasks_blocked()
        assert shown == []


async def test_a_lease_that_ends_while_its_body_is_read_is_not_handed_out() -> None:
    desk = Desk()
    async with an_engine(desk, KeepingStore()) as engine, anyio.create_task_group() as tasks:
        slow, quick = await engine.subscribe("t", lease_s=1.0), await engine.subscribe("t")
        found: list[object] = [None]

        async def take() -> None:
            found[:] = await bodies(slow)

        desk.held = True
        tasks.start_soon(take)
        await anyio.wait_all_tasks_blocked()
        jump_clock(2.0)
        await anyio.wait_all_tasks_blocked()
        assert await bodies(quick) == [b"1"]
        desk.go.set()
        await anyio.wait_all_tasks_blocked()
        assert found == []


async def test_who_waits_again_since_a_body_came_too_late_is_the_first_in_line() -> None:
    desk = Desk()
    async with an_engine(desk, KeepingStore()) as engine, anyio.create_task_group() as tasks:
        slow, late = await engine.subscribe("t", lease_s=1.0), await engine.subscribe("t")
        found: list[str] = []

        async def take(name: str, subscription: Subscription) -> None:
            await subscription.take(1, 60.0)
            found.append(name)

        desk.held = True
        tasks.start_soon(take, "slow", slow)
        await anyio.wait_all_tasks_blocked()
        jump_clock(2.0)
        await anyio.wait_all_tasks_blocked()
        assert await bodies(await engine.subscribe("t")) == [b"1"]
        tasks.start_soon(take, "late", late)
        await anyio.wait_all_tasks_blocked()
        desk.go.set()
        await anyio.wait_all_tasks_blocked()
        await engine.publish("t", [NewMessage(b"2")])
        await anyio.wait_all_tasks_blocked()
        assert found == ["slow"]
        tasks.cancel_scope.cancel()


async def test_a_topic_that_goes_while_a_body_is_read_is_not_found() -> None:
    desk = Desk()
    async with an_engine(desk, KeepingStore()) as engine, anyio.create_task_group() as tasks:
        subscription = await engine.subscribe("t")
        refused: list[type[Exception]] = []

        async def take() -> None:
            try:
                await subscription.take(1, 0.0)
            except TopicNotFound as error:
                refused.append(type(error))

        desk.held = True
        tasks.start_soon(take)
        await anyio.wait_all_tasks_blocked()
        await engine.delete_topic("t")
        desk.go.set()
        await anyio.wait_all_tasks_blocked()
        assert refused == [TopicNotFound]


async def test_a_body_that_is_not_there_gives_the_message_back() -> None:
    store = KeepingStore()
    async with an_engine(Desk(), store) as engine:
        subscription = await engine.subscribe("t")
        (kept,) = store.messages.values()
        store.messages.clear()
        with pytest.raises(StorageFailed, match="can't be read"):
            await subscription.take(1, 0.0)
        store.messages[1, 1] = kept
        assert await bodies(subscription) == [b"1"]
