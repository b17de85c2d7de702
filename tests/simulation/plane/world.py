"""The simulation: draws what happens next from a seed, lets it happen, and asks the checker."""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Coroutine
from random import Random
from typing import Any

from tests.simulation.loop import TICK, VirtualLoop
from tests.simulation.model import Violated, check
from tests.simulation.plane.checker import Checker, Known
from tests.simulation.plane.clients import Clients
from tests.simulation.plane.network import Network
from tests.simulation.plane.queue import Queue
from tests.simulation.plane.server import Server
from tests.simulation.plane.services import ALL, LEGACY, REPLICAS, WORKER, LegacyService, Script, SimControl, SimWorker
from wakeq_control.messages import CONTROL_PLANE
from wakeq_control.model import Snapshot
from wakeq_control.state.base import StateStore

Action = Callable[[], Awaitable[None] | None]
SESSIONS_MAX = 4
OPEN_MAX = 8
WORKERS_MAX = 3
WITH_REPLICAS = 5
"""In one simulation of so many there are replicas; each costs more, and others find sooner what has none to do with."""
NOT_UNDERSTOOD = 0.01
ENDS_WITHIN = 400
"""Moves of the clock at the end."""


class World:
    """One simulation."""

    def __init__(self, loop: VirtualLoop, store: StateStore, seed: int) -> None:
        self.rng = Random(seed)
        self.loop = loop
        self.store = store
        self.step = 0
        self.lines: list[str] = []
        self.violation: Violated | None = None
        self.network = Network(self.rng)
        self.network.loss = self.rng.choice([0.0, 0.05, 0.1])
        self.queue = Queue(self.network, loop.time, self.rng.random)
        self.checker = Checker(loop.time)
        self.queue.topic(CONTROL_PLANE).handed = self.checker.reached
        self.server: Server | None = None
        self.workers: list[SimWorker] = []
        self.replicas: dict[str, SimWorker] = {}
        self.running: set[asyncio.Task[None]] = set()
        self.clients = Clients(self.checker, self.rng, lambda: self.server, self.log)
        self.restarts = 0
        self._numbers = 0
        self._understood: dict[tuple[str, int, int], bool] = {}
        """Whether an event, of a task's attempt, can be."""
        self._control = SimControl(lambda: self.server)
        self.has_replicas = seed % WITH_REPLICAS == 0
        self._services = [WORKER, LEGACY, *[ALL] * self.has_replicas]
        self._actions, self._weights = self._draw_weights()

    def log(self, line: str) -> None:
        self.lines.append(f"{self.step:6d} {self.loop.time():11.3f}  {line}")

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.checker.counts + self.queue.counts) | {"restarts": self.restarts}

    def _draw_weights(self) -> tuple[list[Action], list[float]]:
        """Every seed has another mix."""
        weights: list[tuple[Action, float]] = [
            (self.finish, 26),
            (self.pass_time, 14),
            (self.new_task, 8),
            (self.watch, 4),
            (self.wait, 3),
            (self.add_again, 2),
            (self.new_session, 2),
            (self.update_state, 2),
            (self.look, 6),
            (self.start_worker, 2),
            (self.kill_worker, 1),
            (self.take_lease, 1),
            (self.cut_line, 6),
            (self.break_streams, 1),
            (self.cancel, 1),
            (self.register, 2),
            (self.deregister, 0.4),
            (self.delete_session, 0.4),
            (self.crash, 2),
        ]
        if self.has_replicas:
            weights += [(self.start_replica, 2), (self.kill_replica, 2), (self.lose_sight, 0.5)]
        needed = {self.finish, self.pass_time, self.new_task, self.look, self.register, self.start_worker}
        needed |= {self.start_replica, self.kill_replica}
        scaled = [
            weight * (1.0 if action in needed else self.rng.choice([0.0, 0.5, 1.0, 1.0, 3.0]))
            for action, weight in weights
        ]
        return [action for action, _ in weights], scaled

    def _stored(self) -> Snapshot:
        try:
            return self.store.load()
        except LookupError as error:
            raise Violated(f"what is stored can't be read: {error!r}") from error

    # Running

    async def run(self, steps: int) -> None:
        """Raises Violated."""
        self._begin(LegacyService(self.queue, self.rng, self.number).run())
        self._start_server()
        for name in self._services:
            self._begin(self.clients.register(name, is_worker=name != LEGACY))
        self.new_session()
        self.start_worker()
        for self.step in range(1, steps + 1):
            (action,) = self.rng.choices(self._actions, self._weights)
            done = action()
            if done is not None:
                await done
            if self.rng.random() < 0.5:
                await self.rest()
            else:
                for _ in range(self.rng.randrange(4)):
                    await asyncio.sleep(0)
            self._raise()
        await self._end()

    def _raise(self) -> None:
        if self.violation is not None:
            raise self.violation
        if self.server is not None:
            self.server.check_alive()

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _begin(self, work: Coroutine[Any, Any, object]) -> None:
        async def guarded() -> None:
            try:
                await work
            except Violated as violation:
                self.violation = self.violation or violation
            except BaseExceptionGroup as group:
                found = group.subgroup(Violated)
                if found is None:
                    raise
                self.violation = self.violation or _first(found)

        task = self.loop.create_task(guarded())
        self.running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.violation = self.violation or Violated(f"somebody met {error!r}")

    async def rest(self) -> None:
        for _ in range(5_000):
            await asyncio.sleep(0)
            if self.loop.idle():
                self._raise()
                return
        raise Violated("it never comes to rest")

    # The control plane

    def _start_server(self) -> None:
        self.log("starts")
        new_id = lambda: f"id{self.number()}"  # noqa: E731
        self.server = Server(
            self.loop,
            self.store,
            self.queue,
            self.network,
            new_id,
            self._said,
            self.checker.saw_present if self.has_replicas else None,
        )

    def _said(self, word: dict[str, Any]) -> bool:
        """An attempt says something. A few events can't be understood, however often they come."""
        for index, _ in enumerate(word["events"], word["index"]):
            about = (word["task_id"], word["attempt"], index)
            if about not in self._understood:
                self._understood[about] = self.rng.random() > NOT_UNDERSTOOD
            if not self._understood[about]:
                return False
        self.checker.said(word)
        return True

    async def crash(self) -> None:
        if self.server is None:
            self._start_server()
            self.restarts += 1
            return
        commits = self.rng.randrange(3)
        self.log(f"crashes behind {commits} commits")
        server, self.server = self.server, None
        await server.crash(commits)
        self.checker.check_stored(self._stored())
        if self.rng.random() < 0.7:
            self._start_server()
            self.restarts += 1

    def finish(self) -> None:
        if self.server is not None:
            self.server.calls.finish()

    def _timer(self) -> float | None:
        timer = self.loop.next_timer()
        return None if timer == math.inf else timer

    def pass_time(self) -> None:
        timer = self._timer()
        furthest = self.loop.time() + self.rng.choice([TICK, 0.25, 1.0, 4.0])
        self.loop.move(furthest if timer is None else min(timer, furthest))
        self.queue.pass_time()

    async def look(self) -> None:
        """Let everything happen that can, and see whether that is what should have."""
        while True:
            await self.rest()
            if self.server is None or not self.server.calls.running:
                break
            self.server.calls.finish()
        snapshot = self._stored()
        if self.server is None:
            self.checker.check_stored(snapshot)
            return
        self.checker.at_rest(self.server, snapshot)
        for name, topic in self.queue.topics.items():
            starving = [stream for stream in topic.streams if stream.starving]
            check(not starving, f"a consumer of {name} waits, and there are {topic.waiting}")

    # Services

    def start_worker(self) -> None:
        if len(self.workers) < WORKERS_MAX:
            script = Script(self.checker, self.rng)
            worker = SimWorker(f"w{self.number()}", self.queue, self._control, script, self.rng)
            self.workers.append(worker)
            self._begin(worker.run())

    def kill_worker(self) -> None:
        if self.workers:
            worker = self.workers.pop(self.rng.randrange(len(self.workers)))
            self.log("a worker dies")
            worker.scope.cancel()

    def start_replica(self) -> None:
        missing = [name for name in REPLICAS if name not in self.replicas]
        if missing:
            name = self.rng.choice(missing)
            script = Script(self.checker, self.rng)
            worker = SimWorker(f"w{self.number()}", self.queue, self._control, script, self.rng, name)
            self.replicas[name] = worker
            self._begin(worker.run())

    def kill_replica(self) -> None:
        if self.replicas:
            name = self.rng.choice(sorted(self.replicas))
            self.log(f"replica {name} dies")
            self.replicas.pop(name).scope.cancel()

    def lose_sight(self) -> None:
        """The control plane doesn't hear of the queue who is there."""
        if self.server is not None:
            self.server.sight.set()

    def take_lease(self) -> None:
        """A worker's lease ends, and it doesn't notice: two have the task."""
        streams = [stream for stream in self.queue.topic(WORKER).streams if stream.leased]
        if streams:
            stream = self.rng.choice(streams)
            stream.give_back(self.rng.choice(stream.in_order()))

    def cut_line(self) -> None:
        if self.server is not None:
            self.server.cut_lines(self.rng.choice)

    def break_streams(self) -> None:
        self.queue.break_streams()

    def register(self) -> None:
        name = self.rng.choice(self._services)
        self._begin(self.clients.register(name, is_worker=name != LEGACY))

    def deregister(self) -> None:
        self._begin(self.clients.deregister(self.rng.choice(self._services)))

    # Clients

    def _session(self) -> str | None:
        usable = [one for one, may_be_gone in self.checker.sessions.items() if not may_be_gone]
        return self.rng.choice(usable) if usable else None

    def new_session(self) -> None:
        if sum(not gone for gone in self.checker.sessions.values()) < SESSIONS_MAX:
            self._begin(self.clients.create_session())

    def delete_session(self) -> None:
        session = self._session()
        if session is not None:
            self._begin(self.clients.delete_session(session))

    def update_state(self) -> None:
        session = self._session()
        if session is not None:
            number = self.number()
            self._begin(self.clients.update_state(session, f"key{number}", number))
            self._begin(self.clients.count(session))

    def new_task(self) -> None:
        session = self._session()
        if session is None or self.checker.open_tasks() >= OPEN_MAX:
            return
        steps = self.rng.choices(["event", "question"], [3, 1], k=self.rng.randrange(8))
        (fails,) = self.rng.choices(["never", "for good", "at times"], [4, 1, 5])
        given = json.dumps({"steps": steps, "fails": fails})
        service = self.rng.choice([WORKER, WORKER, WORKER, LEGACY, LEGACY, *[ALL] * (3 * self.has_replicas)])
        timeout_s = self.rng.choice([None, None, None, 2.0, 30.0])
        known = Known(f"T{self.number()}", session, service, given, self.loop.time(), timeout_s)
        self.checker.tasks[known.id] = known
        self._begin(self._life(known))

    async def _life(self, known: Known) -> None:
        accepted = await self.clients.add(known, insists=self.rng.random() < 0.8)
        # Whoever has given up may have begun it all the same.
        self._begin(self.clients.watch(known, answers=True))
        if accepted and self.rng.random() < 0.5:
            self._begin(self.clients.wait(known))

    def _accepted(self) -> Known | None:
        found = [known for known in self.checker.tasks.values() if known.accepted]
        return self.rng.choice(found[-OPEN_MAX:]) if found else None

    def watch(self) -> None:
        if (known := self._accepted()) is not None:
            self._begin(self.clients.watch(known))

    def wait(self) -> None:
        if (known := self._accepted()) is not None:
            self._begin(self.clients.wait(known))

    def cancel(self) -> None:
        if (known := self._accepted()) is not None:
            self._begin(self.clients.cancel(known))

    def add_again(self) -> None:
        known = self._accepted()
        if known is not None and known.end is None and not self.checker.may_be_forgotten(known):
            self._begin(
                self.clients.add(known, insists=True) if self.rng.random() < 0.5 else self.clients.add_other(known)
            )

    # The end

    async def _end(self) -> None:
        """Nothing goes wrong any more: then everything that was accepted must come to its end."""
        self.log("calms down")
        self.network.loss = 0.0
        if self.server is None:
            self._start_server()
        for name in self._services:
            self._begin(self.clients.register(name, is_worker=name != LEGACY))
        self.start_worker()
        if self.has_replicas:
            self.start_replica()
        assert self.server is not None
        for _ in range(ENDS_WITHIN):
            await self.look()
            snapshot = self._stored()
            if not any(str(task.status) in ("queued", "running", "waiting_input") for task in snapshot.tasks):
                break
            timer = self._timer()
            check(timer is not None, f"nothing will ever happen, and there are open tasks: {snapshot.tasks}")
            self.loop.move(timer or 0.0)
            self.queue.pass_time()
        for _ in range(64):
            # Whoever has lost an answer asks again.
            await self.look()
            self.loop.move(self.loop.time() + 16 * TICK)
            self.queue.pass_time()
        snapshot = self._stored()
        self.checker.at_the_end(snapshot, self.queue.starts, len(snapshot.outgoing))
        dead = [message.body for topic in self.queue.topics.values() for message in topic.dead]
        check(not dead, f"there are dead letters: {dead}")


def _first(group: BaseExceptionGroup[Violated]) -> Violated:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, Violated)
    return found
