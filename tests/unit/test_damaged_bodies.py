"""Messages whose stored bodies are not what was published."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import pytest

from tests.support.stores import KeepingStore
from wakeq_server.core.model import DEFAULT_GROUP, Message, NewMessage, TopicConfig
from wakeq_server.engine.clocks import Clocks
from wakeq_server.engine.embedded import EmbeddedEngine, open_engine

pytestmark = pytest.mark.anyio

T = TypeVar("T")


@pytest.fixture
def anyio_backend() -> str:
    return "trio"


class Disk(KeepingStore):
    """Has some bodies damaged."""

    def __init__(self) -> None:
        super().__init__()
        self.damaged: set[int] = set()

    def read_bodies(self, topic_id: int, first: int, last: int) -> list[Message]:
        rows = super().read_bodies(topic_id, first, last)
        return [Message(row.seq, None, 0, 0.0) if row.seq in self.damaged else row for row in rows]


async def at_once(call: Callable[[], T]) -> T:
    """An `Offload` without a thread."""
    return call()


@asynccontextmanager
async def an_engine(disk: Disk) -> AsyncIterator[EmbeddedEngine]:
    """An engine that keeps no body in memory, with messages 1 to 3 in a topic."""
    clocks = Clocks(lambda: 1000.0, lambda: 0.0)
    async with open_engine(disk, clocks, memory_budget=0, writing=at_once, reading=at_once) as engine:
        await engine.create_topic("t", TopicConfig())
        await engine.publish("t", [NewMessage(b"%d" % number) for number in (1, 2, 3)])
        yield engine


async def test_a_damaged_message_is_a_dead_letter_and_the_others_are_delivered() -> None:
    disk = Disk()
    disk.damaged = {2}
    async with an_engine(disk) as engine:
        deliveries = await (await engine.subscribe("t")).take(3, 0.0)
        assert [delivery.message.body for delivery in deliveries] == [b"1", b"3"]
        # What was given up rides along with this.
        await engine.publish("t", [NewMessage(b"4")])
        (dead,) = await engine.peek("t", DEFAULT_GROUP, "dead", 0, 10)
        assert (dead.message.seq, dead.message.body, dead.reason) == (2, None, "damaged in the store")


async def test_whoever_waits_is_not_woken_with_nothing() -> None:
    disk = Disk()
    disk.damaged = {1, 2, 3}
    async with an_engine(disk) as engine:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                found: list[bytes | None] = []

                async def take() -> None:
                    deliveries = await (await engine.subscribe("t")).take(3, 10.0)
                    found.extend(delivery.message.body for delivery in deliveries)

                tasks.start_soon(take)
                await anyio.wait_all_tasks_blocked()
                assert engine.parked() == 1
                await engine.publish("t", [NewMessage(b"4")])
        assert found == [b"4"]
