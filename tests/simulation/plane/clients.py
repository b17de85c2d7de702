"""Clients: each asks for one thing until it has it, whatever dies meanwhile, and tells the checker what it was told."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random
from typing import Any, TypeVar

import anyio

from tests.simulation.loop import TICK
from tests.simulation.model import check
from tests.simulation.plane.checker import Checker, Counted, Known
from tests.simulation.plane.network import Lost
from tests.simulation.plane.server import SERVICE_WAIT_S, Server
from tests.simulation.plane.services import ALL, RETRY
from wakeq_control.engine.engine import Engine
from wakeq_control.errors import ServiceNotFound, SessionNotFound, StateConflict, TaskConflict, TaskNotFound
from wakeq_control.model import Retry, Service
from wakeq_control.plane import NewTask

T = TypeVar("T")
NOT_THERE = (SessionNotFound, TaskNotFound)
PATIENCE_TICKS = 128
RESULT_WAIT_S = 20.0


class Clients:
    """What clients do."""

    def __init__(self, checker: Checker, rng: Random, server: Callable[[], Server | None], log: Any) -> None:
        self._checker = checker
        self._rng = rng
        self._server = server
        self._log = log
        self._deregistering: Counter[str] = Counter()
        """Calls under way, by service."""
        self._deregistered: Counter[str] = Counter()
        """Calls so far."""

    async def _ask(self, what: tuple[Any, ...], call: Callable[[Engine], Awaitable[T]]) -> T:
        server = self._server()
        if server is None:
            raise Lost("nobody is there")
        return await server.ask(what, call)

    async def _insist(self, what: tuple[Any, ...], call: Callable[[Engine], Awaitable[T]]) -> T:
        while True:
            try:
                return await self._ask(what, call)
            except Lost:
                await self._rest()

    async def _rest(self) -> None:
        await anyio.sleep(self._rng.randint(1, PATIENCE_TICKS) * TICK)

    # Services and sessions

    async def register(self, name: str, *, is_worker: bool) -> None:
        service = Service(name, "", [], None, None, None, is_worker, RETRY if is_worker else Retry())
        if name == ALL:
            service = replace(service, delivery="all")
        before = self._deregistered[name] if not self._deregistering[name] else -1
        await self._insist(("register", name), lambda engine: engine.register(service))
        self._checker.registered[name] = self._deregistered[name] == before

    async def deregister(self, name: str) -> None:
        self._checker.registered[name] = False
        self._deregistering[name] += 1
        self._deregistered[name] += 1
        try:
            await self._ask(("deregister", name), lambda engine: engine.deregister(name))
        except Lost:
            return
        finally:
            self._deregistering[name] -= 1

    async def create_session(self) -> None:
        try:
            session_id = await self._ask(("create",), lambda engine: engine.create_session())
        except Lost:
            return
        self._log(f"session {session_id}")
        self._checker.sessions[session_id] = False

    async def delete_session(self, session_id: str) -> None:
        self._checker.sessions[session_id] = True
        await self._insist(("delete", session_id), lambda engine: engine.delete_session(session_id))
        self._log(f"deleted {session_id}")
        self._checker.deleted.add(session_id)

    async def update_state(self, session_id: str, key: str, value: int) -> None:
        """Of a key that nobody else writes just now."""
        may_be = self._checker.values.setdefault((session_id, key), [None])
        may_be.append(value)
        try:
            await self._ask(("state",), lambda engine: engine.update_state(session_id, {key: value}))
        except (Lost, SessionNotFound):
            return
        self._checker.values[(session_id, key)] = [value]

    async def count(self, session_id: str) -> None:
        """Add one to a number to which others add too, with the version that was read."""
        counted = self._checker.counters.setdefault(session_id, Counted())
        try:
            state = await self._ask(("state",), lambda engine: engine.own_state(session_id))
            more = {"count": state.values.get("count", 0) + 1}
            counted.at_most += 1
            await self._ask(("state",), lambda engine: engine.update_state(session_id, more, {state.version}))
        except StateConflict:
            counted.at_most -= 1
            self._checker.counts["conflicts"] += 1
        except (Lost, SessionNotFound):
            return
        else:
            counted.at_least += 1

    # Tasks

    async def add(self, known: Known, *, insists: bool) -> bool:
        """Begin a task, again and again where its answer is lost; whether it was accepted."""
        new = NewTask(known.input, known.service, "service_id", known.id, None, known.timeout_s)
        while True:
            called = self._checker.now()
            try:
                answer = await self._ask(
                    ("add", known.id, known.service), lambda engine: engine.add_task(known.session, new)
                )
            except Lost:
                if not insists:
                    return False
                await self._rest()
            except ServiceNotFound:
                check(self._checker.now() >= called + SERVICE_WAIT_S, f"{known.id} was refused too soon")
                check(not known.accepted, f"{known.id} was accepted, and then refused")
                return False
            except SessionNotFound:
                check(self._checker.sessions[known.session], f"session {known.session} is gone")
                return False
            else:
                self._log(f"task {known.id} is accepted as {answer}")
                self._checker.task_added(known, answer)
                return True

    async def add_other(self, known: Known) -> None:
        """Another task with the id of one that was accepted."""
        other = NewTask("{}", known.service, "service_id", known.id)
        try:
            await self._ask(("add", known.id, known.service), lambda engine: engine.add_task(known.session, other))
        except (Lost, TaskConflict, ServiceNotFound, SessionNotFound):
            return
        self._checker.gone(known)
        # It was forgotten, and its id is another's now: nothing can be said of it any more.
        known.session, self._checker.sessions["other"] = "other", True
        check(False, f"{known.id} was there, and was taken for another task")

    async def wait(self, known: Known) -> None:
        """For its result."""
        while True:
            try:
                result = await self._insist(
                    ("result", known.id), lambda engine: engine.result(known.session, known.id, RESULT_WAIT_S)
                )
                if result is not None:
                    task = await self._insist(("task",), lambda engine: engine.task(known.session, known.id))
                    self._log(f"{known.id} is {task.status}: {result['result']}")
                    self._checker.saw_end(known, str(task.status), result)
                    return
                await self._insist(("task",), lambda engine: engine.task(known.session, known.id))
            except NOT_THERE:
                self._checker.gone(known)
                return

    async def watch(self, known: Known, *, answers: bool = False) -> None:
        """Its events, from the first on; after a broken connection from there on, or anew."""
        shown, answered, last = 0, 0, -1
        ended = False
        while not ended:
            try:
                # The lambda is called before `shown` changes.
                new, ended = await self._ask(
                    ("events", known.id, shown),
                    lambda engine: engine.more_events(known.session, known.id, shown),  # noqa: B023
                )
            except Lost:
                shown, last = self._rng.choice([(0, -1), (shown, last)])
                await self._rest()
                continue
            except NOT_THERE:
                self._checker.gone(known)
                return
            events = [(event.index, event.data) for event in new]
            shown += len(events)
            last = self._checker.saw_events(known, last, events, ended=ended)
            while answers and answered < _questions(known, last):
                answered += 1
                await self._answer(known, answered)
        await self._check_end(known, shown, last)

    async def _check_end(self, known: Known, shown: int, last: int) -> None:
        try:
            task = await self._insist(("task",), lambda engine: engine.task(known.session, known.id))
        except NOT_THERE:
            self._checker.gone(known)
            return
        self._checker.saw_end(known, str(task.status), task.result or {})
        self._checker.saw_all(known, shown, last, str(task.status))

    async def _answer(self, known: Known, number: int) -> None:
        """A question; asked again where it isn't known whether that arrived."""
        for attempt in range(1_000):
            text = f"answer {number} {attempt}"
            place = len(known.inputs)
            known.inputs.append((text, False))
            try:
                await self._ask(
                    ("answer",),
                    lambda engine: engine.answer(known.session, known.id, known.service, text),  # noqa: B023
                )
            except Lost:
                await self._rest()
            except NOT_THERE:
                return
            else:
                known.inputs[place] = (text, True)
                self._log(f"{known.id} was sent {text!r}")
                return

    async def cancel(self, known: Known) -> None:
        known.cancelled = True
        try:
            await self._insist(("cancel",), lambda engine: engine.cancel(known.session, known.id))
        except NOT_THERE:
            self._checker.gone(known)
        else:
            known.must_have_ended = True


def _questions(known: Known, last: int) -> int:
    return sum(index <= last and "prefix" in data for index, data in known.events.items())
