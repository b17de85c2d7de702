"""What has ended is freed at once: the server looks for cycles among what is old so seldom that they would pile up."""

import gc
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from tests.support.clock import standing_trio
from wakeq_server.core.model import Message, NewMessage, Record, Settle, TopicConfig
from wakeq_server.core.topic import Topic
from wakeq_server.engine.clocks import Clocks
from wakeq_server.engine.embedded import EmbeddedEngine, open_engine
from wakeq_server.engine.parking import Parked
from wakeq_server.errors import QueueError, StorageFull, TopicFull, TopicNotFound, fresh
from wakeq_server.store.memory import MemoryStore

pytestmark = pytest.mark.anyio


class Given(list[NewMessage]):
    """Messages that a caller has, of which it can be seen whether anybody keeps them."""


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return standing_trio()


@pytest.fixture(autouse=True)
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@asynccontextmanager
async def an_engine(**config: Any) -> AsyncIterator[EmbeddedEngine]:
    async with open_engine(MemoryStore(1), Clocks(lambda: 0.0, anyio.current_time)) as engine:
        await engine.create_topic("t", TopicConfig(**config))
        yield engine


def alive(kind: type) -> int:
    return sum(type(one) is kind for one in gc.get_objects())


async def refused_in_part(engine: EmbeddedEngine) -> weakref.ref[Given]:
    given = Given([NewMessage(b"1", id="a"), NewMessage(b"2", id="a"), NewMessage(b"3", id="b")])
    results = await engine.publish_each("t", given)
    assert [isinstance(result, QueueError) for result in results] == [False, True, True]
    return weakref.ref(given)


async def test_a_batch_of_which_some_are_refused() -> None:
    async with an_engine(max_messages=1) as engine:
        assert (await refused_in_part(engine))() is None


async def held(engine: EmbeddedEngine, note: Callable[[weakref.ref[Given]], None]) -> None:
    given = Given([NewMessage(b"1")])
    note(weakref.ref(given))
    await engine.publish("t", given, hold_s=30.0)


async def test_publishes_that_were_held() -> None:
    kept: list[weakref.ref[Given]] = []
    async with an_engine(max_messages=1) as engine:
        await engine.publish("t", [NewMessage(b"0")])
        subscription = await engine.subscribe("t")
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(held, engine, kept.append)
            for _ in range(4):
                await wait_all_tasks_blocked()
                (delivery,) = await subscription.take(1, 0)
                await engine.settle("t", [Settle("ack", delivery.lease.encode())])
    assert [one() for one in kept] == [None] * 3


class FullDisk(MemoryStore):
    """Takes nothing more, once it is full."""

    durable = True
    is_full = False

    def commit(self, transactions: Iterable[Iterable[Record]]) -> None:
        if self.is_full:
            raise StorageFull


async def refused_by_the_disk(engine: EmbeddedEngine, note: Callable[[weakref.ref[Given]], None]) -> None:
    given = Given([NewMessage(b"1")])
    note(weakref.ref(given))
    with pytest.raises(StorageFull):
        await engine.publish("t", given)


# The writer's thread tells an event loop of asyncio's.
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_publishes_for_which_the_disk_has_no_room() -> None:
    kept: list[weakref.ref[Given]] = []
    store = FullDisk(1)
    async with open_engine(store, Clocks(lambda: 0.0, lambda: 0.0)) as engine:
        await engine.create_topic("t", TopicConfig())
        store.is_full = True
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(refused_by_the_disk, engine, kept.append)
        store.is_full = False
        assert [one() for one in kept] == [None] * 3


def test_a_fresh_error_says_the_same() -> None:
    error = TopicFull("no room", retry_after_s=1)
    twin = fresh(error)
    assert twin is not error
    assert (type(twin), twin.args, twin.detail, twin.retry_after_s) == (TopicFull, error.args, "no room", 1)


async def waits(engine: EmbeddedEngine) -> None:
    subscription = await engine.subscribe("t")
    with pytest.raises(TopicNotFound):
        await subscription.take(1, 30.0, anyio.sleep_forever)


async def test_who_was_parked_when_the_topic_went() -> None:
    async with an_engine() as engine:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(waits, engine)
            await wait_all_tasks_blocked()
            assert alive(Parked) == 3
            await engine.delete_topic("t")
        assert alive(Parked) == 0


async def test_messages_and_keys_of_a_topic_that_went() -> None:
    async with an_engine() as engine:
        before = alive(Message)
        await engine.publish("t", [NewMessage(b"x")] * 5, key="k")
        subscription = await engine.subscribe("t")
        await subscription.take(1, 0)
        assert alive(Message) - before >= 5
        await engine.delete_topic("t")
        assert alive(Message) <= before
        topics = [one for one in gc.get_objects() if type(one) is Topic]
        assert [(one.messages, one.dedup) for one in topics] == [({}, None)] * len(topics)
        assert engine.core.memory_used == 0
