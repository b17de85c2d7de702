"""How clients begin and end, and what they can be made of."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import pydantic
import pytest

import wakeq
from tests.support.server import ServerProcess, start_server

pytestmark = pytest.mark.anyio

PATIENCE_S = 30.0


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with start_server(tmp_path_factory.mktemp("data"), durability="os") as server:
        yield server


async def test_an_error_in_the_block_comes_out_as_it_is(server: ServerProcess) -> None:
    async def consume() -> None:
        async with wakeq.AsyncClient(server.url) as client:
            await client.create_topic("errors", schema="json")
            await client.publish_many("errors", [1, 2])
            async for delivery in client.consume("errors"):
                async with delivery:
                    _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        await consume()


async def test_a_client_that_is_not_entered_publishes_and_does_not_consume(server: ServerProcess) -> None:
    client = wakeq.AsyncClient(server.url)
    await client.create_topic("bare", schema="json")
    await client.publish("bare", 1)
    (delivery,) = await client.claim("bare")
    async with delivery:
        pass
    assert (await client.topic("bare")).messages == 0
    with pytest.raises(RuntimeError, match="use the client as a context manager"):
        client.consume("bare")
    await client.aclose()


async def test_a_claimed_delivery_is_settled_by_its_block(server: ServerProcess) -> None:
    async with wakeq.AsyncClient(server.url) as client:
        await client.create_topic("claims", schema="json", max_deliveries=1)
        await client.publish_many("claims", [0, 1, 2])
        acked, failed, cancelled = await client.claim("claims", max=3)
        async with acked:
            pass
        with pytest.raises(ValueError, match="no good"):
            async with failed:
                raise ValueError("no good")
        with anyio.move_on_after(0):
            async with cancelled:
                await anyio.sleep_forever()
        reasons = {peeked.body: peeked.reason for peeked in await client.peek("claims", state="dead")}
        assert reasons == {1: "ValueError: no good", 2: "cancelled"}
        with pytest.raises(wakeq.LeaseLost):
            await failed.ack()


@pytest.fixture
def doomed(tmp_path: Path) -> Iterator[ServerProcess]:
    with start_server(tmp_path, durability="os") as server:
        yield server


async def test_a_client_ends_soon_though_its_server_is_gone(doomed: ServerProcess) -> None:
    with anyio.fail_after(PATIENCE_S):
        async with wakeq.AsyncClient(doomed.url) as client:
            await client.create_topic("gone", schema="json")
            await client.publish("gone", 1)
            async with client.consume("gone") as deliveries, await anext(deliveries):
                await anyio.to_thread.run_sync(doomed.kill)


async def test_several_tasks_share_a_consumer(server: ServerProcess) -> None:
    async with wakeq.AsyncClient(server.url) as client:
        await client.create_topic("shared", schema="json")
        seen: list[int] = []
        async with client.consume("shared", prefetch=4) as deliveries:

            async def work() -> None:
                async for delivery in deliveries:
                    async with delivery:
                        seen.append(delivery.body)
                    if len(seen) == 50:
                        deliveries.stop()

            with anyio.fail_after(PATIENCE_S):
                async with anyio.create_task_group() as tasks:
                    for _ in range(3):
                        tasks.start_soon(work)
                    await anyio.wait_all_tasks_blocked()
                    await client.publish_many("shared", range(50))
        assert sorted(seen) == list(range(50))
        assert (await client.topic("shared")).messages == 0


@dataclass
class Point:
    x: int


class Model(pydantic.BaseModel):
    x: int


@pytest.mark.parametrize("data", [b"{", b"1", b"{}", b'{"lease_id": "x", "body_b64": 1}'], ids=bytes.decode)
async def test_a_stream_of_something_else_ends_its_consumer_alone(data: bytes) -> None:
    content = b"retry: 1000\n\nevent: message\ndata: " + data + b"\n\n"
    transport = httpx.MockTransport(
        lambda _: httpx.Response(200, content=content, headers={"content-type": "text/event-stream"})
    )
    async with wakeq.AsyncClient("http://queue.example", transport=transport) as client:
        with anyio.fail_after(PATIENCE_S), pytest.raises(wakeq.WakeqError, match="is not a wakeq server's"):
            await anext(client.consume("t"))


async def test_bodies_are_what_json_has_dataclasses_and_models(server: ServerProcess) -> None:
    async with wakeq.AsyncClient(server.url) as client:
        await client.create_topic("bodies", schema="json")
        bodies = ["text", None, [1], Point(1), Model(x=2), {"nested": [Model(x=3)]}]
        for body in bodies:
            await client.publish("bodies", body)
        await client.publish_many("bodies", bodies)
        found = [delivery.body for delivery in await client.claim("bodies", max=20)]
        assert found == ["text", None, [1], {"x": 1}, {"x": 2}, {"nested": [{"x": 3}]}] * 2
        with pytest.raises(TypeError, match="body: object has no JSON form"):
            await client.publish("bodies", object())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"base_url": "ftp://queue"}, "base_url: must be http://HOST:PORT"),
        ({"base_url": "http://"}, "base_url: must be http://HOST:PORT"),
        ({"base_url": "http://[::1"}, "is no URL: Invalid IPv6 URL"),
        ({"base_url": "http://queue:99999"}, "is no URL: Port out of range"),
        ({"base_url": "http://queue\n"}, "is no URL: it has spaces or control characters"),
        ({"transport": "curl"}, "transport: must be an asynchronous transport of httpx, not 'curl'"),
    ],
)
async def test_options_that_are_none_are_refused_by_name(options: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        wakeq.AsyncClient(**options)  # type: ignore[arg-type]


async def test_a_transport_of_httpx_carries_everything(server: ServerProcess) -> None:
    async with wakeq.AsyncClient(server.url, transport=httpx.AsyncHTTPTransport()) as client:
        await client.create_topic("given", schema="json")
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(client.publish, "given", number)
        seen = []
        async with client.consume("given", prefetch=16) as deliveries:
            with anyio.fail_after(PATIENCE_S):
                async for delivery in deliveries:
                    async with delivery:
                        seen.append(delivery.body)
                    if len(seen) == 100:
                        break
            assert deliveries.streams
        assert sorted(seen) == list(range(100))
        assert (await client.topic("given")).messages == 0
        with pytest.raises(wakeq.TopicNotFound):
            await client.publish("none", {})


@pytest.mark.parametrize("transport", [None, httpx.AsyncHTTPTransport()], ids=["ours", "httpx"])
async def test_what_was_never_sent_is_known_not_to_have_happened(transport: httpx.AsyncBaseTransport | None) -> None:
    async with wakeq.AsyncClient("http://127.0.0.1:9", transport=transport, retry_s=0) as client:
        with pytest.raises(wakeq.ServerUnavailable, match=r"no answer from http://127\.0\.0\.1:9/: ") as refused:
            await client.publish("given", 1)
        assert not refused.value.may_have_happened
