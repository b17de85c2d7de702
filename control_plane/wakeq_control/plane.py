"""Every decision of the control plane, made at once: nothing here waits, stores or sends.

Each method changes the state and returns the `Effects` that this has, or raises and has changed nothing. What comes
from outside may come again: a registration, a task, an event, a result. The second time nothing happens.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from wakeq_control import arguments
from wakeq_control.errors import TaskConflict, TaskNotFound, TooManyTasks, WrongSession
from wakeq_control.limits import DEFAULTS, Limits
from wakeq_control.model import Effects, IdField, Service, Snapshot, Task, TaskStatus
from wakeq_control.registry import Registry
from wakeq_control.replicas import Replicas
from wakeq_control.runs import Runs
from wakeq_control.sessions import Sessions, State, Versions, context_key, shown_state
from wakeq_control.streams import Event
from wakeq_control.tasks import MAX_ATTEMPTS, PUBLISHER, Tasks


class NewTask(NamedTuple):
    """What a client asks for."""

    input: str
    service: str
    id_field: IdField
    task_id: str | None = None
    session_id: str | None = None
    timeout_s: float | None = None


class End(NamedTuple):
    """How a service says that a task has ended."""

    result: dict[str, Any]
    """llama_deploy's TaskResult."""
    error: str | None = None
    """Why the task failed; None: it didn't."""
    context: dict[str, Any] | None = None
    """A workflow's context, for the next task of the session; None: as it was."""
    retryable: bool = False
    """Whether another attempt may end better."""


class Said(NamedTuple):
    """What an attempt of a worker's says, in one message."""

    session_id: str
    task_id: str
    attempt: int
    events: list[Event]
    end: End | None
    """None: it goes on."""


class Plane:
    """Services, sessions and tasks together."""

    def __init__(
        self,
        new_id: Callable[[], str],
        *,
        keep: int,
        keep_s: float,
        keep_sessions_s: float = math.inf,
        limits: Limits = DEFAULTS,
        jitter: Callable[[], float] = lambda: 0.5,
    ) -> None:
        """``keep``, ``keep_s``: how many tasks that have ended are kept, and how long.

        ``keep_sessions_s``: how long sessions are in which nothing happens and no task has to end. ``jitter`` gives
        numbers in [0, 1), by which what fails at one moment begins again at several.
        """
        self._new_id = new_id
        self._limits = limits
        self._jitter = jitter
        self._name = ""
        self.registry = Registry()
        self.sessions = Sessions(limits, keep_sessions_s)
        self.tasks = Tasks(keep=keep, keep_s=keep_s, limits=limits)
        self.tasks.on_end = lambda task, now: self.sessions.task_ends(task.session_id, now)
        self.runs = Runs(self.tasks)
        self.replicas = Replicas(self.registry, self.runs)

    def restore(self, snapshot: Snapshot) -> None:
        """Take what the store has."""
        for service in snapshot.services:
            self.registry.restore(service)
        self.sessions.restore(snapshot.sessions, snapshot.tasks)
        self.tasks.restore(snapshot.tasks, snapshot.outgoing)
        self.runs.restore(snapshot.tasks)
        self._take_name(snapshot.name)

    def name_itself(self) -> Effects:
        """Have a name that no other control plane has, and none that begins with other data, unless it has one."""
        effects = Effects()
        if not self._name:
            self._take_name(self._new_id())
            effects.put("plane", "name", self._name)
        return effects

    def _take_name(self, name: str) -> None:
        self._name = name
        self.tasks.publisher = f"{PUBLISHER}-{name}" if name else PUBLISHER

    @property
    def publisher(self) -> str:
        """What its messages to services name as theirs."""
        return self.tasks.publisher

    def register(self, service: Service) -> Effects:
        """Add a service, or replace the one of its name; tasks that wait for its replicas go as it says."""
        effects = Effects()
        self.registry.register(service, effects)
        if service.delivery == "one":
            self.runs.hand_over(service.name, effects)
        return effects

    def deregister(self, name: str) -> Effects:
        """Forget a service; its tasks go on."""
        effects = Effects()
        self.registry.deregister(name, effects)
        return effects

    def create_session(self, now: float) -> tuple[str, Effects]:
        """A new session's id. Raises TooManySessions."""
        effects = Effects()
        return self.sessions.create(self._new_id(), now, effects).id, effects

    def delete_session(self, session_id: str) -> Effects:
        """Forget a session with its tasks."""
        effects = Effects()
        self._delete_session(session_id, effects)
        return effects

    def _delete_session(self, session_id: str, effects: Effects) -> None:
        for task_id in self.sessions.delete(session_id, effects):
            self._remove(task_id, effects)

    def _remove(self, task_id: str, effects: Effects) -> None:
        self.runs.remove(self.tasks.get(task_id), effects)
        self.tasks.remove(task_id, effects)

    def session_definition(self, session_id: str) -> dict[str, Any]:
        """llama_deploy's SessionDefinition. Raises SessionNotFound."""
        task_ids = list(self.sessions.get(session_id).task_ids)
        return {"session_id": session_id, "task_ids": task_ids, "state": self.session_state(session_id).values}

    def session_state(self, session_id: str) -> State:
        """A session's state as clients of llama_deploy see it, with what its tasks show. Raises SessionNotFound."""
        session = self.sessions.get(session_id)
        return State(session.version, shown_state(session, self.tasks.some(session.task_ids)))

    def update_state(
        self, session_id: str, values: Mapping[str, Any], now: float, versions: Versions = None
    ) -> tuple[int, Effects]:
        """Merge values into a session's state, except what the control plane keeps; returns its version.

        Raises SessionNotFound, StateTooLarge, and StateConflict where it has none of these versions.
        """
        effects = Effects()
        return self.sessions.update(session_id, values, now, effects, versions), effects

    def replace_state(
        self, session_id: str, values: Mapping[str, Any], now: float, versions: Versions = None
    ) -> tuple[int, Effects]:
        """Put values in the place of a session's whole state, as `update_state` does."""
        effects = Effects()
        return self.sessions.replace(session_id, values, now, effects, versions), effects

    def check_task(self, session_id: str, new: NewTask) -> str | None:
        """The task's id where the session has just this task already.

        Raises SessionNotFound, WrongSession, TaskConflict where the id is another task's, and TooManyTasks where there
        can't be another one.
        """
        self.sessions.get(session_id)
        if new.session_id not in (None, session_id):
            raise WrongSession(f"Wrong task definition: task.session_id is {new.session_id} but should be {session_id}")
        known = None if new.task_id is None else self.tasks.find(new.task_id)
        if known is None:
            self._check_room()
            return None
        asked = (session_id, new.input, new.service, new.timeout_s)
        if (known.session_id, known.input, known.service, known.timeout_s) != asked:
            raise TaskConflict(f"there is another task {known.id!r} already")
        return known.id

    def _check_room(self) -> None:
        if self.tasks.unfinished >= self._limits.tasks:
            problem = f"{self.tasks.unfinished:,} tasks have not ended, and no more may be (--max-tasks)"
            raise TooManyTasks(problem)

    def add_task(self, session_id: str, new: NewTask, now: float) -> tuple[str, Effects]:
        """Begin a task; returns its id. Raises what `check_task` does, ServiceNotFound, and InvalidArguments."""
        effects = Effects()
        known = self.check_task(session_id, new)
        if known is not None:
            return known, effects
        service = self._service_for(new)
        task = Task(
            id=new.task_id or self._new_id(),
            session_id=session_id,
            service=new.service,
            input=new.input,
            id_field=new.id_field,
            created_at=now,
            timeout_s=new.timeout_s,
            for_worker=service.is_worker,
            delivery=service.delivery,
        )
        self.sessions.task_begins(session_id, task.id, now)
        self.tasks.add(task, effects)
        if task.delivery == "all":
            self.runs.wait(task)
            self.replicas.give_out(task.service, now, effects)
        return task.id, effects

    def add_task_alone(self, new: NewTask, now: float) -> list[Effects]:
        """Begin a task in a new session, unless it has one. Raises what `add_task` does, and TooManySessions."""
        if new.task_id is not None and self.tasks.find(new.task_id) is not None:
            return []
        self._check_room()
        self._service_for(new)
        session_id, session = self.create_session(now)
        _, task = self.add_task(session_id, new, now)
        return [session, task]

    def _service_for(self, new: NewTask) -> Service:
        service = self.registry.require(new.service)
        arguments.check_input(service.schema, new.input)
        return service

    def begin_attempt(
        self, session_id: str, task_id: str, worker: str, now: float, retries: int | None = None
    ) -> tuple[int, Effects]:
        """A worker takes a task, and whoever had it before has it no more; returns the attempt's number.

        ``retries`` is how many attempts had failed when the message was made that it has the task by; None: all that
        have. By one that comes again after its attempt has failed nothing is begun; the number is the failed one's.
        Raises SessionNotFound, TaskNotFound.
        """
        effects = Effects()
        self.sessions.get(session_id)
        task = self._of_worker(task_id, session_id)
        if retries is not None and retries < len(task.failures):
            return task.failures[retries].attempt, effects
        if task.finished_at is None and task.run_of is None:
            task.context_version = self.sessions.context_version(task)
        self.tasks.begin_attempt(task, worker, now, effects)
        return task.attempt, effects

    def record_event(self, session_id: str, task_id: str, event: Event, now: float) -> Effects:
        """An event of a running task. Raises SessionNotFound, TaskNotFound."""
        effects = Effects()
        self.sessions.get(session_id)
        self.tasks.record(self._of_service(task_id, session_id), event, now, effects)
        return effects

    def complete(self, end: End, now: float) -> Effects:
        """A task's end, as its service tells it. Raises TaskNotFound."""
        effects = Effects()
        self._complete(self._of_service(end.result["task_id"]), end, now, effects)
        return effects

    def _of_service(self, task_id: str, session_id: str | None = None) -> Task:
        """A task of which messages may tell. Raises TaskNotFound, as for one for all and its runs."""
        task = self.tasks.get(task_id, session_id)
        if task.delivery == "all":
            raise TaskNotFound
        return task

    def _of_worker(self, task_id: str, session_id: str) -> Task:
        """A task that a worker may have. Raises TaskNotFound, as for one for all, of which workers have the runs."""
        task = self.tasks.get(task_id, session_id)
        if task.delivery == "all" and task.run_of is None:
            raise TaskNotFound
        return task

    def _complete(self, task: Task, end: End, now: float, effects: Effects) -> None:
        if task.finished_at is not None:
            return
        if end.error is not None and end.retryable and (delay_s := self._retry_delay_s(task)) is not None:
            self.tasks.retry(task, end.error, now + delay_s, now, effects)
            return
        if end.context is not None and task.run_of is None:
            task.context_error = self.sessions.keep_context(task, end.context, now, effects)
        status = TaskStatus.SUCCEEDED if end.error is None else TaskStatus.FAILED
        self.tasks.finish(task, status, now, effects, result=end.result, error=end.error)

    def _retry_delay_s(self, task: Task) -> float | None:
        """How long after this failure the next attempt begins; None: it was the last."""
        failures = len(task.failures) + 1
        policy = self.registry.retry(task.service)
        if failures >= policy.max_attempts or task.attempt >= MAX_ATTEMPTS or task.worker is None:
            return None
        if task.replica is not None and self.replicas.is_gone(task.address):
            return None
        return policy.delay_s(failures, self._jitter())

    def hear(self, said: Said, now: float) -> Effects:
        """Events, and perhaps the end, of a worker's attempt; those of one that is not the newest are nobody's.

        Raises SessionNotFound, TaskNotFound.
        """
        effects = Effects()
        self.sessions.get(said.session_id)
        task = self._of_worker(said.task_id, said.session_id)
        if said.attempt == task.attempt:
            for event in said.events:
                self.tasks.record(task, event, now, effects)
            if said.end is not None:
                self._complete(task, said.end, now, effects)
        return effects

    def context(self, task: Task) -> Any:
        """What the service's last task in the session left for the next; None where none did, and for replicas."""
        if task.run_of is not None:
            return None
        return self.sessions.get(task.session_id).state.get(context_key(task.service))

    def cancel(self, task_id: str, now: float) -> Effects:
        """End a task that hasn't ended. Raises TaskNotFound."""
        effects = Effects()
        error = "TASK_CANCELLED: the task was cancelled"
        self.tasks.finish(self.tasks.get(task_id), TaskStatus.CANCELLED, now, effects, error=error)
        return effects

    def answer(self, session_id: str, task_id: str, service: str, event: str, now: float) -> Effects:
        """Hand an event to a task's workflow. Raises SessionNotFound, TaskNotFound, ServiceNotFound, TooManyInputs."""
        effects = Effects()
        self.sessions.get(session_id)
        task = self.tasks.get(task_id, session_id)
        if service != task.service:
            self.registry.require(service)
        # A worker that has it follows it, whatever has become of the registration meanwhile.
        if task.delivery == "all":
            self.runs.give(task, event, now, effects)
        elif task.worker is not None or self.registry.is_worker(task.service, task.for_worker):
            self.tasks.give(task, event, now, effects)
        else:
            self.tasks.answer(task, service, event, f"event:{self._new_id()}", now, effects)
        return effects

    def sent(self, number: int) -> Effects:
        """The queue has a message."""
        effects = Effects()
        self.tasks.sent(number, effects)
        return effects

    def refused(self, number: int, reason: str, now: float) -> Effects:
        """The queue will never take a message, so its task can't go on."""
        effects = Effects()
        message = self.tasks.sent(number, effects)
        task = None if message is None else self.tasks.find(message.task_id)
        if task is not None:
            error = f"QUEUE_REFUSED: the queue does not take the task's message: {reason}"
            self.tasks.finish(task, TaskStatus.FAILED, now, effects, error=error)
        return effects

    def tick(self, now: float) -> tuple[Effects, float | None]:
        """Do what is due; and when there will be something to do next."""
        effects = Effects()
        for task in self.tasks.tick(now, effects):
            self.sessions.task_goes(task.session_id, task.id, effects)
            self._remove(task.id, effects)
        self.replicas.tick(now, effects)
        for session_id in self.sessions.expired(now):
            self._delete_session(session_id, effects)
        return effects, self.next_deadline()

    def next_deadline(self) -> float | None:
        """When `tick` has something to do without anything else happening."""
        due = (self.tasks.next_deadline(), self.sessions.next_deadline(), self.replicas.missing_at)
        return min((at for at in due if at is not None), default=None)
