"""What wakeq.testing offers to the tests of others."""

import anyio
import httpx
import pytest

import wakeq
import wakeq.testing
from wakeq.testing.fixtures import wakeq_async_client as wakeq_async_client
from wakeq.testing.fixtures import wakeq_client as wakeq_client

PATIENCE_S = 20.0
pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])


def test_a_synchronous_client_has_a_server_of_its_own(wakeq_client: wakeq.Client, anyio_backend: str) -> None:
    wakeq_client.create_topic("jobs", schema="json")
    wakeq_client.publish_many("jobs", [{"n": 1}, {"n": 2}])
    bodies = []
    with wakeq_client.consume("jobs") as deliveries:
        for delivery in deliveries:
            with delivery:
                bodies.append(delivery.body)
            if len(bodies) == 2:
                break
    assert bodies == [{"n": 1}, {"n": 2}]
    assert wakeq_client.topic("jobs").messages == 0


@pytest.mark.anyio
async def test_streams_park_and_wake(wakeq_async_client: wakeq.AsyncClient) -> None:
    client = wakeq_async_client
    await client.create_topic("jobs", schema="json")
    async with client.consume("jobs") as deliveries, anyio.create_task_group() as tasks:
        found: list[object] = []

        async def take() -> None:
            async with await anext(deliveries) as delivery:
                found.append(delivery.body)

        tasks.start_soon(take)
        await anyio.wait_all_tasks_blocked()
        await client.publish("jobs", "late")
        assert deliveries.streams
    assert found == ["late"]
    assert (await client.topic("jobs")).messages == 0


@pytest.mark.anyio
async def test_clients_share_a_server() -> None:
    async with wakeq.testing.MemoryServer() as server:
        async with server.client() as first:
            await first.create_topic("jobs", schema="json")
            await first.publish("jobs", 1)
        async with server.client(consumer="second") as second:
            (delivery,) = await second.claim("jobs", wait_s=5)
            assert delivery.body == 1


@pytest.mark.anyio
async def test_a_claim_that_is_cancelled_takes_nothing(wakeq_async_client: wakeq.AsyncClient) -> None:
    client = wakeq_async_client
    await client.create_topic("jobs", schema="json")
    async with anyio.create_task_group() as tasks:

        async def claim() -> None:
            await client.claim("jobs", wait_s=50)

        tasks.start_soon(claim)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    await client.publish("jobs", 1)
    assert [delivery.body for delivery in await client.claim("jobs", wait_s=PATIENCE_S)] == [1]


@pytest.mark.anyio
async def test_a_server_that_does_not_run_can_not_be_reached() -> None:
    client = wakeq.AsyncClient("http://127.0.0.1", retry_s=0, transport=wakeq.testing.MemoryServer())
    with pytest.raises(wakeq.ServerUnavailable, match="the server is not running"):
        await client.publish("jobs", 1)


@pytest.mark.anyio
async def test_settings_are_those_of_the_server() -> None:
    async with wakeq.testing.MemoryServer(token="secret") as server:
        async with server.client() as stranger:
            with pytest.raises(wakeq.Unauthenticated):
                await stranger.publish("jobs", 1)
        async with server.client(token="secret") as known:
            await known.publish("jobs", {})
        answer = await server.handle_async_request(httpx.Request("GET", "http://127.0.0.1/healthz"))
        assert answer.status_code == 200
        await answer.aclose()
