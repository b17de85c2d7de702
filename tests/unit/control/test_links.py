"""What a worker hears of its attempts over its link: each piece of news once, in order, and when it is stored."""

from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from tests.support.clock import standing_trio
from tests.unit.control.test_engine import World, a_world
from wakeq_control.engine.links import Begun, Link
from wakeq_control.errors import TaskNotFound
from wakeq_control.model import Input, Service
from wakeq_control.plane import End, Said
from wakeq_control.streams import Event

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return standing_trio()


class Reader:
    """A worker that reads its link."""

    def __init__(self, link: Link) -> None:
        self.lines: list[dict[str, Any]] = []
        self._link = link

    async def run(self) -> None:
        while True:
            lines = await self._link.news()
            self.lines += lines

    async def heard(self) -> list[dict[str, Any]]:
        await wait_all_tasks_blocked()
        lines, self.lines = self.lines, []
        return lines


async def begun(world: World, link: Link, ref: int, task_id: str = "T") -> str:
    session = await world.task(task_id)
    assert world.engine.begin_attempt(link, ref, session, task_id, None) == Begun(1, None, [])
    await world.engine.settled()
    return session


async def worker(world: World) -> None:
    await world.engine.register(Service("wf", "d", [], None, None, None, True))


def said(session: str, task_id: str, attempt: int, *, ends: bool = False) -> Said:
    result = {"task_id": task_id, "history": [], "result": "done", "data": {}}
    events = [] if ends else [Event.make(0, {"n": 0})]
    return Said(session, task_id, attempt, events, End(result) if ends else None)


async def test_a_link_tells_of_inputs_and_ends_of_all_its_attempts() -> None:
    async with a_world() as world, anyio.create_task_group() as tasks:
        await worker(world)
        link = world.engine.links.open("w", 1)
        reader = Reader(link)
        tasks.start_soon(reader.run)
        first, second = await begun(world, link, 7, "T"), await begun(world, link, 8, "U")
        assert await reader.heard() == []
        await world.engine.answer(first, "T", "wf", "one")
        await world.engine.answer(second, "U", "wf", "two")
        await world.engine.answer(first, "T", "wf", "three")
        assert await reader.heard() == [
            {"ref": 7, "number": 1, "event": "one", "after": 0},
            {"ref": 8, "number": 1, "event": "two", "after": 0},
            {"ref": 7, "number": 2, "event": "three", "after": 0},
        ]
        await world.engine.cancel(first, "T")
        await world.engine.delete_session(second)
        assert await reader.heard() == [{"ref": 7, "ended": "cancelled"}, {"ref": 8, "ended": "deleted"}]
        tasks.cancel_scope.cancel()


async def test_nothing_is_told_before_it_is_stored_or_twice() -> None:
    async with a_world() as world, anyio.create_task_group() as tasks:
        await worker(world)
        link = world.engine.links.open("w", 1)
        session = await begun(world, link, 1)
        world.disk.block()
        tasks.start_soon(world.engine.answer, session, "T", "wf", "one")
        reader = Reader(link)
        with anyio.CancelScope() as scope:
            tasks.start_soon(_stop_when_blocked, scope)
            await reader.run()
        assert reader.lines == []
        tasks.start_soon(reader.run)
        world.disk.gate.set()
        assert await reader.heard() == [{"ref": 1, "number": 1, "event": "one", "after": 0}]
        tasks.cancel_scope.cancel()


async def _stop_when_blocked(scope: anyio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_what_is_read_and_not_taken_comes_again() -> None:
    async with a_world() as world, anyio.create_task_group() as tasks:
        await worker(world)
        link = world.engine.links.open("w", 1)
        session = await begun(world, link, 1)
        await world.engine.answer(session, "T", "wf", "one")
        world.disk.block()
        # Something else is being stored, and reading waits for it.
        tasks.start_soon(world.engine.create_session)
        await wait_all_tasks_blocked()
        reader = Reader(link)
        with anyio.CancelScope() as scope:
            tasks.start_soon(_stop_when_blocked, scope)
            await reader.run()
        assert reader.lines == []
        world.disk.gate.set()
        tasks.start_soon(reader.run)
        assert await reader.heard() == [{"ref": 1, "number": 1, "event": "one", "after": 0}]
        tasks.cancel_scope.cancel()


async def test_an_attempt_that_is_begun_again_under_its_number_is_the_same() -> None:
    async with a_world() as world:
        link = world.engine.links.open("w", 1)
        session = await begun(world, link, 1)
        assert world.engine.begin_attempt(link, 1, session, "T", None) == Begun(1, None, [])
        assert world.engine.begin_attempt(link, 2, session, "T", None) == Begun(2, None, [])


async def test_another_attempt_ends_the_one_before_it() -> None:
    async with a_world() as world, anyio.create_task_group() as tasks:
        first, second = world.engine.links.open("w", 1), world.engine.links.open("v", 1)
        session = await begun(world, first, 1)
        reader = Reader(first)
        tasks.start_soon(reader.run)
        assert world.engine.begin_attempt(second, 1, session, "T", None) == Begun(2, None, [])
        assert await reader.heard() == [{"ref": 1, "ended": "superseded"}]
        assert world.engine.hear_attempt(first, 1, said(session, "T", 1)) == "superseded"
        assert world.engine.begin_attempt(first, 1, session, "T", 1) == "superseded"
        assert (await world.engine.task(session, "T")).stream.arrived == []
        tasks.cancel_scope.cancel()


async def test_who_goes_on_over_another_link_is_given_what_it_missed() -> None:
    async with a_world() as world, anyio.create_task_group() as tasks:
        await worker(world)
        link = world.engine.links.open("w", 1)
        session = await begun(world, link, 1)
        link.close()
        assert world.engine.links.find("w", 1) is None
        await world.engine.answer(session, "T", "wf", "one")
        again = world.engine.links.open("w", 2)
        assert world.engine.begin_attempt(again, 1, session, "T", 1) == Begun(1, None, [Input("one", 0)])
        reader = Reader(again)
        tasks.start_soon(reader.run)
        assert await reader.heard() == []
        await world.engine.cancel(session, "T")
        assert await reader.heard() == [{"ref": 1, "ended": "cancelled"}]
        tasks.cancel_scope.cancel()


async def test_an_end_that_comes_again_was_the_end_and_nothing_is_left() -> None:
    async with a_world() as world, anyio.create_task_group() as tasks:
        link = world.engine.links.open("w", 1)
        session = await begun(world, link, 1)
        reader = Reader(link)
        tasks.start_soon(reader.run)
        assert world.engine.hear_attempt(link, 1, said(session, "T", 1, ends=True)) is None
        assert world.engine.hear_attempt(link, 1, said(session, "T", 1, ends=True)) == "succeeded"
        assert await reader.heard() == []
        assert world.engine.begin_attempt(link, 2, session, "T", None) == "succeeded"
        with pytest.raises(TaskNotFound):
            world.engine.begin_attempt(link, 2, session, "unknown", None)
        assert link._followed == {}
        assert world.engine.links._followers == {}
        tasks.cancel_scope.cancel()
