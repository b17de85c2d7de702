"""Every interleaving of what can happen to parked consumers at one moment: a publish, the end of the wait, a hang-up,
a cancellation. Nothing is lost, nothing is handed to two, nobody stays parked beside a ready message."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
from anyio import wait_all_tasks_blocked

from tests.support.clock import jump_clock, standing_trio
from wakeq_server.core.model import DEFAULT_GROUP, NewMessage, TopicConfig
from wakeq_server.engine.clocks import Clocks
from wakeq_server.engine.embedded import EmbeddedEngine, open_engine
from wakeq_server.errors import ConsumerGone, Draining, TopicNotFound
from wakeq_server.store.memory import MemoryStore

pytestmark = pytest.mark.anyio

WAIT_S = 30.0
THINGS = ("publish", "timeout", "hang up", "cancel", "nothing")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return standing_trio()


async def stay() -> None:
    """A publish lets nobody run in between: what runs when is up to the test."""


@asynccontextmanager
async def an_engine() -> AsyncIterator[EmbeddedEngine]:
    async with open_engine(MemoryStore(1), Clocks(lambda: 0.0, lambda: 0.0, turn=stay)) as engine:
        await engine.create_topic("t", TopicConfig(lease_s=1000.0))
        yield engine


class Consumer:
    """Takes once, and remembers how that ended."""

    def __init__(self, engine: EmbeddedEngine, limit: int = 1) -> None:
        self.engine = engine
        self.limit = limit
        self.line_is_cut = anyio.Event()
        self.scope = anyio.CancelScope()
        self.got: list[int] = []
        self.ended = ""

    async def run(self) -> None:
        subscription = await self.engine.subscribe("t")
        with self.scope:
            try:
                deliveries = await subscription.take(self.limit, WAIT_S, self.line_is_cut.wait)
            except ConsumerGone:
                self.ended = "gone"
            except TopicNotFound:
                self.ended = "deleted"
            else:
                self.got = [delivery.message.seq for delivery in deliveries]
                self.ended = "got" if self.got else "empty"
        self.ended = self.ended or "cancelled"


async def happen(thing: str, engine: EmbeddedEngine, consumer: Consumer) -> None:
    if thing == "publish":
        await engine.publish("t", [NewMessage(b"x")])
    elif thing == "timeout":
        jump_clock(WAIT_S)
    elif thing == "hang up":
        consumer.line_is_cut.set()
    elif thing == "cancel":
        consumer.scope.cancel()


def check(engine: EmbeddedEngine, consumers: list[Consumer], published: int) -> None:
    group = engine.core.topic("t").groups[DEFAULT_GROUP]
    delivered = [seq for consumer in consumers for seq in consumer.got]
    assert len(delivered) == len(set(delivered)), "one message went to two"
    assert {seq for seq in group.open if group.lease_of(seq)} == set(delivered), "a lease without a consumer"
    assert group.ready == published - len(delivered), "a message was lost"
    still_parked = [consumer for consumer in consumers if not consumer.ended]
    assert engine.parked() == len(still_parked)
    assert not (still_parked and group.ready), "parked beside a ready message"
    assert all(len(consumer.got) <= consumer.limit for consumer in consumers)


def attempt_of(engine: EmbeddedEngine) -> int:
    lease = engine.core.topic("t").groups[DEFAULT_GROUP].lease_of(1)
    assert lease is not None
    return lease.attempt


@pytest.mark.parametrize("checkpoints", [0, 1, 3])
@pytest.mark.parametrize("things", list(itertools.product(THINGS, repeat=3)), ids="-".join)
async def test_any_three_things_to_two_consumers(things: tuple[str, ...], checkpoints: int) -> None:
    """The first thing happens to the consumer parked longest, the second to the other, the third to the first."""
    async with an_engine() as engine, anyio.create_task_group() as tasks:
        consumers = [Consumer(engine), Consumer(engine)]
        for consumer in consumers:
            tasks.start_soon(consumer.run)
            await wait_all_tasks_blocked()
        for thing, consumer in zip(things, [*consumers, consumers[0]], strict=True):
            await happen(thing, engine, consumer)
            for _ in range(checkpoints):
                await anyio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        check(engine, consumers, things.count("publish"))
        if set(things) <= {"publish", "nothing"}:
            assert [len(consumer.got) for consumer in consumers] == [
                int(things.count("publish") >= place) for place in (1, 2)
            ], "not the longest parked first"
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("cancelled_after", range(6))
async def test_cancelled_at_every_point_of_a_wake(cancelled_after: int) -> None:
    """A publish, some scheduler rounds, then the cancellation: handed over or given back, never neither."""
    async with an_engine() as engine, anyio.create_task_group() as tasks:
        consumer = Consumer(engine)
        tasks.start_soon(consumer.run)
        await wait_all_tasks_blocked()
        await engine.publish("t", [NewMessage(b"x")])
        for _ in range(cancelled_after):
            await anyio.lowlevel.checkpoint()
        consumer.scope.cancel()
        await wait_all_tasks_blocked()
        check(engine, [consumer], 1)
        assert consumer.ended in ("got", "cancelled")


async def test_given_back_message_wakes_the_next() -> None:
    async with an_engine() as engine, anyio.create_task_group() as tasks:
        consumers = [Consumer(engine) for _ in range(3)]
        for consumer in consumers:
            tasks.start_soon(consumer.run)
            await wait_all_tasks_blocked()
        await engine.publish("t", [NewMessage(b"x")])
        consumers[0].scope.cancel()
        consumers[1].line_is_cut.set()
        await wait_all_tasks_blocked()
        assert [consumer.ended for consumer in consumers] == ["cancelled", "gone", "got"]
        assert attempt_of(engine) == 1, "an undone lease was counted"


@pytest.mark.parametrize(
    ("limits", "published", "shares"),
    [
        ([1, 1, 1], 2, [1, 1, 0]),
        ([10, 10, 10], 2, [1, 1, 0]),
        ([10, 10, 10], 7, [3, 2, 2]),
        ([1, 10, 2], 7, [1, 4, 2]),
        ([1, 1], 5, [1, 1]),
    ],
)
async def test_a_batch_is_dealt_one_each_in_turn(limits: list[int], published: int, shares: list[int]) -> None:
    async with an_engine() as engine, anyio.create_task_group() as tasks:
        consumers = [Consumer(engine, limit) for limit in limits]
        for consumer in consumers:
            tasks.start_soon(consumer.run)
            await wait_all_tasks_blocked()
        await engine.publish("t", [NewMessage(b"x")] * published)
        await wait_all_tasks_blocked()
        assert [len(consumer.got) for consumer in consumers] == shares
        check(engine, consumers, published)
        tasks.cancel_scope.cancel()


async def test_one_publish_runs_one_of_a_thousand() -> None:
    async with an_engine() as engine, anyio.create_task_group() as tasks:
        consumers = [Consumer(engine) for _ in range(1000)]
        for consumer in consumers:
            tasks.start_soon(consumer.run)
        await wait_all_tasks_blocked()
        await engine.publish("t", [NewMessage(b"x")])
        await wait_all_tasks_blocked()
        assert [consumer.ended for consumer in consumers].count("got") == 1
        assert engine.parked() == 999
        tasks.cancel_scope.cancel()


async def test_deleting_the_topic_wakes_everybody() -> None:
    async with an_engine() as engine, anyio.create_task_group() as tasks:
        consumers = [Consumer(engine) for _ in range(3)]
        for consumer in consumers:
            tasks.start_soon(consumer.run)
        await wait_all_tasks_blocked()
        await engine.delete_topic("t")
        await wait_all_tasks_blocked()
        assert [consumer.ended for consumer in consumers] == ["deleted"] * 3
        assert engine.parked() == 0


async def test_draining_wakes_everybody_and_hands_out_no_more() -> None:
    async with an_engine() as engine, anyio.create_task_group() as tasks:
        consumers = [Consumer(engine) for _ in range(3)]
        for consumer in consumers:
            tasks.start_soon(consumer.run)
        await wait_all_tasks_blocked()
        engine.drain()
        await engine.publish("t", [NewMessage(b"x")])
        await wait_all_tasks_blocked()
        assert [consumer.ended for consumer in consumers] == ["empty"] * 3
        with pytest.raises(Draining):
            await (await engine.subscribe("t")).take(1, 0.0)


async def test_prefetch_full_takes_nothing_until_a_settle_makes_room() -> None:
    async with an_engine() as engine, anyio.create_task_group() as tasks:
        subscription = await engine.subscribe("t", prefetch=2)
        await engine.publish("t", [NewMessage(b"x")] * 3)
        first = await subscription.take(5, 0.0)
        assert [delivery.message.seq for delivery in first] == [1, 2]
        later: list[int] = []

        async def take_more() -> None:
            later.extend(delivery.message.seq for delivery in await subscription.take(5, WAIT_S))

        tasks.start_soon(take_more)
        await wait_all_tasks_blocked()
        assert later == []
        assert engine.parked() == 0, "a consumer without room stood in line"
        subscription.acknowledge(first[:1])
        await wait_all_tasks_blocked()
        assert later == [3]


@pytest.mark.parametrize("source", ["nack", "delayed nack", "expiry", "release", "closed stream"])
async def test_wake_sources(source: str) -> None:
    async with an_engine() as engine, anyio.create_task_group() as tasks:
        await engine.publish("t", [NewMessage(b"x")])
        holder = await engine.subscribe("t", lease_s=10.0, prefetch=5)
        (held,) = await holder.take(1, 0.0)
        consumer = Consumer(engine)
        tasks.start_soon(consumer.run)
        await wait_all_tasks_blocked()
        await let_go(source, engine, holder, held)
        await wait_all_tasks_blocked()
        assert consumer.got == [1], "a parked consumer was not woken"


async def let_go(source: str, engine: EmbeddedEngine, holder: object, held: object) -> None:
    from wakeq_server.core.model import Delivery, Settle
    from wakeq_server.engine.dealing import EmbeddedSubscription

    assert isinstance(holder, EmbeddedSubscription)
    assert isinstance(held, Delivery)
    if source == "nack":
        await engine.settle("t", [Settle("nack", held.lease.encode(), delay_s=0.0)])
    elif source == "delayed nack":
        await engine.settle("t", [Settle("nack", held.lease.encode(), delay_s=5.0)])
        jump_clock(5.0)
    elif source == "expiry":
        jump_clock(10.0)
    elif source == "release":
        holder.release([held])
    else:
        holder.close(grace_s=2.0)
        await wait_all_tasks_blocked()
        jump_clock(2.0)
