"""Who waits, for what, and what wakes them: on a clock that stands still, with a disk that the test moves."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, TypeVar

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from tests.support.clock import jump_clock, standing_trio
from wakeq_control.engine.commits import RIDE_S
from wakeq_control.engine.engine import Engine
from wakeq_control.engine.links import Begun
from wakeq_control.engine.signals import Signals
from wakeq_control.errors import ServiceNotFound, SessionNotFound, StorageFailed, TaskNotFound
from wakeq_control.messages import CompletedTask, NewTaskMessage, TaskEvent
from wakeq_control.model import Outgoing, Retry, Service
from wakeq_control.plane import End, NewTask, Plane, Said
from wakeq_control.state.memory import MemoryStore
from wakeq_control.streams import Event

pytestmark = pytest.mark.anyio
T = TypeVar("T")
SERVICE = Service("wf", "d", [], None, None)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return standing_trio()


class Disk:
    """Commits at once, unless it is told to wait."""

    def __init__(self) -> None:
        self.gate = anyio.Event()
        self.gate.set()
        self.commits = 0

    def block(self) -> None:
        self.gate = anyio.Event()

    async def __call__(self, call: Callable[[], T]) -> T:
        await self.gate.wait()
        self.commits += 1
        return call()


class World:
    """An engine, its disk, and what it has sent."""

    def __init__(self) -> None:
        ids = count(1)
        self.disk = Disk()
        self.store = MemoryStore()
        plane = Plane(lambda: f"id{next(ids)}", keep=100, keep_s=1000.0)
        self.engine = Engine(plane, self.store, anyio.current_time, wait_for_service_s=10.0, offload=self.disk)
        self.sent: list[Outgoing] = []
        self.engine.to_send = self.sent.append

    async def task(self, task_id: str = "T", **more: Any) -> str:
        session = await self.engine.create_session()
        await self.engine.add_task(session, new(task_id, **more))
        return session


@asynccontextmanager
async def a_world(*, registered: bool = True) -> AsyncIterator[World]:
    world = World()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.engine.run)
        if registered:
            await world.engine.register(SERVICE)
        yield world
        tasks.cancel_scope.cancel()


def new(task_id: str = "T", **more: Any) -> NewTask:
    return NewTask(**{"input": "{}", "service": "wf", "id_field": "service_id", "task_id": task_id} | more)


def result(task_id: str = "T") -> dict[str, Any]:
    return {"task_id": task_id, "history": [], "result": "done", "data": {}}


class Waiter:
    """Something that runs beside the test."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self.outcome: Any = None
        self.ended = False
        self.scope = anyio.CancelScope()

    async def run(self) -> None:
        with self.scope:
            try:
                self.outcome = await self._work()
            except (ServiceNotFound, SessionNotFound, TaskNotFound) as error:
                self.outcome = error
            self.ended = True


async def test_nothing_is_told_or_sent_before_it_is_stored() -> None:
    async with a_world() as world, anyio.create_task_group() as tasks:
        session = await world.task()
        assert [message.task_id for message in world.sent] == ["T"]
        world.disk.block()
        adding = Waiter(lambda: world.engine.add_task(session, new("U")))
        reading = Waiter(lambda: world.engine.session_tasks(session))
        tasks.start_soon(adding.run)
        await wait_all_tasks_blocked()
        tasks.start_soon(reading.run)
        await wait_all_tasks_blocked()
        assert not adding.ended
        assert not reading.ended
        assert len(world.sent) == 1
        world.disk.gate.set()
        await wait_all_tasks_blocked()
        assert adding.outcome == "U"
        assert [task.id for task in reading.outcome] == ["T", "U"]
        assert [message.task_id for message in world.sent] == ["T", "U"]


async def test_who_waits_for_the_disk_at_one_moment_shares_a_commit() -> None:
    async with a_world() as world, anyio.create_task_group() as tasks:
        world.disk.block()
        first = Waiter(world.engine.create_session)
        others = [Waiter(world.engine.create_session) for _ in range(50)]
        tasks.start_soon(first.run)
        await wait_all_tasks_blocked()
        for other in others:
            tasks.start_soon(other.run)
        await wait_all_tasks_blocked()
        before = world.disk.commits
        world.disk.gate.set()
        await wait_all_tasks_blocked()
        assert all(waiter.ended for waiter in (first, *others))
        assert world.disk.commits == before + 2


async def test_a_result_wakes_who_waits_for_it() -> None:
    async with a_world() as world, anyio.create_task_group() as tasks:
        session = await world.task()
        waiters = [Waiter(lambda: world.engine.result(session, "T", 50.0)) for _ in range(3)]
        for waiter in waiters:
            tasks.start_soon(waiter.run)
        await wait_all_tasks_blocked()
        assert not any(waiter.ended for waiter in waiters)
        await world.engine.hear(CompletedTask(End(result())))
        await wait_all_tasks_blocked()
        assert [waiter.outcome for waiter in waiters] == [result()] * 3


async def test_a_wait_for_a_result_ends_at_its_time() -> None:
    async with a_world() as world, anyio.create_task_group() as tasks:
        session = await world.task()
        waiter = Waiter(lambda: world.engine.result(session, "T", 50.0))
        tasks.start_soon(waiter.run)
        await wait_all_tasks_blocked()
        jump_clock(49.9)
        await wait_all_tasks_blocked()
        assert not waiter.ended
        jump_clock(0.1)
        await wait_all_tasks_blocked()
        assert waiter.ended
        assert waiter.outcome is None
        assert await world.engine.result(session, "unknown", 50.0) is None


async def test_events_are_told_from_wherever_a_watcher_is() -> None:
    async with a_world() as world, anyio.create_task_group() as tasks:
        session = await world.task()
        for index in (0, 1):
            await world.engine.hear(TaskEvent(session, "T", Event.make(index, {})))
        events, ended = await world.engine.more_events(session, "T", 1)
        assert ([event.index for event in events], ended) == ([1], False)
        waiter = Waiter(lambda: world.engine.more_events(session, "T", 2))
        tasks.start_soon(waiter.run)
        await wait_all_tasks_blocked()
        assert not waiter.ended
        world.engine.note(TaskEvent(session, "T", Event.make(2, {})))
        world.engine.note(CompletedTask(End(result())))
        await wait_all_tasks_blocked()
        events, ended = waiter.outcome
        assert ([event.index for event in events], ended) == ([2], True)


async def test_a_deleted_session_wakes_its_waiters() -> None:
    async with a_world() as world, anyio.create_task_group() as tasks:
        session = await world.task()
        watching = Waiter(lambda: world.engine.more_events(session, "T", 0))
        waiting = Waiter(lambda: world.engine.result(session, "T", 50.0))
        for waiter in (watching, waiting):
            tasks.start_soon(waiter.run)
        await wait_all_tasks_blocked()
        await world.engine.delete_session(session)
        await wait_all_tasks_blocked()
        assert isinstance(watching.outcome, SessionNotFound)
        assert waiting.ended
        assert waiting.outcome is None


async def test_a_task_waits_for_its_service_and_goes_on_with_it() -> None:
    async with a_world(registered=False) as world, anyio.create_task_group() as tasks:
        session = await world.engine.create_session()
        waiter = Waiter(lambda: world.engine.add_task(session, new()))
        tasks.start_soon(waiter.run)
        await wait_all_tasks_blocked()
        jump_clock(9.9)
        await wait_all_tasks_blocked()
        assert not waiter.ended
        await world.engine.register(SERVICE)
        await wait_all_tasks_blocked()
        assert waiter.outcome == "T"


async def test_a_task_whose_service_does_not_come_is_refused() -> None:
    async with a_world(registered=False) as world, anyio.create_task_group() as tasks:
        session = await world.engine.create_session()
        waiter = Waiter(lambda: world.engine.add_task(session, new()))
        tasks.start_soon(waiter.run)
        await wait_all_tasks_blocked()
        jump_clock(10.0)
        await wait_all_tasks_blocked()
        assert isinstance(waiter.outcome, ServiceNotFound)
        assert await world.engine.session_tasks(session) == []
        assert world.sent == []


async def test_who_gives_up_leaves_nothing() -> None:
    async with a_world(registered=False) as world, anyio.create_task_group() as tasks:
        session = await world.engine.create_session()
        waiter = Waiter(lambda: world.engine.add_task(session, new()))
        tasks.start_soon(waiter.run)
        await wait_all_tasks_blocked()
        waiter.scope.cancel()
        await wait_all_tasks_blocked()
        await world.engine.register(SERVICE)
        assert await world.engine.session_tasks(session) == []


async def test_who_hangs_up_after_the_decision_only_stops_waiting() -> None:
    async with a_world() as world, anyio.create_task_group() as tasks:
        session = await world.engine.create_session()
        world.disk.block()
        waiter = Waiter(lambda: world.engine.add_task(session, new()))
        tasks.start_soon(waiter.run)
        await wait_all_tasks_blocked()
        waiter.scope.cancel()
        world.disk.gate.set()
        await wait_all_tasks_blocked()
        assert [task.id for task in await world.engine.session_tasks(session)] == ["T"]
        assert [message.task_id for message in world.sent] == ["T"]


async def test_a_deadline_is_kept_to_the_moment() -> None:
    async with a_world() as world, anyio.create_task_group() as tasks:
        session = await world.task(timeout_s=30.0)
        await world.engine.add_task(session, new("U", timeout_s=5.0))
        waiter = Waiter(lambda: world.engine.result(session, "U", 50.0))
        tasks.start_soon(waiter.run)
        await wait_all_tasks_blocked()
        jump_clock(4.9)
        await wait_all_tasks_blocked()
        assert not waiter.ended
        jump_clock(0.1)
        await wait_all_tasks_blocked()
        assert waiter.outcome["result"] == "TASK_TIMED_OUT: the task has not ended within 5 s"
        jump_clock(25.0)
        await wait_all_tasks_blocked()
        assert (await world.engine.task(session, "T")).status == "timed_out"


async def test_a_failed_attempt_is_followed_by_another_to_the_moment() -> None:
    async with a_world() as world, anyio.create_task_group() as tasks:
        await world.engine.register(Service("wf", "d", [], None, None, None, True, Retry(2, 4.0)))
        session = await world.task()
        link = world.engine.links.open("me", 1)
        failure = End(result(), "E: no", retryable=True)
        assert world.engine.begin_attempt(link, 1, session, "T", None, 0) == Begun(1, None, [])
        assert world.engine.hear_attempt(link, 1, Said(session, "T", 1, [], failure)) is None
        assert world.engine.hear_attempt(link, 1, Said(session, "T", 1, [], failure)) == "retried"
        # By the same message none begins.
        assert world.engine.begin_attempt(link, 2, session, "T", None, 0) == "retried"
        waiter = Waiter(lambda: world.engine.result(session, "T", 50.0))
        tasks.start_soon(waiter.run)
        await wait_all_tasks_blocked()
        # Of 4 s, three quarters.
        jump_clock(2.9)
        await wait_all_tasks_blocked()
        assert [message.key for message in world.sent] == ["task:T:1"]
        jump_clock(0.1)
        await wait_all_tasks_blocked()
        assert [message.key for message in world.sent] == ["task:T:1", "task:T:2"]
        assert not waiter.ended
        assert world.engine.begin_attempt(link, 3, session, "T", None, 1) == Begun(2, None, [])
        assert world.engine.hear_attempt(link, 3, Said(session, "T", 2, [], failure)) is None
        await wait_all_tasks_blocked()
        assert waiter.outcome == result()
        assert (await world.engine.task(session, "T")).status == "failed"


async def test_a_task_by_a_message_is_stored_with_its_session() -> None:
    async with a_world() as world:
        before = world.disk.commits
        await world.engine.hear(NewTaskMessage(new()))
        assert world.disk.commits == before + 1
        await world.engine.hear(NewTaskMessage(new()))
        assert len(await world.engine.sessions()) == 1


async def test_sessions_are_listed_as_of_one_moment() -> None:
    async with a_world() as world:
        made = [await world.engine.create_session() for _ in range(2)]
        world.disk.block()
        async with anyio.create_task_group() as tasks:
            written = Waiter(lambda: world.engine.update_state(made[0], {"k": 1}))
            listed, deleted = Waiter(world.engine.sessions), Waiter(lambda: world.engine.delete_session(made[0]))
            for waiter in (written, listed, deleted):
                tasks.start_soon(waiter.run)
                await wait_all_tasks_blocked()
            # What is seen may be neither taken back by a crash nor half of what there was.
            assert not listed.ended
            world.disk.gate.set()
        assert {one["session_id"]: one["state"] for one in listed.outcome} == {made[0]: {"k": 1}, made[1]: {}}


async def test_a_store_that_fails_ends_everything() -> None:
    class Broken(MemoryStore):
        def commit(self, changes: object) -> None:
            raise StorageFailed("no room")

    world = World()
    world.engine._commits._store = Broken()
    with pytest.RaisesGroup(pytest.RaisesExc(StorageFailed, match="no room"), flatten_subgroups=True):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.engine.run)
            await world.engine.create_session()


async def test_who_no_longer_waits_leaves_no_signal() -> None:
    signals = Signals()
    async with anyio.create_task_group() as tasks:
        waiters = [Waiter(lambda: signals.wait("x")) for _ in range(2)]
        for waiter in waiters:
            tasks.start_soon(waiter.run)
        await wait_all_tasks_blocked()
        waiters[0].scope.cancel()
        await wait_all_tasks_blocked()
        assert signals.waiting() == 1
        waiters[1].scope.cancel()
        await wait_all_tasks_blocked()
        assert signals.waiting() == 0
        again = Waiter(lambda: signals.wait("x"))
        tasks.start_soon(again.run)
        await wait_all_tasks_blocked()
        signals.wake("x")
        signals.wake("y")
        await wait_all_tasks_blocked()
        assert again.ended
        assert signals.waiting() == 0


async def test_what_rides_along_has_no_commit_of_its_own_for_a_while() -> None:
    async with a_world() as world:
        session = await world.task()
        commits = world.disk.commits
        world.engine.sent(world.sent[0])
        await wait_all_tasks_blocked()
        # Nobody waits for it, and nobody who waits for others does.
        await world.engine.settled()
        assert (world.disk.commits, len(world.store.load().outgoing)) == (commits, 1)
        await world.engine.update_state(session, {"k": 1})
        assert (world.disk.commits, world.store.load().outgoing) == (commits + 1, [])
        await world.engine.add_task(session, new("U"))
        commits = world.disk.commits
        world.engine.sent(world.sent[1])
        await wait_all_tasks_blocked()
        assert world.disk.commits == commits
        jump_clock(RIDE_S)
        await wait_all_tasks_blocked()
        assert (world.disk.commits, world.store.load().outgoing) == (commits + 1, [])


async def test_at_the_end_what_rides_along_is_stored() -> None:
    async with a_world() as world:
        await world.task()
        world.engine.sent(world.sent[0])
        await world.engine.finished()
        assert world.store.load().outgoing == []
