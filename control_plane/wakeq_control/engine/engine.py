"""The control plane as its callers see it: each call decides, waits until that is stored, and returns.

Reading waits too, until what was read is stored: nobody is shown what a crash could take back.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import anyio

from wakeq._serving.offload import Offload
from wakeq_control.engine.commits import Commits
from wakeq_control.engine.links import Begun, Link, Links, ended
from wakeq_control.engine.signals import Signals
from wakeq_control.errors import SessionNotFound, TaskNotFound
from wakeq_control.messages import CompletedTask, Heard, NewTaskMessage, TaskEvent
from wakeq_control.model import Effects, Outgoing, Service, Task
from wakeq_control.plane import NewTask, Plane, Said
from wakeq_control.registry import Registry
from wakeq_control.sessions import Place, State, Summary, Versions, summary
from wakeq_control.state.base import StateStore
from wakeq_control.streams import Event


class Engine:
    """One control plane."""

    def __init__(
        self,
        plane: Plane,
        store: StateStore,
        now: Callable[[], float],
        *,
        wait_for_service_s: float,
        offload: Offload,
    ) -> None:
        """``now``: seconds since 1970 that never go back. ``wait_for_service_s``: how long a task waits for one.

        ``offload`` makes the calls of the store.
        """
        self._plane = plane
        self.now = now
        """The time, in seconds since 1970."""
        self._wait_for_service_s = wait_for_service_s
        self._commits = Commits(store, self._stored, offload)
        self._signals = Signals()
        self.links = Links(plane.tasks, self._commits.settled)
        """Of the workers that are there."""
        plane.replicas.is_followed = self.links.follows
        self.links.left = lambda: self._submit(plane.replicas.left(now()))
        self._timer = anyio.Event()
        self._due: float | None = None
        self.to_send: Callable[[Outgoing], None] = lambda message: None
        """Told of each message to a service when it is stored, in order."""
        self.came: Callable[[Service], None] = lambda service: None
        """Told of each registration when it is stored."""
        self.went: Callable[[str], None] = lambda name: None
        """Told of each service that is forgotten."""
        self.gone: Callable[[str], None] = lambda address: None
        """Told of the address of each replica that is gone."""

    async def run(self) -> None:
        """Store and keep time, for ever. Raises StorageFailed."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._commits.run)
            tasks.start_soon(self._keep_time)

    @property
    def publisher(self) -> str:
        """What messages to services name as theirs; none of another control plane does, or of one with other data."""
        return self._plane.publisher

    @property
    def registry(self) -> Registry:
        """The services, to look at."""
        return self._plane.registry

    def unsent(self) -> list[Outgoing]:
        """What was to be sent to services when the process before this one ended."""
        return self._plane.tasks.unsent()

    # Services

    async def register(self, service: Service) -> None:
        """Add a service, or replace the one of its name; tasks that wait for it go on."""
        await self._decided(self._plane.register(service))

    async def deregister(self, name: str) -> None:
        """Forget a service."""
        await self._decided(self._plane.deregister(name))

    def replicas(self, name: str) -> list[tuple[str, int]]:
        """A service's replicas, and how many tasks each has to end; those that are missing and have any, too."""
        return self._plane.replicas.of(name)

    def leaves(self, worker: str) -> None:
        """A worker is about to go: where it is a replica, it is given no more tasks."""
        self.registry.leaves(worker)

    # Who is there, as the queue says; nobody waits for that to be stored

    def consumer_came(self, address: str, consumer: str) -> None:
        """A consumer of a service's topic, or of a replica's, is there."""
        self._submit(self._plane.replicas.appeared(address, consumer, self.now()))

    def consumer_went(self, address: str, consumer: str) -> None:
        """It is gone."""
        self._submit(self._plane.replicas.went(address, consumer, self.now()))

    def consumers_are(self, present: Iterable[tuple[str, str]], known: Iterable[str] = ()) -> None:
        """Those are there, and nobody else; ``known``: the addresses of replicas that have topics."""
        self._submit(self._plane.replicas.present_are(present, self.now(), known))

    def lost_sight(self) -> None:
        """Nobody knows who is there."""
        self._submit(self._plane.replicas.lost_sight())

    # Sessions

    async def create_session(self) -> str:
        """A new session's id. Raises TooManySessions."""
        session_id, effects = self._plane.create_session(self.now())
        await self._decided(effects)
        return session_id

    async def delete_session(self, session_id: str) -> None:
        """Forget a session and its tasks; whoever waits for them is told."""
        await self._decided(self._plane.delete_session(session_id))

    async def sessions(self) -> list[dict[str, Any]]:
        """llama_deploy's definitions of all of them, with their states; the oldest first."""
        sessions = [self._plane.session_definition(session.id) for session in self._plane.sessions.all()]
        await self._commits.settled()
        return sessions

    async def session(self, session_id: str) -> dict[str, Any]:
        """llama_deploy's definition of one, with its state. Raises SessionNotFound."""
        session = self._plane.session_definition(session_id)
        await self._commits.settled()
        return session

    async def summaries(self, after: Place | None, limit: int) -> list[Summary]:
        """How at most so many sessions stand, the oldest behind a place first; None: from the first on."""
        summaries = [summary(session) for session in self._plane.sessions.page(after, limit)]
        await self._commits.settled()
        return summaries

    async def summary(self, session_id: str) -> Summary:
        """How a session stands. Raises SessionNotFound."""
        found = summary(self._plane.sessions.get(session_id))
        await self._commits.settled()
        return found

    async def session_state(self, session_id: str) -> State:
        """With what is kept of its tasks. Raises SessionNotFound."""
        state = self._plane.session_state(session_id)
        await self._commits.settled()
        return state

    async def own_state(self, session_id: str) -> State:
        """What clients and services have put into it, alone. Raises SessionNotFound."""
        session = self._plane.sessions.get(session_id)
        state = State(session.version, session.state)
        await self._commits.settled()
        return state

    async def update_state(self, session_id: str, values: Mapping[str, Any], versions: Versions = None) -> int:
        """Merge values into the state, except what the control plane keeps; returns its version.

        Raises SessionNotFound, StateTooLarge, and StateConflict where it has none of these versions.
        """
        version, effects = self._plane.update_state(session_id, values, self.now(), versions)
        await self._decided(effects)
        return version

    async def replace_state(self, session_id: str, values: Mapping[str, Any], versions: Versions = None) -> int:
        """Put values in the place of the whole state, as `update_state` does."""
        version, effects = self._plane.replace_state(session_id, values, self.now(), versions)
        await self._decided(effects)
        return version

    async def session_tasks(self, session_id: str) -> list[Task]:
        """A session's tasks, the oldest first. Raises SessionNotFound."""
        tasks = self._plane.tasks.some(self._plane.sessions.get(session_id).task_ids)
        await self._commits.settled()
        return tasks

    # Tasks

    async def add_task(self, session_id: str, new: NewTask, wait_s: float = math.inf) -> str:
        """Begin a task as soon as its service is registered; returns its id. It waits no longer than ``wait_s``.

        Raises SessionNotFound, WrongSession, TaskConflict, InvalidArguments, TooManyTasks, and ServiceNotFound when the
        service hasn't come in time.
        """
        if self._plane.check_task(session_id, new) is None:
            await self._service(new.service, wait_s)
        task_id, effects = self._plane.add_task(session_id, new, self.now())
        await self._decided(effects)
        return task_id

    async def task(self, session_id: str, task_id: str) -> Task:
        """Raises SessionNotFound, TaskNotFound."""
        self._plane.sessions.get(session_id)
        task = self._plane.tasks.get(task_id, session_id)
        await self._commits.settled()
        return task

    def runs(self, task: Task) -> list[Task]:
        """Of a task that each replica of its service was given, those of the replicas."""
        return self._plane.runs.of(task)

    async def cancel(self, session_id: str, task_id: str) -> None:
        """End a task that hasn't ended. Raises SessionNotFound, TaskNotFound."""
        await self.task(session_id, task_id)
        await self._decided(self._plane.cancel(task_id, self.now()))

    async def answer(self, session_id: str, task_id: str, service: str, event: str) -> None:
        """Hand an event to a task's workflow. Raises SessionNotFound, TaskNotFound, ServiceNotFound, TooManyInputs."""
        await self._decided(self._plane.answer(session_id, task_id, service, event, self.now()))

    async def result(self, session_id: str, task_id: str, wait_s: float) -> dict[str, Any] | None:
        """A task's result as soon as there is one; None after ``wait_s``, and where there is no such task.

        Raises SessionNotFound.
        """
        self._plane.sessions.get(session_id)
        with nullcontext() if wait_s == math.inf else anyio.move_on_after(wait_s):
            while (task := self._find(session_id, task_id)) is not None and task.result is None:
                await self._signals.wait(_of_end(task_id))
        task = self._find(session_id, task_id)
        result = None if task is None else task.result
        if result is not None:
            await self._commits.settled()
        return result

    async def more_events(self, session_id: str, task_id: str, shown: int) -> tuple[list[Event], bool]:
        """A task's events behind the first ``shown``, in order, as soon as there is one or the task has ended.

        Returns whether it has ended, too. Raises SessionNotFound, TaskNotFound, also when the task goes meanwhile.
        """
        while True:
            self._plane.sessions.get(session_id)
            task = self._plane.tasks.get(task_id, session_id)
            ended, new = task.finished_at is not None, task.stream.ready[shown:]
            if new or ended:
                await self._commits.settled()
                return new, ended
            await self._signals.wait(_of_task(task_id))

    # What workers say; they are answered when it is stored, for which `settled` waits

    def begin_attempt(
        self, link: Link, ref: int, session_id: str, task_id: str, number: int | None, retries: int | None = None
    ) -> Begun | str:
        """A worker takes a task, or goes on with the attempt that has a number; from now on its link tells of it.

        ``ref`` is what the worker knows it by: under the same one, what is asked again is the same attempt.
        ``retries``: see `Plane.begin_attempt`. Returns why there is none, where there is nothing to do. Raises
        SessionNotFound, TaskNotFound.
        """
        begins = number is None
        if number is None:
            number = link.attempt(ref, task_id)
        if number is None:
            number, effects = self._plane.begin_attempt(session_id, task_id, link.worker, self.now(), retries)
            self._submit(effects)
        self._plane.sessions.get(session_id)
        task = self._plane.tasks.get(task_id, session_id)
        why = ended(task, number)
        if why is not None:
            return why
        link.follow(ref, task, number)
        return Begun(number, self._plane.context(task) if begins else None, list(task.inputs))

    def hear_attempt(self, link: Link, ref: int, said: Said) -> str | None:
        """Take in what an attempt says; why nobody listens, where it was over before.

        Raises SessionNotFound, TaskNotFound.
        """
        self._plane.sessions.get(said.session_id)
        why = ended(self._plane.tasks.get(said.task_id, said.session_id), said.attempt)
        if why is None:
            self._submit(self._plane.hear(said, self.now()))
        if why is not None or said.end is not None:
            link.forget(ref)
        return why

    # What services say

    async def hear(self, heard: Heard) -> None:
        """Take in what a service's message says; returns when it is stored.

        Raises SessionNotFound and TaskNotFound where nobody knows what it is about, and what `add_task` raises.
        """
        if isinstance(heard, NewTaskMessage):
            await self._hear_task(heard.task)
            return
        self.note(heard)
        await self._commits.settled()

    def note(self, heard: TaskEvent | CompletedTask) -> None:
        """The same without waiting, for what is heard in numbers; `settled` waits for all of them."""
        if isinstance(heard, TaskEvent):
            effects = self._plane.record_event(heard.session_id, heard.task_id, heard.event, self.now())
        else:
            effects = self._plane.complete(heard.end, self.now())
        self._submit(effects)

    async def settled(self) -> None:
        """Return when everything that was noted is stored."""
        await self._commits.settled()

    async def finished(self) -> None:
        """Return when everything that there is to store is stored."""
        await self._commits.finished()

    # What becomes of messages to services

    def is_unsent(self, message: Outgoing) -> bool:
        """Whether the queue still needs it: a run that has ended needs none."""
        return self._plane.tasks.is_unsent(message.number)

    def sent(self, message: Outgoing) -> None:
        """The queue has it. Should that be forgotten by a crash, it is published again, and is the same message."""
        effects = self._plane.sent(message.number)
        if effects:
            self._commits.ride(effects)

    def refused(self, message: Outgoing, reason: str) -> None:
        """The queue will never take it."""
        self._submit(self._plane.refused(message.number, reason, self.now()))

    async def _hear_task(self, new: NewTask) -> None:
        if new.session_id is not None:
            await self.add_task(new.session_id, new)
            return
        if new.task_id is not None and self._plane.tasks.find(new.task_id) is not None:
            # It was heard before, and has a session since.
            return
        await self._service(new.service)
        # One after the other without an await: they are stored together.
        for effects in self._plane.add_task_alone(new, self.now()):
            self._submit(effects)
        await self._commits.settled()

    def _find(self, session_id: str, task_id: str) -> Task | None:
        try:
            self._plane.sessions.get(session_id)
            return self._plane.tasks.get(task_id, session_id)
        except (SessionNotFound, TaskNotFound):
            return None

    async def _service(self, name: str, wait_s: float = math.inf) -> None:
        if name in self._plane.registry:
            return
        with anyio.move_on_after(min(wait_s, self._wait_for_service_s)):
            while name not in self._plane.registry:
                await self._signals.wait(_of_service(name))

    async def _decided(self, effects: Effects) -> None:
        self._submit(effects)
        await self._commits.settled()

    def _submit(self, effects: Effects) -> None:
        if effects:
            self._commits.submit(effects)
        due = self._plane.next_deadline()
        if due != self._due:
            self._due = due
            self._timer.set()

    def _stored(self, effects: Effects) -> None:
        for message in effects.messages:
            self.to_send(message)
        for service in effects.registered:
            self.came(service)
            self._signals.wake(_of_service(service.name))
        for name in effects.deregistered:
            self.went(name)
        for address in effects.gone:
            self.gone(address)
        for task_id in effects.wakes:
            self._signals.wake(_of_task(task_id))
            task = self._plane.tasks.find(task_id)
            if task is None or task.result is not None:
                self._signals.wake(_of_end(task_id))
            self.links.wake(task_id)

    async def _keep_time(self) -> None:
        while True:
            effects, self._due = self._plane.tick(self.now())
            self._timer = anyio.Event()
            if effects:
                self._commits.submit(effects)
            with anyio.move_on_after(math.inf if self._due is None else max(0.0, self._due - self.now())):
                await self._timer.wait()


def _of_task(task_id: str) -> str:
    return f"task:{task_id}"


def _of_end(task_id: str) -> str:
    return f"end:{task_id}"


def _of_service(name: str) -> str:
    return f"service:{name}"
