"""What all streams of events have in common: heartbeats, and what becomes of a client that takes nothing.

Each case runs on a stream of messages and on `/events`, by a clock that stands still until a test moves it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from tests.support.clock import jump_clock, standing_trio
from wakeq_server.app import build_app
from wakeq_server.core.model import Consumer, TopicConfig
from wakeq_server.engine import presence
from wakeq_server.engine.clocks import Clocks
from wakeq_server.engine.embedded import EmbeddedEngine, open_engine
from wakeq_server.errors import TopicNotFound
from wakeq_server.http.routes import App
from wakeq_server.settings import BLOCKED_S, EVENTS_PART, STREAM_HEARTBEAT_S, Settings
from wakeq_server.store.memory import MemoryStore

pytestmark = pytest.mark.anyio

STREAMS = ["/messages/t?lease=30", "/messages/t", "/events"]
streams = pytest.mark.parametrize("path", STREAMS)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return standing_trio()


async def jump(seconds: float) -> None:
    await wait_all_tasks_blocked()
    jump_clock(seconds)
    await wait_all_tasks_blocked()


class Client:
    """A client of one stream: an ASGI server's side of a connection whose buffer may be full."""

    gone = read_whole = incoming = False
    kept_alive = True
    fault = None
    unsent = 0

    def __init__(self, path: str) -> None:
        self.takes_all = anyio.Event()
        self.takes_all.set()
        self.line_is_cut = anyio.Event()
        self.sent: list[bytes] = []
        self.ended = ""
        path, _, query = path.partition("?")
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": "GET",
            "path": path,
            "query_string": query.encode(),
            "headers": [(b"accept", b"text/event-stream")],
            "http_version": "1.1",
            "client": ("127.0.0.1", 1),
            "state": {"connection": self},
        }

    async def flushed(self) -> None:
        await self.takes_all.wait()

    async def receive(self) -> dict[str, Any]:
        await self.line_is_cut.wait()
        return {"type": "http.disconnect"}

    async def send(self, event: dict[str, Any]) -> None:
        self.sent.append(event.get("body", b""))
        if event["type"] == "http.response.body" and not event.get("more_body"):
            self.ended = "finished"

    def abandon(self) -> None:
        self.ended = "cut off"

    async def run(self, app: App) -> None:
        await app(self.scope, self.receive, self.send)
        assert self.ended, "neither finished nor cut off"

    def stuff(self) -> None:
        """From now on nothing leaves the buffer."""
        self.takes_all = anyio.Event()
        self.unsent = 1_000


class Server:
    """An application, its engine, and where its requests run."""

    def __init__(self, app: App, engine: EmbeddedEngine, tasks: anyio.abc.TaskGroup) -> None:
        self.app = app
        self.engine = engine
        self.tasks = tasks

    async def open(self, path: str) -> Client:
        client = Client(path)
        self.tasks.start_soon(client.run, self.app)
        await wait_all_tasks_blocked()
        return client


@asynccontextmanager
async def a_server() -> AsyncIterator[Server]:
    clocks = Clocks(lambda: 1000.0, lambda: 0.0)
    async with open_engine(MemoryStore(1), clocks) as engine, anyio.create_task_group() as tasks:
        await engine.create_topic("t", TopicConfig())
        yield Server(build_app(engine, Settings(durability="memory"), "0"), engine, tasks)
        tasks.cancel_scope.cancel()


@streams
async def test_a_silent_stream_has_a_heartbeat_every_fifteen_seconds(path: str) -> None:
    async with a_server() as server:
        client = await server.open(path)
        begun = len(client.sent)
        for _ in range(40):
            await jump(STREAM_HEARTBEAT_S / 10)
        beats = client.sent[begun:]
        assert set(beats) == {b":\n\n"}
        assert 3 <= len(beats) <= 6
        assert client.ended == ""


async def test_streams_of_all_kinds_beat_at_shared_moments() -> None:
    async with a_server() as server:
        clients = [await server.open(path) for path in STREAMS]
        before = [len(client.sent) for client in clients]
        for _ in range(1000):
            await jump(STREAM_HEARTBEAT_S / 100)
            beaten = [len(client.sent) > count for client, count in zip(clients, before, strict=True)]
            if any(beaten):
                break
        assert beaten == [True] * 3


@streams
async def test_a_client_that_takes_nothing_is_cut_off(path: str) -> None:
    async with a_server() as server:
        client = await server.open(path)
        client.stuff()
        # Within a third more than its interval a heartbeat gets stuck.
        await jump(STREAM_HEARTBEAT_S * 4 / 3)
        written = len(client.sent)
        await jump(BLOCKED_S - 0.1)
        assert (client.ended, len(client.sent)) == ("", written)
        await jump(0.1)
        assert (client.ended, len(client.sent)) == ("cut off", written)


@streams
async def test_a_client_that_takes_it_in_time_is_not(path: str) -> None:
    async with a_server() as server:
        client = await server.open(path)
        client.stuff()
        await jump(STREAM_HEARTBEAT_S * 4 / 3)
        await jump(BLOCKED_S - 0.1)
        client.takes_all.set()
        await jump(BLOCKED_S)
        assert client.ended == ""


@streams
async def test_a_client_that_takes_some_of_it_in_time_is_not(path: str) -> None:
    async with a_server() as server:
        client = await server.open(path)
        client.stuff()
        await jump(STREAM_HEARTBEAT_S * 4 / 3)
        for _ in range(5):
            client.unsent -= 1
            await jump(BLOCKED_S)
            assert client.ended == ""
        await jump(BLOCKED_S)
        assert client.ended == "cut off"


@streams
async def test_a_client_that_hangs_up_leaves_nothing_open(path: str) -> None:
    async with a_server() as server:
        client = await server.open(path)
        client.line_is_cut.set()
        await jump(10)
        assert client.ended == "cut off"
        assert await server.engine.consumers("t", None) == []
        assert not server.engine._presences._watches
        assert server.engine.parked() == 0


async def appear(server: Server, count: int) -> None:
    """So many consumers come, that nothing but the engine knows of."""

    async def park(consumer: Consumer) -> None:
        with suppress(TopicNotFound):
            await (await server.engine.subscribe("t", consumer=consumer)).take(1, 1000.0)

    for number in range(count):
        server.tasks.start_soon(park, Consumer(f"c{number}", "x"))
    await wait_all_tasks_blocked()


async def test_while_a_watcher_takes_nothing_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "BACKLOG_MAX", 10)
    async with a_server() as server:
        slow, quick = await server.open("/events"), await server.open("/events?topics=t")
        slow.stuff()
        await server.engine.create_topic("first", TopicConfig())
        await wait_all_tasks_blocked()
        written = len(slow.sent)
        for number in range(11):
            await server.engine.create_topic(f"more {number}", TopicConfig())
        await wait_all_tasks_blocked()
        assert (slow.ended, len(slow.sent)) == ("", written)
        slow.takes_all.set()
        await wait_all_tasks_blocked()
        assert slow.sent[written:] == [b"event: overflow\ndata: {}\n\n", b""]
        assert (slow.ended, quick.ended) == ("finished", "")


async def test_a_long_snapshot_is_written_in_parts_and_followed_by_what_happened_meanwhile() -> None:
    count = EVENTS_PART * 2 + 1
    async with a_server() as server:
        await appear(server, count)
        client = Client("/events")
        client.stuff()
        server.tasks.start_soon(client.run, server.app)
        await wait_all_tasks_blocked()
        await server.engine.delete_topic("t")
        client.takes_all.set()
        await wait_all_tasks_blocked()
        assert max(part.count(b"event: ") for part in client.sent) == EVENTS_PART
        before, _, after = b"".join(client.sent).partition(b"event: snapshot.end\ndata: {}\n\n")
        assert before.count(b"event: consumer.parked") == count
        assert after.count(b"event: consumer.gone") == count
        assert b"event: topic.deleted" in after[-150:]


async def test_a_drain_ends_streams_of_events() -> None:
    async with a_server() as server:
        clients = [await server.open(path) for path in STREAMS]
        server.engine.drain()
        await wait_all_tasks_blocked()
        assert [client.sent[-2:] for client in clients] == [[b"event: drain\ndata: {}\n\n", b""]] * 3
        assert not server.engine._presences._watches
