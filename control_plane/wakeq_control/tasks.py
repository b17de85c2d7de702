"""Tasks: their lives, their events, and the messages that they need.

Everything that is heard of a task may be heard twice, since messages are delivered at least once: an event is known by
its index, an end by the task having ended.
"""

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from wakeq_control.errors import TaskNotFound, TooManyInputs
from wakeq_control.lifecycle import OPEN, may_become
from wakeq_control.limits import Limits
from wakeq_control.model import Effects, Failure, Input, Outgoing, Task, TaskStatus
from wakeq_control.streams import Event

PUBLISHER = "ControlPlaneServer"
MAX_ATTEMPTS = 20
"""How often a task is begun at most: one whose worker always dies with it must come to an end."""
_ABANDONED = f"TASK_ABANDONED: none of {MAX_ATTEMPTS} attempts has come to its end"
_TOO_MANY_EVENTS = "TOO_MANY_EVENTS: a task may show {:,} events (--max-events) of {:,} bytes (--max-events-bytes)"
_TOO_MANY_INPUTS = "a task may be sent {:,} events (--max-events) of {:,} characters (--max-events-bytes)"
_TIMED_OUT = "TASK_TIMED_OUT: the task has not ended within {:g} s"


class Tasks:
    """Tasks by id."""

    def __init__(self, *, keep: int, keep_s: float, limits: Limits) -> None:
        """``keep``: how many tasks that have ended are kept; ``keep_s``: how long."""
        self._limits = limits
        self._keep = keep
        self._keep_s = keep_s
        self._tasks: dict[str, Task] = {}
        self._ended: OrderedDict[str, float] = OrderedDict()
        self._deadlines: list[tuple[float, str]] = []
        self._outgoing: dict[int, Outgoing] = {}
        self._outgoing_of: dict[str, set[int]] = {}
        """The numbers of each task's."""
        self.publisher = PUBLISHER
        """What messages to services name as theirs."""
        self._last_number = 0
        self.on_end: Callable[[Task, float], None] = lambda task, now: None
        """Told of each task that ends, and when."""
        self.on_change: Callable[[Task, float, Effects], None] = lambda task, now, effects: None
        """Told of whatever becomes of a task for all replicas, and of each of its runs."""
        self.unfinished = 0
        """How many have not ended, runs included."""

    def find(self, task_id: str) -> Task | None:
        """The task, if it is there."""
        return self._tasks.get(task_id)

    def get(self, task_id: str, session_id: str | None = None) -> Task:
        """A task, of a session where one is named. Raises TaskNotFound."""
        task = self._tasks.get(task_id)
        if task is None or session_id not in (None, task.session_id):
            raise TaskNotFound
        return task

    def some(self, task_ids: Iterable[str]) -> list[Task]:
        """Tasks by their ids, which must exist."""
        return [self._tasks[task_id] for task_id in task_ids]

    def is_unsent(self, number: int) -> bool:
        """Whether the queue is still to have a message."""
        return number in self._outgoing

    def unsent(self) -> list[Outgoing]:
        """What the queue doesn't have yet, in order."""
        return list(self._outgoing.values())

    def restore(self, tasks: Iterable[Task], outgoing: Iterable[Outgoing]) -> None:
        """Take what the store has."""
        for task in tasks:
            self._tasks[task.id] = task
            if task.status in OPEN:
                self.unfinished += 1
                self._set_deadlines(task)
        ended = (task for task in self._tasks.values() if task.finished_at is not None and task.run_of is None)
        for task in sorted(ended, key=lambda task: task.finished_at or 0.0):
            self._ended[task.id] = task.finished_at or 0.0
        for message in outgoing:
            self._keep_outgoing(message)
            self._last_number = max(self._last_number, message.number)

    def add(self, task: Task, effects: Effects) -> None:
        """Begin a task: it is stored together with the message that starts it. Of one for all, its runs have those."""
        self._tasks[task.id] = task
        self.unfinished += 1
        self._set_deadlines(task)
        if task.delivery == "all" and task.run_of is None:
            store(task, effects)
        else:
            self.start(task, effects)

    def remove(self, task_id: str, effects: Effects) -> None:
        """Forget a task and all that belongs to it."""
        self.unfinished -= self._tasks.pop(task_id).finished_at is None
        self._ended.pop(task_id, None)
        effects.drop("task", task_id)
        effects.drop("event", task_id)
        self.unsend(task_id, effects)
        effects.wakes.append(task_id)

    def unsend(self, task_id: str, effects: Effects) -> None:
        """Nobody needs a task's messages any more."""
        for number in sorted(self._outgoing_of.get(task_id, ())):
            self.sent(number, effects)

    def begin_attempt(self, task: Task, worker: str, now: float, effects: Effects) -> None:
        """A worker takes the task; a task that has ended stays as it is."""
        if task.status not in OPEN:
            return
        was_begun = task.status is not TaskStatus.QUEUED
        if was_begun and task.attempt >= MAX_ATTEMPTS:
            self.finish(task, TaskStatus.FAILED, now, effects, error=_ABANDONED)
            return
        if was_begun:
            task.attempt += 1
        task.started_at = now if task.started_at is None else task.started_at
        task.worker = worker
        task.status = TaskStatus.RUNNING
        task.retry_at = None
        store(task, effects)
        self._tell(task, now, effects)

    def record(self, task: Task, event: Event, now: float, effects: Effects) -> None:
        """An event of the task's stream."""
        # A result may overtake events when queue and control plane have died together.
        if task.status not in OPEN | {TaskStatus.SUCCEEDED}:
            return
        if not self._has_room(task, event):
            error = _TOO_MANY_EVENTS.format(self._limits.events, self._limits.events_bytes)
            self.finish(task, TaskStatus.FAILED, now, effects, error=error)
            return
        if not task.stream.add(event):
            return
        if task.run_of is None:
            # What a run says is stored where it is shown.
            effects.put("event", task.id, {"index": event.index, "data": event.data}, len(task.stream.arrived) - 1)
        if task.status in OPEN and asks_for_input(event.data):
            self.move(task, TaskStatus.WAITING_INPUT, now, effects)
        elif task.status is TaskStatus.QUEUED:
            self.move(task, TaskStatus.RUNNING, now, effects)
        self._tell(task, now, effects)

    def answer(self, task: Task, service: str, event: str, key: str, now: float, effects: Effects) -> None:
        """An event for the workflow, such as a human's answer; one for a task that has ended goes nowhere."""
        if task.status not in OPEN:
            return
        data = {**task.definition, "input": event, task.id_field: service}
        self._send(task, "send_event", service, data, key, effects)
        if task.status is TaskStatus.WAITING_INPUT:
            self.move(task, TaskStatus.RUNNING, now, effects)

    def give(self, task: Task, event: str, now: float, effects: Effects) -> None:
        """The same for a worker, which follows the task. Raises TooManyInputs."""
        if task.status not in OPEN:
            return
        self.check_given(task, event)
        task.inputs.append(Input(event, sum(asks_for_input(said.data) for said in task.stream.arrived)))
        if task.status is TaskStatus.WAITING_INPUT:
            task.status = TaskStatus.RUNNING
        store(task, effects)
        self._tell(task, now, effects)

    def check_given(self, task: Task, event: str) -> None:
        """Raises TooManyInputs where it can't be sent that too."""
        sent, limits = sum(len(one.event) for one in task.inputs), self._limits
        if len(task.inputs) >= limits.events or sent + len(event) > limits.events_bytes:
            raise TooManyInputs(_TOO_MANY_INPUTS.format(limits.events, limits.events_bytes))

    def retry(self, task: Task, error: str, at: float, now: float, effects: Effects) -> None:
        """The attempt has failed, and another is to begin at that time: nothing that this one says counts any more."""
        if not may_become(task.status, TaskStatus.QUEUED):
            return
        task.failures.append(Failure(task.attempt, task.worker, now, error))
        task.attempt += 1
        task.worker = None
        task.retry_at = at
        self.move(task, TaskStatus.QUEUED, now, effects)
        heapq.heappush(self._deadlines, (at, task.id))
        self._tell(task, now, effects)

    def finish(
        self,
        task: Task,
        status: TaskStatus,
        now: float,
        effects: Effects,
        *,
        result: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        """End a task. Clients of llama_deploy know no errors: they are handed its text as the result."""
        if not may_become(task.status, status):
            return
        task.result = dict(result) if result is not None else result_of(task.id, error or "")
        task.error = error
        task.retry_at = None
        if status is TaskStatus.SUCCEEDED:
            task.stream.close()
        else:
            task.stream.cut()
        self.move(task, status, now, effects)
        self.unfinished -= 1
        if task.run_of is None:
            self._ended[task.id] = now
            self.on_end(task, now)
        self._tell(task, now, effects)

    def sent(self, number: int, effects: Effects) -> Outgoing | None:
        """The queue has a message, or nobody needs it any more; returns it unless that was known."""
        message = self._outgoing.pop(number, None)
        if message is not None:
            numbers = self._outgoing_of[message.task_id]
            numbers.discard(number)
            if not numbers:
                del self._outgoing_of[message.task_id]
            effects.drop("outbox", str(number))
        return message

    def tick(self, now: float, effects: Effects) -> list[Task]:
        """End what is past its deadline, and begin again what has waited for that.

        Returns the ended tasks that need not be kept any longer.
        """
        while self._deadlines and self._deadlines[0][0] <= now:
            task = self._tasks.get(heapq.heappop(self._deadlines)[1])
            if task is None or task.status not in OPEN:
                continue
            if task.timeout_s is not None and task.created_at + task.timeout_s <= now:
                error = _TIMED_OUT.format(task.timeout_s)
                self.finish(task, TaskStatus.TIMED_OUT, now, effects, error=error)
            elif task.retry_at is not None and task.retry_at <= now:
                task.retry_at = None
                self.start(task, effects)
        surplus = max(0, len(self._ended) - self._keep)
        old = []
        for place, (task_id, ended_at) in enumerate(self._ended.items()):
            if place >= surplus and ended_at + self._keep_s > now:
                break
            old.append(self._tasks[task_id])
        return old

    def next_deadline(self) -> float | None:
        """When `tick` has something to do without anything else happening."""
        while self._deadlines:
            task = self._tasks.get(self._deadlines[0][1])
            if task is not None and task.status in OPEN:
                break
            heapq.heappop(self._deadlines)
        due = [self._deadlines[0][0]] if self._deadlines else []
        if self._ended:
            oldest = next(iter(self._ended.values()))
            due.append(oldest + self._keep_s if len(self._ended) <= self._keep else oldest)
        return min(due, default=None)

    def _has_room(self, task: Task, event: Event) -> bool:
        """Whether it may show that too; what it has shown already takes no more."""
        if task.stream.has(event.index):
            return True
        # What a run says is shown by its task.
        stream, limits = (task if task.run_of is None else self._tasks[task.run_of]).stream, self._limits
        return len(stream.arrived) < limits.events and stream.bytes + len(event.line) <= limits.events_bytes

    def _set_deadlines(self, task: Task) -> None:
        if task.timeout_s is not None:
            heapq.heappush(self._deadlines, (task.created_at + task.timeout_s, task.id))
        if task.retry_at is not None:
            heapq.heappush(self._deadlines, (task.retry_at, task.id))

    def _tell(self, task: Task, now: float, effects: Effects) -> None:
        effects.wakes.append(task.id)
        if task.delivery == "all":
            self.on_change(task, now, effects)

    def move(self, task: Task, status: TaskStatus, now: float, effects: Effects) -> None:
        """Take a step of its life, where that has one."""
        if not may_become(task.status, status):
            return
        task.status = status
        if task.started_at is None and status in OPEN:
            task.started_at = now
        if status not in OPEN:
            task.finished_at = now
        store(task, effects)

    def start(self, task: Task, effects: Effects) -> None:
        """Have a worker begin it."""
        store(task, effects)
        data = task.definition
        if task.failures:
            # By it a message that comes again is known to have been worked on.
            data["retries"] = len(task.failures)
        self._send(task, "new_task", task.service, data, f"task:{task.id}:{task.attempt}", effects)

    def _keep_outgoing(self, message: Outgoing) -> None:
        self._outgoing[message.number] = message
        self._outgoing_of.setdefault(message.task_id, set()).add(message.number)

    def _send(self, task: Task, action: str, service: str, data: dict[str, object], key: str, effects: Effects) -> None:
        self._last_number += 1
        body = {"publisher_id": self.publisher, "data": data, "action": action, "type": service}
        address = service if task.replica is None else task.address
        message = Outgoing(self._last_number, address, task.id, key, body)
        self._keep_outgoing(message)
        row = {"service": address, "task_id": task.id, "key": key, "body": body}
        effects.put("outbox", str(message.number), row)
        effects.messages.append(message)


def asks_for_input(data: Mapping[str, Any]) -> bool:
    """Whether an event is a workflow's InputRequiredEvent, of which only the prompt tells."""
    inner = data.get("_data", data)
    return isinstance(inner, Mapping) and "prefix" in inner


def result_of(task_id: str, text: str) -> dict[str, Any]:
    """llama_deploy's TaskResult."""
    return {"task_id": task_id, "history": [], "result": text, "data": {}}


def store(task: Task, effects: Effects) -> None:
    """Put its row."""
    row = {
        "session_id": task.session_id,
        "service": task.service,
        "input": task.input,
        "id_field": task.id_field,
        "created_at": task.created_at,
        "timeout_s": task.timeout_s,
        "status": task.status,
        "attempt": task.attempt,
        "worker": task.worker,
        "inputs": task.inputs,
        "for_worker": task.for_worker,
        "failures": task.failures,
        "retry_at": task.retry_at,
        "started_at": task.started_at,
        "finished_at": task.finished_at,
        "error": task.error,
        "result": task.result,
        "context_version": task.context_version,
        "context_error": task.context_error,
    }
    if task.delivery == "all":
        row |= {
            "delivery": task.delivery,
            "replicas": task.replicas,
            "run_of": task.run_of,
            "replica": task.replica,
        }
    effects.put("task", task.id, row)
