"""Stops an operation of the real engine, or of the real application, at each of its awaits in turn.

`Stepped` awaits a coroutine and counts how often it is suspended, so that something can be done exactly at the n-th
time, as it goes to sleep or just before it goes on; whoever asks for n = 1, 2, 3, … until the operation ends by
itself has met every await once. `World` is an engine on a store whose disk is a switch of the test's, with the
application on top; nothing in it runs in another thread, so that every run is the same.
"""

import contextlib
import itertools
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from wakeq_server.app import build_app
from wakeq_server.core.leases import Lease
from wakeq_server.core.lifecycle import State
from wakeq_server.core.model import DEFAULT_GROUP, Delivery, Message, Record, TopicConfig
from wakeq_server.core.queue import MESSAGE_COST, QueueCore
from wakeq_server.core.topic import Group, Topic
from wakeq_server.engine.clocks import Clocks
from wakeq_server.engine.embedded import EmbeddedEngine, open_engine
from wakeq_server.errors import QueueError, StorageFailed
from wakeq_server.http import publishing
from wakeq_server.http.routes import App
from wakeq_server.settings import Settings
from wakeq_server.store.base import Store

BEAT_S = 0.01
HOLD_S = 0.2


class Stepped:
    """A coroutine that is watched at each of its suspensions, counted from 1."""

    def __init__(
        self, operation: Coroutine[Any, Any, object], asleep: Callable[[int], None], awake: Callable[[int], None]
    ) -> None:
        """``asleep`` is called as it is about to be suspended, ``awake`` as it is about to go on."""
        self._operation = operation
        self._asleep = asleep
        self._awake = awake

    def __await__(self) -> Generator[Any, Any, None]:
        resume = partial(self._operation.send, None)
        for number in itertools.count(1):
            try:
                awaited = resume()
            except StopIteration:
                return
            self._asleep(number)
            try:
                value = yield awaited
            except BaseException as error:
                resume = partial(self._operation.throw, error)
            else:
                resume = partial(self._operation.send, value)
            self._awake(number)


class Disk:
    """In front of a store: fails or waits as told, in the event loop's own thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.durable = store.durable
        self.full = False
        self.load, self.read_bodies, self.close = store.load, store.read_bodies, store.close
        self.commits = 0
        self.failing: Iterable[int] = ()
        """Which commits fail, counted from now on."""
        self.open = anyio.Event()
        self.open.set()

    def commit(self, transactions: Iterable[Iterable[Record]]) -> None:
        self.commits += 1
        if self.commits in self.failing:
            raise StorageFailed("told to")
        self._store.commit([list(transaction) for transaction in transactions])

    def stop(self) -> None:
        """From now on the disk doesn't answer."""
        self.open = anyio.Event()

    async def run(self, call: Callable[..., Any], *args: Any, limiter: Any = None, **_: Any) -> Any:
        """`anyio.to_thread.run_sync`, without a thread, and with the same awaits."""
        await anyio.lowlevel.checkpoint()
        async with limiter or contextlib.AsyncExitStack():
            with anyio.CancelScope(shield=True):
                await self.open.wait()
                return call(*args)


class Client:
    """One HTTP client: what it asks, what it was sent, and when it leaves."""

    def __init__(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        accept: str = "",
        kind: str = "application/json",
        prefer: str = "",
        key: str = "",
        kept_alive: bool = True,
    ) -> None:
        path, _, query = path.partition("?")
        said = {"accept": accept, "content-type": kind, "prefer": prefer, "idempotency-key": key}
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), text.encode()) for name, text in said.items() if text],
            "http_version": "1.1",
            "scheme": "http",
            "client": ("127.0.0.1", 1),
            "state": {"connection": self},
        }
        self.kept_alive = kept_alive
        self.incoming = False
        self.fault = None
        self.unsent = 0
        self.read_whole = False
        self.gone = False
        self.events: list[dict[str, Any]] = []
        self.sends = 0
        self.leaves_at: int | None = None
        """The call of `send` at which it is found to be gone."""
        self.breaks = False
        """Whether that call raises."""
        self._left = anyio.Event()
        self._news = anyio.Event()
        self._body: bytes | None = body

    def leave(self) -> None:
        self.gone = True
        self._left.set()

    def abandon(self) -> None:
        self.gone = True

    async def flushed(self) -> None:
        await anyio.lowlevel.checkpoint()

    async def receive(self) -> dict[str, Any]:
        await anyio.lowlevel.checkpoint()
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, event: dict[str, Any]) -> None:
        """As uvicorn's: waits first, and then says nothing to one that is gone."""
        await anyio.lowlevel.checkpoint()
        self.sends += 1
        if self.sends == self.leaves_at:
            self.leave()
            if self.breaks:
                raise OSError("broken pipe")
        if self.gone:
            return
        started, ended = bool(self.events), bool(self.events) and self.answered
        assert (event["type"] == "http.response.start") != started, "an answer was started twice, or not at all"
        assert not ended, "more was sent than the whole"
        self.events.append(event)
        self._news.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for what it is sent to be as wanted; for long, but not for ever."""
        with anyio.fail_after(5.0):
            while not holds():
                self._news = anyio.Event()
                await self._news.wait()

    @property
    def answered(self) -> bool:
        """Whether it has the whole answer."""
        last = self.events[-1] if self.events else {}
        return last.get("type") == "http.response.body" and not last.get("more_body")

    @property
    def status(self) -> int:
        return int(self.events[0]["status"]) if self.events else 0

    @property
    def text(self) -> bytes:
        return b"".join(event.get("body", b"") for event in self.events[1:])

    @property
    def leases(self) -> list[str]:
        """The leases that it knows of: of a whole answer, or of what was written of a stream."""
        lines = [line.removeprefix(b"data: ") for line in self.text.split(b"\n") if line.startswith(b"data: ")]
        if lines:
            return [found["lease_id"] for line in lines if "lease_id" in (found := json.loads(line))]
        return (
            [one["lease_id"] for one in json.loads(self.text)["messages"]]
            if self.answered and self.status == 200
            else []
        )


class World:
    """An engine, the application, and whoever else is there."""

    def __init__(self, engine: EmbeddedEngine, app: App, disk: Disk, others: anyio.abc.TaskGroup) -> None:
        self.engine = engine
        self.app = app
        self.disk = disk
        self.others = others
        self.done: set[str] = set()
        self.published = 0
        self.rivals: list[Delivery] = []
        self.known: list[str] = []
        """Leases that others than the client under test hold, and know of."""

    @property
    def topic(self) -> Topic:
        return self.engine.core.topic("t")

    @property
    def group(self) -> Group:
        return self.topic.groups[DEFAULT_GROUP]

    async def ask(self, client: Client) -> None:
        await self.app(client.scope, client.receive, client.send)

    async def call(self, method: str, path: str, value: object = None) -> Any:
        """Another client's call, answered whole."""
        client = Client(method, path, b"" if value is None else json.dumps(value).encode())
        await self.ask(client)
        assert client.status in (200, 201, 204), client.text
        return json.loads(client.text) if client.text else None

    def once(self, what: str) -> bool:
        """Whether that is asked for the first time."""
        first = what not in self.done
        self.done.add(what)
        return first

    def start(self, operation: Callable[..., Awaitable[object]], *args: object) -> None:
        self.others.start_soon(self._try, operation, *args)

    async def _try(self, operation: Callable[..., Awaitable[object]], *args: object) -> None:
        with contextlib.suppress(QueueError):
            await operation(*args)

    async def compete(self) -> None:
        """A consumer that takes whatever comes free."""
        subscription = await self.engine.subscribe("t")
        while True:
            self.rivals += await subscription.take(1, float("inf"))

    async def settle_down(self) -> None:
        """Until everything that was begun is written and told."""
        self.disk.open.set()
        self.disk.failing = ()
        for _ in range(3):
            # Somebody else's change has everything written, and wakes nobody.
            await self.engine.pause_topic("elsewhere", False)
            for _ in range(8):
                await anyio.lowlevel.checkpoint()


def inline(disk: Disk, patch: pytest.MonkeyPatch) -> None:
    """No threads, and no chance: what they would do is done where it is asked for."""
    patch.setattr(anyio.to_thread, "run_sync", disk.run)
    patch.setattr(publishing, "PUBLISH_HOLD_S", HOLD_S)
    patch.setattr(random, "uniform", lambda low, high: (low + high) / 2)


@asynccontextmanager
async def a_world(store: Store, patch: pytest.MonkeyPatch, *, memory_budget: int = 1 << 62) -> AsyncIterator[World]:
    disk = Disk(store)
    inline(disk, patch)
    settings = Settings(durability="memory", auto_create_topics=False, legacy_heartbeat=BEAT_S)
    clocks = Clocks(wall=lambda: 1_000_000_000.0, timer=lambda: 0.0)
    async with (
        open_engine(disk, clocks, jitter=lambda: 0.0, memory_budget=memory_budget) as engine,
        anyio.create_task_group() as others,
    ):
        await engine.create_topic("elsewhere", TopicConfig())
        yield World(engine, build_app(engine, settings, "0"), disk, others)
        others.cancel_scope.cancel()


def check_consistent(core: QueueCore) -> None:
    """What must hold of any core at rest: nothing half done, and every count right."""
    assert not core.effects, "something has happened that nobody was told of"
    for topic in core.topics.values():
        _check_topic(topic)
    groups = [group for topic in core.topics.values() for group in topic.groups.values()]
    assert core.leased == sum(group.leased for group in groups)
    assert core.memory_used == sum(cost(one) for topic in core.topics.values() for one in topic.messages.values())


def cost(message: Message) -> int:
    return MESSAGE_COST + (message.size if message.body is not None else 0)


def _check_topic(topic: Topic) -> None:
    assert (topic.changing, topic.dropping, topic.coming_groups) == (None, False, {})
    seqs = set(topic.seqs())
    assert topic.held_messages == len(seqs) - len(topic.unheld)
    hot = sum(one.size for seq, one in topic.messages.items() if seq not in topic.unheld)
    assert topic.held_bytes == hot + topic.cold_bytes
    assert not (topic.cold_held == 0 and topic.cold_bytes)
    for group in topic.groups.values():
        _check_group(group, seqs)


def _check_group(group: Group, seqs: set[int]) -> None:
    leases = [place for place in group.open.values() if isinstance(place, Lease)]
    assert all(lease.queue is not None and lease in lease.queue.leases for lease in leases), "stuck in SETTLING"
    assert group.leased == len(leases)
    assert group.open.keys() <= seqs, "there is a place, but no message"
    states = list(group.open.values())
    assert group.waiting == states.count(State.READY)
    assert len(group.delays) == states.count(State.DELAYED)
    assert (len(group.dead), group.dead.promised) == (states.count(State.DEAD), {})
    assert group.attempts.keys() <= group.open.keys()
    assert all(holder in group.open for holder in group.holders.values()), "a key is held by what is gone"
    assert group.ready == sum(group.standing(seq) is State.READY for seq in seqs)
