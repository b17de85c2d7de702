"""wakeq.Worker on a real server."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pydantic
import pytest

import wakeq
from tests.support.server import ServerProcess, start_server

PATIENCE_S = 30.0


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with start_server(tmp_path_factory.mktemp("data"), durability="os") as server:
        yield server


@pytest.fixture
async def client(server: ServerProcess) -> AsyncIterator[wakeq.AsyncClient]:
    async with wakeq.AsyncClient(server.url) as client:
        yield client


@pytest.fixture
async def topic(client: wakeq.AsyncClient, request: pytest.FixtureRequest) -> str:
    name: str = request.node.name
    await client.create_topic(name, schema="json", retry_backoff_s={"min": 500, "max": 500})
    return name


@asynccontextmanager
async def working(worker: wakeq.Worker) -> AsyncIterator[None]:
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.serve)
            yield
            worker.stop()


class Job(pydantic.BaseModel):
    number: int


@pytest.mark.anyio
async def test_bodies_are_what_the_handler_asks_for(client: wakeq.AsyncClient, topic: str) -> None:
    worker = wakeq.Worker(client=client)
    jobs: list[Job] = []
    done = anyio.Event()

    @worker.handler(topic)
    async def work(job: Job, delivery: wakeq.Delivery) -> None:
        jobs.append(job)
        assert delivery.body == {"number": job.number}
        done.set()

    await client.publish(topic, {"number": "none"})
    await client.publish(topic, Job(number=1))
    async with working(worker):
        await done.wait()
    assert jobs == [Job(number=1)]
    (dead,) = await client.peek(topic, state="dead")
    assert dead.body == {"number": "none"}
    assert dead.reason is not None
    assert dead.reason.startswith("the body is not what the handler asks for: number: ")
    assert (await client.topic(topic)).messages == 0


@pytest.mark.anyio
async def test_a_handler_that_fails_or_takes_too_long_gives_its_message_back(
    client: wakeq.AsyncClient, topic: str
) -> None:
    worker = wakeq.Worker(client=client)
    await client.configure_topic(topic, max_deliveries=1)
    both = anyio.Event()

    @worker.handler(topic, time_limit_s=0.05, concurrency=2)
    async def work(body: str) -> None:
        if body == "fails":
            raise ValueError("no good")
        both.set()
        await anyio.sleep_forever()

    await client.publish_many(topic, ["fails", "hangs"])
    async with working(worker):
        await both.wait()
    reasons = {peeked.body: peeked.reason for peeked in await client.peek(topic, state="dead")}
    assert reasons == {
        "fails": "ValueError: no good",
        "hangs": "HandlerTimeout: the handler took longer than 0.05 s",
    }


@pytest.mark.anyio
async def test_no_more_handlers_run_than_may_and_nothing_is_hoarded(client: wakeq.AsyncClient, topic: str) -> None:
    worker = wakeq.Worker(client=client, concurrency=2)
    running = anyio.Semaphore(2, max_value=2)
    seen: list[int] = []
    two, go_on, done = anyio.Event(), anyio.Event(), anyio.Event()

    @worker.handler(topic)
    async def work(body: int) -> None:
        running.acquire_nowait()
        seen.append(body)
        if len(seen) == 2:
            two.set()
        await go_on.wait()
        running.release()
        if len(seen) == 5:
            done.set()

    await client.publish_many(topic, range(5))
    async with working(worker):
        await two.wait()
        # The others are anybody's.
        (other,) = await client.claim(topic)
        assert other.body == 2
        await other.nack(delay_s=0)
        go_on.set()
        await done.wait()
    assert sorted(seen) == list(range(5))
    assert (await client.topic(topic)).messages == 0


@pytest.mark.anyio
async def test_a_worker_that_stops_finishes_what_runs_and_gives_back_the_rest(
    client: wakeq.AsyncClient, topic: str
) -> None:
    worker = wakeq.Worker(client=client, concurrency=1)
    started, go_on = anyio.Event(), anyio.Event()
    seen: list[int] = []

    @worker.handler(topic)
    async def work(body: int) -> None:
        seen.append(body)
        started.set()
        await go_on.wait()

    await client.publish_many(topic, range(3))
    async with working(worker):
        await started.wait()
        worker.stop()
        rest = await client.claim(topic, max=10, wait_s=20)
        assert [(delivery.body, delivery.attempt) for delivery in rest] == [(1, 1), (2, 1)]
        go_on.set()
    assert seen == [0]
    assert (await client.topic(topic)).messages == 2


@pytest.mark.anyio
async def test_however_often_a_worker_is_started_anew_what_it_did_not_begin_never_dies(
    client: wakeq.AsyncClient, topic: str
) -> None:
    await client.configure_topic(topic, max_deliveries=2)
    await client.publish_many(topic, range(30))
    seen: list[tuple[int, int]] = []
    lives = 0
    with anyio.fail_after(PATIENCE_S):
        while len(seen) < 30:
            lives += 1
            worker = wakeq.Worker(client=client)

            @worker.handler(topic)
            async def work(body: int, delivery: wakeq.Delivery, *, worker: wakeq.Worker = worker) -> None:
                seen.append((body, delivery.attempt))
                worker.stop()

            await worker.serve()
    assert lives > 2
    assert sorted(seen) == [(number, 1) for number in range(30)]
    assert await client.peek(topic, state="dead") == []


@pytest.mark.anyio
async def test_who_is_at_it_after_the_grace_is_cancelled_and_gives_back(client: wakeq.AsyncClient, topic: str) -> None:
    worker = wakeq.Worker(client=client, grace_s=0.1)
    started = anyio.Event()

    @worker.handler(topic)
    async def work(body: int) -> None:
        started.set()
        await anyio.sleep_forever()

    await client.publish(topic, 1)
    async with working(worker):
        await started.wait()
    (again,) = await client.claim(topic, wait_s=20)
    assert again.attempt == 2


@pytest.mark.anyio
async def test_a_plain_function_runs_in_a_thread(client: wakeq.AsyncClient, topic: str) -> None:
    worker = wakeq.Worker(client=client)
    seen: list[Any] = []
    done = anyio.Event()

    @worker.handler(topic)
    def work(body) -> None:  # type: ignore[no-untyped-def]
        seen.append(body)
        anyio.from_thread.run_sync(done.set)

    await client.publish(topic, {"any": 1})
    async with working(worker):
        await done.wait()
    assert seen == [{"any": 1}]
    assert (await client.topic(topic)).messages == 0


@pytest.mark.anyio
async def test_middleware_is_called_around_handlers_the_first_outermost(client: wakeq.AsyncClient, topic: str) -> None:
    calls: list[str] = []
    done = anyio.Event()

    def noting(name: str) -> wakeq.Middleware:
        async def middleware(delivery: wakeq.Delivery, handle: Callable[[], Awaitable[None]]) -> None:
            calls.append(f"{name} before {delivery.body}")
            await handle()
            calls.append(f"{name} after")
            if name == "outer":
                done.set()

        return middleware

    worker = wakeq.Worker(client=client, middleware=[noting("outer"), noting("inner")])

    @worker.handler(topic)
    async def work(body: int) -> None:
        calls.append("handler")

    await client.publish(topic, 1)
    async with working(worker):
        await done.wait()
    assert calls == ["outer before 1", "inner before 1", "handler", "inner after", "outer after"]


@pytest.mark.anyio
async def test_a_topic_that_is_not_there_ends_the_worker(client: wakeq.AsyncClient) -> None:
    worker = wakeq.Worker(client=client)
    worker.handler("none")(print_body)
    with anyio.fail_after(PATIENCE_S), pytest.raises(wakeq.TopicNotFound):
        await worker.serve()


def print_body(body: object) -> None:
    raise AssertionError(body)


def test_what_is_no_handler_is_refused() -> None:
    worker = wakeq.Worker()
    worker.handler("t")(print_body)
    with pytest.raises(ValueError, match="topic 't', group None has a handler already"):
        worker.handler("t")(print_body)
    with pytest.raises(TypeError, match=r"a handler has a parameter for the body.*this one has a, b"):
        worker.handler("u")(lambda a, b: None)
    with pytest.raises(TypeError, match="this one has none"):
        worker.handler("u")(lambda: None)
    with pytest.raises(ValueError, match="concurrency: must be 1 or more, not 0"):
        wakeq.Worker(concurrency=0)


PROGRAM = """
import sys, anyio, wakeq
worker = wakeq.Worker(concurrency=1)

@worker.handler("signals")
async def work(body: int) -> None:
    print("started", body, flush=True)
    async with wakeq.AsyncClient() as queue:
        await queue.claim("release", wait_s=50)
    print("finished", body, flush=True)

worker.run()
print("ended", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_worker_in_order(server: ServerProcess, tmp_path: Path, number: signal.Signals) -> None:
    with wakeq.Client(server.url) as client:
        for topic in ("signals", "release"):
            client.create_topic(topic, schema="json")
        client.publish_many("signals", [1, 2])
        program = tmp_path / "worker.py"
        program.write_text(PROGRAM)
        with subprocess.Popen(
            [sys.executable, program], stdout=subprocess.PIPE, text=True, env={"WAKEQ_URL": server.url, **path()}
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "started 1\n"
                process.send_signal(number)
                # What it had not started is back at once.
                (second,) = client.claim("signals", wait_s=20)
                client.publish("release", None)
                assert process.stdout.read() == "finished 1\nended\n"
                assert process.wait(PATIENCE_S) == 0
            finally:
                process.kill()
        second.ack()
        assert client.topic("signals").messages == 0


def path() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH")}
