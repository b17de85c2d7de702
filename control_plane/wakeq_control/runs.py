"""Tasks that each replica of a service is given.

Each replica has a run of the task: a task of its own, with attempts, retries and inputs like any other, its message in
the replica's topic. Clients see the task that it is a run of, which has no attempt: its events are those of its runs,
in the order in which they came, and it ends when they have. It waits here until a replica is there, and is given to all
that are there then. What a replica that is gone hasn't ended has failed, so that no task waits for what never comes.
"""

from collections.abc import Callable, Iterable, Sequence

from wakeq_control.codec import dump
from wakeq_control.lifecycle import OPEN
from wakeq_control.model import Effects, Task, TaskStatus, run_id
from wakeq_control.tasks import Tasks, result_of, store

_ERRORS_MAX = 10
_GONE = "REPLICA_GONE: the replica went away before it had ended the task"


class Runs:
    """Those of all tasks."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._waiting: dict[str, dict[str, None]] = {}
        """Tasks that no replica has been given yet, by service."""
        self._open: dict[str, dict[str, int]] = {}
        """Runs that have not ended, by their replica's address, and how many events of each its task has shown."""
        tasks.on_change = self._changed

    def restore(self, tasks: Iterable[Task]) -> None:
        """Take what the store has."""
        for task in tasks:
            if task.delivery == "one" or task.status not in OPEN:
                continue
            if task.run_of is not None:
                self._open.setdefault(task.address, {})[task.id] = len(task.stream.ready)
            elif not task.replicas:
                self.wait(task)

    def of(self, task: Task) -> list[Task]:
        """A task's runs, in the order of its replicas."""
        return self._tasks.some(run_id(task.id, number) for number in range(len(task.replicas)))

    def addresses(self) -> list[str]:
        """Of the replicas that have runs that have not ended."""
        return list(self._open)

    def replicas(self, service: str) -> list[str]:
        """Of a service, those that have runs that have not ended."""
        places = (address.partition("/") for address in self._open)
        return [replica for name, _, replica in places if name == service]

    def unfinished(self, address: str) -> int:
        """How many runs of a replica have not ended."""
        return len(self._open.get(address, ()))

    def wait(self, task: Task) -> None:
        """A task is there for replicas to come."""
        self._waiting.setdefault(task.service, {})[task.id] = None

    def awaited(self) -> list[str]:
        """Services for whose replicas tasks wait."""
        return list(self._waiting)

    def waiting(self, service: str) -> list[Task]:
        """Tasks that wait for a service's first replica, in order."""
        return self._tasks.some(self._waiting.get(service, ()))

    def give_out(self, service: str, replicas: Sequence[str], now: float, effects: Effects) -> None:
        """Give what waits for a service to these replicas."""
        for task in self.waiting(service):
            task.replicas = list(replicas)
            store(task, effects)
            for number, replica in enumerate(replicas):
                run = Task(
                    id=run_id(task.id, number),
                    session_id=task.session_id,
                    service=service,
                    input=task.input,
                    id_field=task.id_field,
                    created_at=now,
                    inputs=list(task.inputs),
                    for_worker=True,
                    delivery="all",
                    run_of=task.id,
                    replica=replica,
                )
                self._open.setdefault(run.address, {})[run.id] = 0
                self._tasks.add(run, effects)
        self._waiting.pop(service, None)

    def hand_over(self, service: str, effects: Effects) -> None:
        """Give what waits for a service's replicas to one of its workers each: it has no replicas any more."""
        for task in self.waiting(service):
            task.delivery = "one"
            self._tasks.start(task, effects)
        self._waiting.pop(service, None)

    def give(self, task: Task, event: str, now: float, effects: Effects) -> None:
        """An event for all workflows that run. Raises TooManyInputs."""
        if not task.replicas:
            # The runs have it from the beginning on.
            self._tasks.give(task, event, now, effects)
            return
        runs = [run for run in self.of(task) if run.status in OPEN]
        for run in runs:
            self._tasks.check_given(run, event)
        for run in runs:
            self._tasks.give(run, event, now, effects)

    def gone(self, address: str, is_followed: Callable[[str], bool], now: float, effects: Effects) -> None:
        """A replica is gone: what it has not ended has failed, but what a worker that stops still follows."""
        for run in self._tasks.some(self._open.get(address, ())):
            if not is_followed(run.id):
                self._tasks.finish(run, TaskStatus.FAILED, now, effects, error=_GONE)

    def remove(self, task: Task, effects: Effects) -> None:
        """Forget a task's runs; it is about to be forgotten itself."""
        self._waits_no_more(task)
        for run in self.of(task):
            self._close(run)
            self._tasks.remove(run.id, effects)

    def _changed(self, task: Task, now: float, effects: Effects) -> None:
        if task.run_of is not None:
            self._run_changed(task, self._tasks.get(task.run_of), now, effects)
        elif task.status not in OPEN:
            self._waits_no_more(task)
            for run in self.of(task):
                self._tasks.finish(run, task.status, now, effects, error=task.error)

    def _run_changed(self, run: Task, task: Task, now: float, effects: Effects) -> None:
        if task.status in OPEN:
            self._show(run, task, effects)
        if run.status not in OPEN:
            self._close(run)
            # Its replica may be gone, and its topic is not to be made again for it.
            self._tasks.unsend(run.id, effects)
        if task.status in OPEN:
            self._follow(run, task, now, effects)

    def _show(self, run: Task, task: Task, effects: Effects) -> None:
        shown = self._open.get(run.address, {})
        for event in run.stream.ready[shown.get(run.id, 0) :]:
            number = len(task.stream.arrived)
            task.stream.add(event.at(number))
            place = [int(run.id.rpartition("/")[2]), event.index]
            effects.put("event", task.id, {"index": number, "data": event.data, "run": place}, number)
        shown[run.id] = len(run.stream.ready)
        effects.wakes.append(task.id)

    def _follow(self, run: Task, task: Task, now: float, effects: Effects) -> None:
        """What its runs are, the task is."""
        if run.status is task.status:
            return
        runs = self.of(task)
        if all(one.status not in OPEN for one in runs):
            self._end(task, runs, now, effects)
        elif any(one.status is TaskStatus.WAITING_INPUT for one in runs):
            self._tasks.move(task, TaskStatus.WAITING_INPUT, now, effects)
        elif any(one.started_at is not None for one in runs):
            self._tasks.move(task, TaskStatus.RUNNING, now, effects)

    def _end(self, task: Task, runs: Sequence[Task], now: float, effects: Effects) -> None:
        errors = [f"{run.replica}: {run.error}" for run in runs if run.status is not TaskStatus.SUCCEEDED]
        if not errors:
            texts = {run.replica: run.result["result"] for run in runs if run.result is not None}
            result = result_of(task.id, dump(texts).decode())
            self._tasks.finish(task, TaskStatus.SUCCEEDED, now, effects, result=result)
            return
        more = [f"and {len(errors) - _ERRORS_MAX} more"] if len(errors) > _ERRORS_MAX else []
        text = "; ".join(errors[:_ERRORS_MAX] + more)
        error = f"{len(errors)} of {len(runs)} replicas failed: {text}"
        self._tasks.finish(task, TaskStatus.FAILED, now, effects, error=error)

    def _close(self, run: Task) -> None:
        runs = self._open.get(run.address, {})
        runs.pop(run.id, None)
        if not runs:
            self._open.pop(run.address, None)

    def _waits_no_more(self, task: Task) -> None:
        waiting = self._waiting.get(task.service, {})
        waiting.pop(task.id, None)
        if not waiting:
            self._waiting.pop(task.service, None)
