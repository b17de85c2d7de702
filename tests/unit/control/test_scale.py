"""Work that does not grow: rows for an event, deadlines for what waits."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import TypeVar

import anyio
import pytest
import trio
from anyio import wait_all_tasks_blocked

from tests.support.clock import jump_clock, standing_trio
from wakeq_control.engine.engine import Engine
from wakeq_control.messages import TaskEvent
from wakeq_control.model import Change, Service
from wakeq_control.plane import NewTask, Plane
from wakeq_control.state.memory import MemoryStore
from wakeq_control.streams import Event

pytestmark = pytest.mark.anyio
DAY_S = 86_400.0
MANY = 1_000

_Result = TypeVar("_Result")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return standing_trio()


class CountedStore(MemoryStore):
    """Knows what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[Change] = []

    def commit(self, changes: Sequence[Change]) -> None:
        self.changes += changes
        super().commit(changes)


class Steps(trio.abc.Instrument):
    """How often any task has run."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


@asynccontextmanager
async def an_engine(store: MemoryStore) -> AsyncIterator[Engine]:
    ids = count(1)
    plane = Plane(lambda: f"id{next(ids)}", keep=MANY, keep_s=DAY_S, keep_sessions_s=30 * DAY_S)

    async def at_once(call: Callable[[], _Result]) -> _Result:
        return call()

    engine = Engine(plane, store, anyio.current_time, wait_for_service_s=0.0, offload=at_once)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(engine.run)
        await engine.register(Service("wf", "", [], None, None))
        yield engine
        tasks.cancel_scope.cancel()


async def test_an_event_is_one_row_of_its_own_size() -> None:
    store = CountedStore()
    async with an_engine(store) as engine:
        session = await engine.create_session()
        await engine.add_task(session, NewTask("{}", "wf", "service_id", "T"))
        sizes = []
        for index in range(MANY):
            store.changes = []
            await engine.hear(TaskEvent(session, "T", Event.make(index, {"n": "x"})))
            sizes.append([(change.table, len(change.value or b"")) for change in store.changes])
        # The first makes the task run.
        assert sizes[0][0] == ("event", len(b'{"index":0,"data":{"n":"x"}}'))
        for index, rows in enumerate(sizes[1:], 1):
            assert rows == [("event", len(b'{"index":,"data":{"n":"x"}}') + len(str(index)))]


async def test_a_watcher_is_handed_what_is_new_and_nothing_else() -> None:
    async with an_engine(MemoryStore()) as engine:
        session = await engine.create_session()
        await engine.add_task(session, NewTask("{}", "wf", "service_id", "T"))
        handed: list[list[int]] = [[] for _ in range(100)]

        async def watch(own: list[int]) -> None:
            while True:
                new, _ = await engine.more_events(session, "T", sum(own))
                own.append(len(new))

        async with anyio.create_task_group() as watchers:
            for own in handed:
                watchers.start_soon(watch, own)
            for index in range(20):
                await engine.hear(TaskEvent(session, "T", Event.make(index, {})))
                await wait_all_tasks_blocked()
            watchers.cancel_scope.cancel()
        assert handed == [[1] * 20] * 100


async def test_what_waits_has_one_deadline_together() -> None:
    async with an_engine(MemoryStore()) as engine:
        for number in range(MANY):
            await engine.create_session()
            session = await engine.create_session()
            await engine.add_task(session, NewTask("{}", "wf", "service_id", f"T{number}"))
            await engine.hear(TaskEvent(session, f"T{number}", Event.make(0, {"prefix": "?"})))
        await wait_all_tasks_blocked()
        statistics = trio.lowlevel.current_statistics()
        # Of two thousand sessions and a thousand tasks.
        assert statistics.seconds_to_next_deadline == 30 * DAY_S
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        for _ in range(29):
            jump_clock(DAY_S)
            await wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(steps)
        # The test's own.
        assert steps.count <= 2 * 29
        assert len(await engine.summaries(None, 3 * MANY)) == 2 * MANY
        jump_clock(DAY_S)
        await wait_all_tasks_blocked()
        left = await engine.summaries(None, 3 * MANY)
        assert [session.unfinished_tasks for session in left] == [1] * MANY
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf")
