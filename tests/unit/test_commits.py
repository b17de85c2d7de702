"""Group commit and what waits for it, with a store that blocks and fails when told to."""

import contextlib
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import anyio.lowlevel
import pytest
from anyio import wait_all_tasks_blocked

from tests.support.stores import KeepingStore
from wakeq_server.core.model import DEFAULT_GROUP, NewMessage, Settle, TopicConfig
from wakeq_server.engine import commits
from wakeq_server.engine.clocks import Clocks
from wakeq_server.engine.embedded import EmbeddedEngine, open_engine
from wakeq_server.errors import StorageError, StorageFailed, StorageFull, TopicFull, TopicNotFound

pytestmark = pytest.mark.anyio
X = NewMessage(b"x")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Disk(KeepingStore):
    """A store whose next commits wait at a gate, or fail."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Event()
        self.failures: list[StorageError] = []
        self.before_commit = self._before_commit

    def _before_commit(self) -> StorageError | None:
        self.arrived.set()
        assert self.gate.wait(10), "nobody opened the gate"
        return self.failures.pop(0) if self.failures else None

    async def block(self) -> None:
        """From now on commits wait."""
        self.gate.clear()
        self.arrived.clear()

    async def reached(self) -> None:
        """Wait until the writer stands at the gate."""
        assert await anyio.to_thread.run_sync(self.arrived.wait, 10)


@asynccontextmanager
async def an_engine(disk: KeepingStore, config: TopicConfig | None = None) -> AsyncIterator[EmbeddedEngine]:
    async with open_engine(disk, Clocks(lambda: 1000.0, lambda: 0.0)) as engine:
        await engine.create_topic("t", config or TopicConfig())
        yield engine


def ready(engine: EmbeddedEngine) -> int:
    return engine.core.topic("t").groups[DEFAULT_GROUP].ready


async def test_a_message_shows_only_when_it_is_durable() -> None:
    disk = Disk()
    async with an_engine(disk) as engine, anyio.create_task_group() as tasks:
        await disk.block()
        tasks.start_soon(engine.publish, "t", [X])
        await disk.reached()
        assert ready(engine) == 0
        disk.gate.set()
    assert list(disk.messages) == [(1, 1)]


async def test_everybody_who_waits_meanwhile_shares_the_next_commit() -> None:
    disk = Disk()
    async with an_engine(disk) as engine:
        before = disk.commits
        async with anyio.create_task_group() as tasks:
            await disk.block()
            tasks.start_soon(engine.publish, "t", [X])
            await disk.reached()
            for _ in range(50):
                tasks.start_soon(engine.publish, "t", [X])
            await wait_all_tasks_blocked()
            disk.gate.set()
        assert disk.commits - before == 2
        assert ready(engine) == 51


async def test_a_failed_commit_leaves_no_trace() -> None:
    disk = Disk()
    async with an_engine(disk) as engine:
        disk.failures = [StorageFull("full")]
        with pytest.raises(StorageFull):
            await engine.publish("t", [X])
        info = await engine.describe_topic("t")
        assert (ready(engine), info.messages, info.bytes) == (0, 0, 0)
        published = await engine.publish("t", [X])
        assert published.first_seq == 2, "a seq was used twice"
        assert ready(engine) == 1


async def test_a_failed_batch_is_tried_request_by_request() -> None:
    disk = Disk()
    async with an_engine(disk) as engine:
        outcomes: list[str] = []

        async def publish() -> None:
            try:
                await engine.publish("t", [X])
                outcomes.append("ok")
            except StorageFailed:
                outcomes.append("failed")

        async with anyio.create_task_group() as tasks:
            await disk.block()
            tasks.start_soon(engine.publish, "t", [X])
            await disk.reached()
            for _ in range(3):
                tasks.start_soon(publish)
            await wait_all_tasks_blocked()
            # The batch of three, then the second of its requests by itself.
            disk.before_commit = iter([StorageFailed("bad row"), None, StorageFailed("bad row"), None]).__next__
            disk.gate.set()
        assert sorted(outcomes) == ["failed", "ok", "ok"]
        assert [seq for _, seq in disk.messages] == [1, 2, 4]


async def test_a_publisher_that_gives_up_cancels_only_its_waiting() -> None:
    disk = Disk()
    async with an_engine(disk) as engine:
        async with anyio.create_task_group() as tasks:
            await disk.block()
            tasks.start_soon(engine.publish, "t", [X])
            await disk.reached()
            tasks.cancel_scope.cancel()
        disk.gate.set()
        await engine.publish("t", [X])
        assert ready(engine) == 2


async def test_a_settle_that_gives_up_is_settled_all_the_same() -> None:
    disk = Disk()
    async with an_engine(disk) as engine:
        await engine.publish("t", [X])
        (held,) = await (await engine.subscribe("t")).take(1, 0.0)
        async with anyio.create_task_group() as tasks:
            await disk.block()
            tasks.start_soon(engine.settle, "t", [Settle("ack", held.lease.encode())])
            await disk.reached()
            tasks.cancel_scope.cancel()
        disk.gate.set()
        await engine.publish("t", [X])
        assert [seq for _, seq in disk.messages] == [2]


async def failed_settle(engine: EmbeddedEngine, disk: Disk) -> list[Settle]:
    """Ack the next message while the disk fails; what was said."""
    (held,) = await (await engine.subscribe("t")).take(1, 0.0)
    lines = [Settle("ack", held.lease.encode())]
    disk.failures = [StorageFailed("disk")]
    with pytest.raises(StorageFailed):
        await engine.settle("t", lines)
    return lines


async def test_a_failed_settle_leaves_the_lease_as_it_was() -> None:
    disk = Disk()
    async with an_engine(disk) as engine:
        await engine.publish("t", [X])
        lines = await failed_settle(engine, disk)
        assert [result.status for result in await engine.settle("t", lines)] == ["ok"]
        assert disk.messages == {}


async def test_a_lease_that_is_settled_at_once_is_never_written() -> None:
    disk = Disk()
    async with an_engine(disk) as engine:
        await engine.publish("t", [X])
        commits = disk.commits
        (held,) = await (await engine.subscribe("t")).take(1, 0.0)
        await engine.settle("t", [Settle("ack", held.lease.encode())])
        assert disk.commits == commits + 1
        assert disk.histories == {}


async def test_a_lease_that_is_being_settled_is_not_written_for_its_age(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "YOUNG_S", -1.0)
    disk = Disk()
    async with an_engine(disk) as engine:
        await engine.publish("t", [X])
        await failed_settle(engine, disk)
        await engine.publish("t", [X])
        assert [row.standing for row in disk.histories.values()] == ["leased"]
        await engine.publish("t", [X])
        disk.histories.clear()
        (second,) = await (await engine.subscribe("t")).take(1, 0.0)
        await engine.settle("t", [Settle("ack", second.lease.encode())])
        assert disk.histories == {}


async def test_a_lease_is_written_though_nothing_else_is() -> None:
    disk = Disk()
    async with an_engine(disk) as engine:
        await engine.publish("t", [X])
        await (await engine.subscribe("t")).take(1, 0.0)
        await engine.publish("t", [X])
        assert disk.histories == {}
        await disk.block()
        await disk.reached()
        disk.gate.set()
        await engine.settle("t", [])
        await engine.publish("t", [X])
        assert [row.standing for row in disk.histories.values()] == ["leased"]


async def test_a_repeated_settle_waits_for_the_first() -> None:
    disk = Disk()
    async with an_engine(disk) as engine, anyio.create_task_group() as tasks:
        await engine.publish("t", [X])
        (held,) = await (await engine.subscribe("t")).take(1, 0.0)
        answers: list[str] = []

        async def ack() -> None:
            results = await engine.settle("t", [Settle("ack", held.lease.encode())])
            answers.extend(result.status for result in results)

        await disk.block()
        tasks.start_soon(ack)
        await disk.reached()
        tasks.start_soon(ack)
        await wait_all_tasks_blocked()
        assert answers == []
        disk.gate.set()
        await wait_all_tasks_blocked()
    assert answers == ["ok", "ok"]


async def test_leases_nobody_waits_for_ride_along_by_themselves() -> None:
    disk = Disk()
    async with an_engine(disk) as engine:
        await engine.publish("t", [X])
        (held,) = await (await engine.subscribe("t")).take(1, 0.0)
        await disk.block()
        await disk.reached()
        disk.gate.set()
        await engine.publish("t", [X])
        assert disk.histories[1, 0, 1].number == held.lease.number


async def test_a_topic_that_failed_to_be_made_is_not_there() -> None:
    disk = Disk()
    async with an_engine(disk) as engine:
        disk.failures = [StorageFull("full")]
        with pytest.raises(StorageFull):
            await engine.create_topic("u", TopicConfig())
        with pytest.raises(TopicNotFound):
            await engine.topic_config("u")
        assert await engine.create_topic("u", TopicConfig())


async def test_a_topic_made_while_its_namesake_goes_is_another() -> None:
    disk = Disk()
    async with an_engine(disk) as engine:
        await engine.publish("t", [X])
        async with anyio.create_task_group() as tasks:
            await disk.block()
            tasks.start_soon(engine.delete_topic, "t")
            await disk.reached()
            tasks.start_soon(engine.create_topic, "t", TopicConfig())
            await wait_all_tasks_blocked()
            disk.gate.set()
        assert ready(engine) == 0
        assert [row.name for row in disk.topics.values()] == ["t"]
        assert disk.messages == {}


async def test_everything_submitted_is_written_before_the_engine_closes() -> None:
    disk = Disk()
    async with an_engine(disk) as engine:
        await engine.publish("t", [X])
        subscription = await engine.subscribe("t")
        subscription.acknowledge(await subscription.take(1, 0.0))
    assert disk.messages == {}


async def test_room_wakes_one_held_publisher_after_the_other() -> None:
    disk = Disk()
    async with an_engine(disk, TopicConfig(max_messages=1)) as engine:
        await engine.publish("t", [X])
        with pytest.raises(TopicFull):
            await engine.publish("t", [X])
        order: list[int] = []

        async def publish(number: int) -> None:
            await engine.publish("t", [X], hold_s=60.0)
            order.append(number)

        async with anyio.create_task_group() as tasks:
            for number in (1, 2, 3):
                tasks.start_soon(publish, number)
                await wait_all_tasks_blocked()
            subscription = await engine.subscribe("t")
            for _ in range(3):
                (held,) = await subscription.take(1, 60.0)
                await engine.settle("t", [Settle("ack", held.lease.encode())])
        assert order == [1, 2, 3]


async def test_a_held_publisher_gets_in_when_storage_recovers() -> None:
    disk = Disk()
    async with an_engine(disk) as engine:
        disk.failures = [StorageFull("full")]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(engine.publish, "t", [X], hold_s=60.0))
            await wait_all_tasks_blocked()
            await engine.create_topic("u", TopicConfig())
        assert ready(engine) == 1


async def test_a_held_duplicate_of_what_failed_gets_in_though_storage_recovered_meanwhile() -> None:
    disk = Disk()
    async with an_engine(disk) as engine:

        async def fail() -> None:
            with pytest.raises(StorageFailed):
                await engine.publish("t", [X], key="k")

        await disk.block()
        disk.failures = [StorageFailed("failed")]
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fail)
                await disk.reached()
                tasks.start_soon(engine.publish, "t", [X])
                await wait_all_tasks_blocked()
                # It waits for all that is on its way, of which the last goes well.
                tasks.start_soon(partial(engine.publish, "t", [X], key="k", hold_s=60.0))
                await wait_all_tasks_blocked()
                disk.gate.set()
        assert ready(engine) == 2


async def test_a_disk_that_is_full_from_the_start_is_told() -> None:
    disk = Disk()
    disk.full = True
    async with open_engine(disk, Clocks(lambda: 1000.0, lambda: 0.0)) as engine:
        assert engine.trouble is not None
        assert "full" in engine.trouble
        disk.full = False
        await engine.create_topic("t", TopicConfig())
        assert engine.trouble is None


async def test_trouble_with_the_disk_is_told_once_and_so_is_its_end() -> None:
    disk = Disk()
    told: list[StorageError | None] = []
    disk.full = True
    async with open_engine(disk, Clocks(lambda: 1000.0, lambda: 0.0), tell=told.append) as engine:
        assert [type(one) for one in told] == [StorageFull]
        disk.full = False
        await engine.create_topic("t", TopicConfig())
        disk.failures = [StorageFailed("one word"), StorageFailed("another")]
        for _ in range(2):
            with pytest.raises(StorageFailed):
                await engine.publish("t", [X])
        await engine.publish("t", [X])
        assert [type(one) for one in told] == [StorageFull, type(None), StorageFailed, type(None)]


async def test_a_disk_with_room_again_is_noticed_though_nobody_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "RETRY_S", 0.0)
    disk = Disk()
    disk.full = True
    async with open_engine(disk, Clocks(lambda: 1000.0, lambda: 0.0)) as engine:
        await disk.block()
        await disk.reached()
        assert engine.trouble is not None
        disk.full = False
        disk.gate.set()
        while engine.trouble is not None:
            await anyio.lowlevel.checkpoint()


async def test_records_of_leases_that_are_refused_are_not_tried_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commits, "RETRY_S", 0.2)
    disk = Disk()
    async with an_engine(disk) as engine:
        await engine.publish("t", [X])
        await disk.block()
        await (await engine.subscribe("t")).take(1, 0.0)
        await disk.reached()
        disk.failures = [StorageFailed("disk")] * 2
        disk.gate.set()
        started = anyio.current_time()
        while disk.failures:
            await disk.block()
            await disk.reached()
            disk.gate.set()
        assert anyio.current_time() - started >= commits.RETRY_S


async def test_one_that_can_not_be_stored_does_not_end_the_writer() -> None:
    disk = Disk()
    async with an_engine(disk) as engine:
        disk.before_commit = iter([None]).__next__
        await engine.publish("t", [X])
        with pytest.raises(StorageFailed):
            await engine.publish("t", [X])
        disk.before_commit = lambda: None
        await engine.publish("t", [X])
        assert ready(engine) == 2


@pytest.mark.parametrize("fails", [False, True])
async def test_a_pause_beside_a_new_configuration_begins_where_that_ends(fails: bool) -> None:
    disk = Disk()
    async with an_engine(disk, TopicConfig(lease_s=9.0)) as engine:

        async def configure() -> None:
            with contextlib.suppress(StorageFull):
                await engine.put_topic("t", TopicConfig(lease_s=7.0))

        async with anyio.create_task_group() as tasks:
            await disk.block()
            disk.failures = [StorageFull("full")] if fails else []
            tasks.start_soon(configure)
            await disk.reached()
            tasks.start_soon(engine.pause_topic, "t", True)
            await wait_all_tasks_blocked()
            disk.gate.set()
        info = await engine.describe_topic("t")
        assert (info.config.lease_s, info.paused) == (9.0 if fails else 7.0, True)
        (row,) = disk.topics.values()
        assert (row.config.lease_s, row.paused) == (9.0 if fails else 7.0, True)
