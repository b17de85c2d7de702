"""Answers that have begun, and whose topic, group, storage or server goes: they end, and nothing is started twice."""

from collections.abc import Awaitable, Callable

import anyio
import pytest

from tests.support.cancelling import Client, World, a_world, check_consistent
from tests.support.clock import virtual_trio
from tests.support.stores import KeepingStore
from wakeq_server.core.model import NewMessage, TopicConfig
from wakeq_server.errors import StorageFailed

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return virtual_trio()


async def topic_goes(world: World) -> None:
    await world.engine.delete_topic("t")


async def group_goes(world: World) -> None:
    await world.engine.delete_group("t", "default")


async def body_is_lost(world: World) -> None:
    def fail(*_: object) -> None:
        raise StorageFailed("told to")

    world.disk.read_bodies = fail  # type: ignore[assignment]
    await world.engine.publish("t", [NewMessage(b"{}")])


async def server_drains(world: World) -> None:
    world.engine.drain()


ENDS = [topic_goes, group_goes, body_is_lost, server_drains]


@pytest.mark.parametrize("end", ENDS)
async def test_a_get_kept_alive_ends_as_null(end: Callable[[World], Awaitable[None]]) -> None:
    client = Client("GET", "/messages/t")
    await begun(client, end)
    assert client.answered
    assert client.text.strip() == b"null"


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("query", ["?lease=60&prefetch=1", ""])
async def test_a_stream_ends(end: Callable[[World], Awaitable[None]], query: str) -> None:
    client = Client("GET", f"/messages/t{query}", accept="text/event-stream")
    await begun(client, end)
    assert client.answered
    assert client.text.startswith(b"retry:")
    assert client.text.endswith(b"event: drain\ndata: {}\n\n") == (end is server_drains)


async def begun(client: Client, end: Callable[[World], Awaitable[None]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        async with a_world(KeepingStore(), patch, memory_budget=0) as world, anyio.create_task_group() as tasks:
            await world.engine.create_topic("t", TopicConfig(schema="queue_message"))
            tasks.start_soon(world.ask, client)
            await client.until(lambda: bool(client.text))
            await end(world)
            await client.until(lambda: client.answered)
            tasks.cancel_scope.cancel()
        check_consistent(world.engine.core)


async def test_a_full_stream_is_told_of_a_drain() -> None:
    client = Client("GET", "/messages/t?lease=60&prefetch=1", accept="text/event-stream")
    with pytest.MonkeyPatch.context() as patch:
        async with a_world(KeepingStore(), patch) as world, anyio.create_task_group() as tasks:
            await world.engine.create_topic("t", TopicConfig())
            await world.engine.publish("t", [NewMessage(b"{}")])
            tasks.start_soon(world.ask, client)
            await client.until(lambda: b"event: message" in client.text)
            world.engine.drain()
            await client.until(lambda: client.answered)
            tasks.cancel_scope.cancel()
    assert client.text.endswith(b"event: drain\ndata: {}\n\n")
