"""One life of the control plane, from its start on what the disk has to its end, clean or not."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import anyio

import wakeq
from tests.simulation.disk import SlowCalls
from tests.simulation.loop import TICK, VirtualLoop
from tests.simulation.model import Violated
from tests.simulation.plane.network import Lost, Network
from tests.simulation.plane.queue import Broker, Queue
from wakeq_control.engine.engine import Engine
from wakeq_control.engine.links import Link
from wakeq_control.errors import ControlError, StorageFailed
from wakeq_control.http.attempts import Attempts
from wakeq_control.http.held import Lot
from wakeq_control.link.inbox import Inbox
from wakeq_control.link.outbox import Outbox
from wakeq_control.model import Change
from wakeq_control.plane import Plane
from wakeq_control.state.base import StateStore

T = TypeVar("T")
RESTS_WITHIN = 5_000
KEEP = 30
KEEP_S = 200.0
SERVICE_WAIT_S = 10.0
_NOT_FOUND = 404


class WatchedStore:
    """A store that dies with its server, before or behind any commit."""

    def __init__(self, inner: StateStore) -> None:
        self._inner = inner
        self.commits = 0
        self.commits_left: int | None = None
        """How many more succeed before the server dies."""
        self.dead = False

    def commit(self, changes: Sequence[Change]) -> None:
        if self.dead or self.commits_left == 0:
            self.dead = True
            raise StorageFailed("the server is dead")
        if self.commits_left is not None:
            self.commits_left -= 1
        self._inner.commit(changes)
        self.commits += 1

    def load(self) -> Any:
        return self._inner.load()

    def close(self) -> None:
        pass


class Waits:
    """Who is parked in the control plane, for what."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._waiting: dict[int, tuple[Any, ...]] = {}
        self._number = 0

    async def during(self, what: tuple[Any, ...], call: Awaitable[T]) -> T:
        self._number += 1
        number = self._number
        self._waiting[number] = (*what, self._now())
        try:
            return await call
        finally:
            del self._waiting[number]

    def all(self) -> list[tuple[Any, ...]]:
        return list(self._waiting.values())


class Server:
    """A control plane in a task of its own."""

    def __init__(
        self,
        loop: VirtualLoop,
        store: StateStore,
        queue: Queue,
        network: Network,
        new_id: Callable[[], str],
        said: Callable[[dict[str, Any]], bool],
        saw: Callable[[set[str] | None], None] | None,
    ) -> None:
        """``said`` is told of what an attempt says before it is heard, and says whether that can be understood.

        ``saw`` is told whom the server knows to be there, None where it doesn't know; without it nobody ever tells.
        """
        self._queue = queue
        self._saw = saw
        self.sight = anyio.Event()
        """Set when it is to lose it."""
        self.store = WatchedStore(store)
        self.calls = SlowCalls()
        self.waits = Waits(loop.time)
        self._said = said
        self._loop = loop
        self._network = network
        self.plane = Plane(new_id, keep=KEEP, keep_s=KEEP_S, jitter=random.random)
        self.plane.restore(store.load())
        store.commit(self.plane.name_itself().changes)
        self.engine = Engine(self.plane, self.store, loop.time, wait_for_service_s=SERVICE_WAIT_S, offload=self.calls)
        self._attempts = Attempts(self.engine, Lot())
        self._broker = Broker(queue)
        self.dead = False
        self._scope = anyio.CancelScope()
        self._requests: dict[anyio.CancelScope, None] = {}
        self._lines: dict[tuple[str, int], Line] = {}
        self._task = loop.create_task(self._serve())

    async def _serve(self) -> None:
        with self._scope:
            outbox, inbox = Outbox(self.engine, self._broker), Inbox(self.engine, self._broker)  # type: ignore[arg-type]
            for message in self.engine.unsent():
                outbox.put(message)
            self.engine.to_send = outbox.put
            async with anyio.create_task_group() as tasks:
                for part in (self.engine.run, outbox.run, inbox.run):
                    tasks.start_soon(part)
                if self._saw is not None:
                    tasks.start_soon(self._watch, self._saw)

    async def _watch(self, saw: Callable[[set[str] | None], None]) -> None:
        """Hear of the queue who is there, until that breaks off, and again."""
        while True:
            with suppress(Lost):
                await self._network.carry()
                self.sight = anyio.Event()
                self.engine.consumers_are(sorted(self._queue.present))
                saw(self._present())
                self._queue.watcher = partial(self._see, saw)
                try:
                    await self.sight.wait()
                finally:
                    self._queue.watcher = None
                    self.engine.lost_sight()
                    saw(None)
            await anyio.sleep(TICK)

    def _see(self, saw: Callable[[set[str]], None], address: str, consumer: str, comes: bool) -> None:
        (self.engine.consumer_came if comes else self.engine.consumer_went)(address, consumer)
        saw(self._present())

    def _present(self) -> set[str]:
        return {address for address, _ in self._queue.present}

    async def ask(self, what: tuple[Any, ...], call: Callable[[Engine], Awaitable[T]]) -> T:
        """A request and its answer. Raises Lost, and what the engine does."""
        await self._network.carry()
        answer: list[T] = []
        refused: list[ControlError] = []
        with anyio.CancelScope() as scope:
            if self.dead:
                raise Lost("nobody is there")
            self._requests[scope] = None
            try:
                answer.append(await self.waits.during(what, call(self.engine)))
            except ControlError as error:
                refused.append(error)
            finally:
                self._requests.pop(scope, None)
        if self.dead:
            raise Lost("it died meanwhile")
        await self._network.carry()
        if refused:
            raise refused[0]
        return answer[0]

    @asynccontextmanager
    async def link(self, worker: str, number: int) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """A worker's stream."""
        await self._network.carry()
        if self.dead:
            raise Lost("nobody is there")
        line, scope = Line(), anyio.CancelScope()
        self._requests[scope] = None
        link = self.engine.links.open(worker, number)
        self._lines[(worker, number)] = line
        following = self._loop.create_task(self._follow(scope, line, link))
        try:
            yield line.lines()
        finally:
            scope.cancel()
            await asyncio.wait([following])

    async def _follow(self, scope: anyio.CancelScope, line: "Line", link: Link) -> None:
        line.scope = scope
        with scope:
            await self._attempts._tell(line, link)  # type: ignore[arg-type]
        link.close()
        self._requests.pop(scope, None)
        self._lines = {name: one for name, one in self._lines.items() if one is not line}
        line.over = True
        line.something.set()

    async def hear(self, worker: str, number: int, words: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What attempts say, and the answers. Raises Lost, and WakeqError where the link is unknown."""

        async def heard(engine: Engine) -> list[dict[str, Any]]:
            link = engine.links.find(worker, number)
            if link is None:
                raise UnknownLink
            answers = [self._heard(link, word) for word in words]
            if (line := self._lines.get((worker, number))) is not None:
                for word, answer in zip(words, answers, strict=True):
                    line.answered(word, answer)
            await engine.settled()
            return answers

        try:
            return await self.ask(("words",), heard)
        except UnknownLink:
            raise wakeq.WakeqError("no such link", status=_NOT_FOUND) from None

    def _heard(self, link: Link, word: dict[str, Any]) -> dict[str, Any]:
        if word.get("events") is not None and not self._said(word):
            return {"code": "INVALID_BODY", "detail": "it can't be understood"}
        return self._attempts._heard_one(link, word)

    def follows(self) -> list[tuple[str, int, int]]:
        """Task, attempt and how many inputs were told, of what workers follow over lines that are whole."""
        return [(*about, line.told[ref]) for line in self._lines.values() for ref, about in line.follows.items()]

    def cut_lines(self, chosen: Callable[[list["Line"]], "Line"]) -> None:
        """A worker's connection breaks, of one that has most to lose by it."""
        lines = list(self._lines.values())
        for worse in (lambda line: line.follows, lambda line: any(line.told.get(ref) for ref in line.follows)):
            lines = [line for line in lines if worse(line)] or lines
        if lines:
            chosen(lines).scope.cancel()

    def check_alive(self) -> None:
        """Raises what has ended it."""
        if self._task.done() and not self._task.cancelled() and self._task.exception() is not None:
            raise Violated(f"the control plane ended by {self._task.exception()!r}") from self._task.exception()

    async def rest(self) -> None:
        """Run until nobody can, before time moves."""
        for _ in range(RESTS_WITHIN):
            await asyncio.sleep(0)
            if self._loop.idle():
                if not self.dead:
                    self.check_alive()
                return
        raise Violated("it never comes to rest")

    async def crash(self, commits_left: int) -> None:
        """End without another word; ``commits_left``: how many commits still reach the disk."""
        self.store.commits_left = commits_left
        self.calls.finish()
        for _ in range(3):
            await asyncio.sleep(0)
        self.store.dead = self.dead = True
        self._scope.cancel()
        for scope in list(self._requests):
            scope.cancel()
        self.calls.finish_all()
        await asyncio.wait([self._task])


class UnknownLink(ControlError):
    """The server has no such link."""

    def __init__(self) -> None:
        super().__init__("no such link")


class Line:
    """What `wakeq_control.http.held.Held` is to the server, and a stream of lines to the worker."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self._parts: list[bytes] = []
        self.something = anyio.Event()
        self.over = False
        self.follows: dict[int, tuple[str, int]] = {}
        """Attempts that were begun or announced, and aren't over as far as was said: task and number."""
        self.told: dict[int, int] = {}
        """How many inputs each was told."""

    def answered(self, word: dict[str, Any], answer: dict[str, Any]) -> None:
        """What a worker was told by an answer."""
        ref = word["ref"]
        if "attempt" in answer:
            self.follows[ref] = (word["task_id"], answer["attempt"])
            self.told[ref] = max(self.told.get(ref, 0), len(answer["inputs"]))
        elif "ended" in answer or word.get("end") is not None:
            self.follows.pop(ref, None)

    async def begin(self) -> None:
        pass

    async def wait(self, work: Callable[[], Awaitable[T]]) -> T:
        return await work()

    async def write(self, part: bytes) -> None:
        for said in map(json.loads, part.splitlines()):
            if "ended" in said:
                self.follows.pop(said["ref"], None)
            else:
                self.told[said["ref"]] = max(self.told.get(said["ref"], 0), said["number"])
        self._parts.append(part)
        self.something.set()

    async def lines(self) -> AsyncIterator[dict[str, Any]]:
        while True:
            while self._parts:
                for line in self._parts.pop(0).splitlines():
                    yield json.loads(line)
            if self.over:
                return
            self.something = anyio.Event()
            await self.something.wait()
