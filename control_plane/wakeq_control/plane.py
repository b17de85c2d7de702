"""Every decision of the control plane, made at once: nothing here waits, stores or sends.

Each method changes the state and returns the `Effects` that this has, or raises and has changed nothing. What comes
from outside may come again: a registration, a task, an event, a result. The second time nothing happens.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from wakeq_control import arguments
from wakeq_control.errors import TaskConflict, WrongSession
from wakeq_control.model import Effects, IdField, Service, Snapshot, Task, TaskStatus
from wakeq_control.registry import Registry
from wakeq_control.sessions import Sessions, shown_state
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


def context_key(service: str) -> str:
    """Where in a session's state a service's context is."""
    return f"context:{service}"


class Plane:
    """Services, sessions and tasks together."""

    def __init__(
        self, new_id: Callable[[], str], *, keep: int, keep_s: float, jitter: Callable[[], float] = lambda: 0.5
    ) -> None:
        """``keep``, ``keep_s``: how many tasks that have ended are kept, and how long.

        ``jitter`` gives numbers in [0, 1), by which what fails at one moment begins again at several.
        """
        self._new_id = new_id
        self._jitter = jitter
        self._name = ""
        self.registry = Registry()
        self.sessions = Sessions()
        self.tasks = Tasks(keep=keep, keep_s=keep_s)

    def restore(self, snapshot: Snapshot) -> None:
        """Take what the store has."""
        for service in snapshot.services:
            self.registry.restore(service)
        for session in snapshot.sessions:
            self.sessions.restore(session)
        self.tasks.restore(snapshot.tasks, snapshot.outgoing)
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
        """Add a service, or replace the one of its name."""
        effects = Effects()
        self.registry.register(service, effects)
        return effects

    def deregister(self, name: str) -> Effects:
        """Forget a service; its tasks go on."""
        effects = Effects()
        self.registry.deregister(name, effects)
        return effects

    def create_session(self, now: float) -> tuple[str, Effects]:
        """A new session's id."""
        effects = Effects()
        return self.sessions.create(self._new_id(), now, effects).id, effects

    def delete_session(self, session_id: str) -> Effects:
        """Forget a session with its tasks."""
        effects = Effects()
        for task_id in self.sessions.delete(session_id, effects):
            self.tasks.remove(task_id, effects)
        return effects

    def session_state(self, session_id: str) -> dict[str, Any]:
        """A session's state as clients see it. Raises SessionNotFound."""
        session = self.sessions.get(session_id)
        return shown_state(session, self.tasks.some(session.task_ids))

    def update_state(self, session_id: str, values: Mapping[str, Any]) -> Effects:
        """Merge values into a session's state, except what the control plane keeps. Raises SessionNotFound."""
        effects = Effects()
        self.sessions.update(session_id, values, effects)
        return effects

    def check_task(self, session_id: str, new: NewTask) -> str | None:
        """The task's id where the session has just this task already.

        Raises SessionNotFound, WrongSession, and TaskConflict where the id is another task's.
        """
        self.sessions.get(session_id)
        if new.session_id not in (None, session_id):
            raise WrongSession(f"Wrong task definition: task.session_id is {new.session_id} but should be {session_id}")
        known = None if new.task_id is None else self.tasks.find(new.task_id)
        if known is None:
            return None
        asked = (session_id, new.input, new.service, new.timeout_s)
        if (known.session_id, known.input, known.service, known.timeout_s) != asked:
            raise TaskConflict(f"there is another task {known.id!r} already")
        return known.id

    def add_task(self, session_id: str, new: NewTask, now: float) -> tuple[str, Effects]:
        """Begin a task; returns its id. Raises what `check_task` does, ServiceNotFound, and InvalidArguments."""
        effects = Effects()
        known = self.check_task(session_id, new)
        if known is not None:
            return known, effects
        service = self.registry.require(new.service)
        arguments.check_input(service.schema, new.input)
        task = Task(
            id=new.task_id or self._new_id(),
            session_id=session_id,
            service=new.service,
            input=new.input,
            id_field=new.id_field,
            created_at=now,
            timeout_s=new.timeout_s,
            for_worker=service.is_worker,
        )
        self.sessions.get(session_id).task_ids.append(task.id)
        self.tasks.add(task, effects)
        return task.id, effects

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
        task = self.tasks.get(task_id, session_id)
        if retries is not None and retries < len(task.failures):
            return task.failures[retries].attempt, effects
        self.tasks.begin_attempt(task, worker, now, effects)
        return task.attempt, effects

    def record_event(self, session_id: str, task_id: str, event: Event, now: float) -> Effects:
        """An event of a running task. Raises SessionNotFound, TaskNotFound."""
        effects = Effects()
        self.sessions.get(session_id)
        self.tasks.record(self.tasks.get(task_id, session_id), event, now, effects)
        return effects

    def complete(self, end: End, now: float) -> Effects:
        """A task's end, as its service tells it. Raises TaskNotFound."""
        effects = Effects()
        self._complete(self.tasks.get(end.result["task_id"]), end, now, effects)
        return effects

    def _complete(self, task: Task, end: End, now: float, effects: Effects) -> None:
        if task.finished_at is not None:
            return
        if end.error is not None and end.retryable and (delay_s := self._retry_delay_s(task)) is not None:
            self.tasks.retry(task, end.error, now + delay_s, now, effects)
            return
        status = TaskStatus.SUCCEEDED if end.error is None else TaskStatus.FAILED
        self.tasks.finish(task, status, now, effects, result=end.result, error=end.error)
        if end.context is not None:
            self.sessions.update(task.session_id, {context_key(task.service): end.context}, effects)

    def _retry_delay_s(self, task: Task) -> float | None:
        """How long after this failure the next attempt begins; None: it was the last."""
        failures = len(task.failures) + 1
        policy = self.registry.retry(task.service)
        if failures >= policy.max_attempts or task.attempt >= MAX_ATTEMPTS or task.worker is None:
            return None
        return policy.delay_s(failures, self._jitter())

    def hear(self, said: Said, now: float) -> Effects:
        """Events, and perhaps the end, of a worker's attempt; those of one that is not the newest are nobody's.

        Raises SessionNotFound, TaskNotFound.
        """
        effects = Effects()
        self.sessions.get(said.session_id)
        task = self.tasks.get(said.task_id, said.session_id)
        if said.attempt == task.attempt:
            for event in said.events:
                self.tasks.record(task, event, now, effects)
            if said.end is not None:
                self._complete(task, said.end, now, effects)
        return effects

    def context(self, task: Task) -> Any:
        """What the service's last task in the session left for the next; None where none did."""
        return self.sessions.get(task.session_id).state.get(context_key(task.service))

    def cancel(self, task_id: str, now: float) -> Effects:
        """End a task that hasn't ended. Raises TaskNotFound."""
        effects = Effects()
        error = "TASK_CANCELLED: the task was cancelled"
        self.tasks.finish(self.tasks.get(task_id), TaskStatus.CANCELLED, now, effects, error=error)
        return effects

    def answer(self, session_id: str, task_id: str, service: str, event: str, now: float) -> Effects:
        """Hand an event to a task's workflow. Raises SessionNotFound, TaskNotFound, ServiceNotFound."""
        effects = Effects()
        self.sessions.get(session_id)
        task = self.tasks.get(task_id, session_id)
        if service != task.service:
            self.registry.require(service)
        # A worker that has it follows it, whatever has become of the registration meanwhile.
        if task.worker is not None or self.registry.is_worker(task.service, task.for_worker):
            self.tasks.give(task, event, effects)
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
            self.sessions.get(task.session_id).task_ids.remove(task.id)
            self.tasks.remove(task.id, effects)
        return effects, self.tasks.next_deadline()
