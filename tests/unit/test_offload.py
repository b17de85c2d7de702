"""Blocking calls in threads."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from threading import Event, current_thread

import anyio
import pytest

from wakeq._serving.offload import Offload, OneThread, own_thread

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["anyio's", "own"])
async def offload(request: pytest.FixtureRequest) -> AsyncIterator[Offload]:
    async with AsyncExitStack() as stack:
        soon = asyncio.get_running_loop().call_soon_threadsafe
        yield OneThread() if request.param == "anyio's" else await stack.enter_async_context(own_thread("test", soon))


def refuse() -> None:
    raise ValueError("no")


async def test_a_call_is_made_elsewhere_and_its_outcome_handed_over(offload: Offload) -> None:
    assert await offload(current_thread) is not current_thread()
    with pytest.raises(ValueError, match="no"):
        await offload(refuse)
    assert await offload(lambda: 7) == 7


async def test_calls_are_made_one_after_the_other(offload: Offload) -> None:
    made: list[int] = []
    gate = Event()

    def first() -> None:
        assert gate.wait(10)
        made.append(1)

    def second() -> None:
        made.append(2)

    async with anyio.create_task_group() as tasks:
        for call in (first, second):
            tasks.start_soon(offload, call)
            await anyio.wait_all_tasks_blocked()
        gate.set()
    assert made == [1, 2]


async def test_a_call_that_has_begun_is_waited_for(offload: Offload) -> None:
    begun, gate = Event(), Event()
    ended: list[bool] = []

    def call() -> None:
        begun.set()
        assert gate.wait(10)
        ended.append(True)

    async def make() -> None:
        try:
            await offload(call)
        finally:
            assert ended == [True]

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(make)
        await anyio.to_thread.run_sync(begun.wait)
        tasks.cancel_scope.cancel()
        asyncio.get_running_loop().call_soon(gate.set)


async def test_the_thread_ends_with_its_owner() -> None:
    async with own_thread("test", asyncio.get_running_loop().call_soon_threadsafe) as offload:
        thread = await offload(current_thread)
    assert not thread.is_alive()
