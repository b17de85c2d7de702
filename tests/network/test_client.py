"""wakeq.AsyncClient on lines that break again and again: what it publishes is there once, and is consumed."""

import random
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

import wakeq
from tests.support.line import Break, Line, line_to
from tests.support.server import ServerProcess, start_server

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    # A response of httpx is generators in generators: whoever leaves one early can close the outermost alone.
    pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning"),
]

PATIENCE_S = 60.0
MESSAGES = 150
BREAKS = 16


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with start_server(tmp_path, "--drain", "0", durability="fsync") as running:
        yield running
        assert running.terminate() == 0
        assert not running.events("raw"), "something was written past the log, a traceback perhaps"
        assert not [entry for entry in running.log if entry["level"] not in ("info", "warning")]


@pytest.fixture
def line(server: ServerProcess) -> Iterator[Line]:
    rng = random.Random(20_261_129)
    with line_to(server) as line:
        for _ in range(BREAKS):
            line.breaks.append(Break(rng.choice(["reset", "cut"]), answered=rng.randrange(12_000)))
        yield line


async def test_what_is_published_on_a_bad_line_is_there_once_and_is_consumed_on_one(
    server: ServerProcess, line: Line
) -> None:
    async with wakeq.AsyncClient(server.url) as direct, wakeq.AsyncClient(line.url) as client:
        await direct.create_topic("t", max_deliveries=0, retry_backoff_s={"min": 0, "max": 0})
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                for number in range(MESSAGES):
                    tasks.start_soon(client.publish, "t", number)
            assert (await direct.topic("t")).messages == MESSAGES
            seen: set[int] = set()
            async with client.consume("t", prefetch=10, lease_s=5) as deliveries:
                while len(seen) < MESSAGES:
                    delivery = await anext(deliveries)
                    seen.add(delivery.body)
                    try:
                        await delivery.ack()
                    except wakeq.LeaseLost:
                        # Its lease went with its stream, and the message comes again.
                        seen.discard(delivery.body)
            assert seen == set(range(MESSAGES))
            assert (await direct.topic("t")).messages == 0
    assert line.broken.qsize() >= BREAKS // 2, "the line was too good to show anything"
