"""What waiting takes of an event loop, whichever runs."""

import asyncio
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from trio.lowlevel import start_guest_run

from wakeq._loops import on_asyncio, running_loop

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "uvloop", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return ("asyncio", {"use_uvloop": True}) if request.param == "uvloop" else request.param


async def test_it_is_the_one_that_runs(anyio_backend_name: str) -> None:
    assert on_asyncio() == (anyio_backend_name == "asyncio")
    before = anyio.current_time()
    assert before <= running_loop().now() <= anyio.current_time()


async def test_who_waits_for_a_signal_goes_on_when_it_is_set() -> None:
    signal = running_loop().signal()
    seen: list[str] = []

    async def wait() -> None:
        await signal.wait()
        seen.append("over")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert seen == []
        signal.set()
        signal.set()
    assert seen == ["over"]
    await signal.wait()


async def test_a_signal_may_be_set_that_nobody_waits_for_any_more() -> None:
    signal = running_loop().signal()

    async def wait() -> None:
        await signal.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    signal.set()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_guest_of_asyncios_loop_is_not_asyncio() -> None:
    found: list[bool] = []
    ended = anyio.Event()

    async def guest() -> None:
        found.append(on_asyncio())

    def done(_: object) -> None:
        ended.set()

    loop = asyncio.get_running_loop()
    start_guest_run(guest, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=done)
    await ended.wait()
    assert found == [False]
