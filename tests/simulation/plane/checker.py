"""What must hold, known from what clients, workers and the queue were told, and from what is stored.

Nothing of it looks into the control plane, but for the comparison of its memory with its disk when it rests.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.model import check
from tests.simulation.plane.server import KEEP, KEEP_S, SERVICE_WAIT_S, Server
from tests.simulation.plane.services import ALL, REPLICAS, RETRY
from wakeq_control.engine.engine import Engine
from wakeq_control.messages import NewTaskMessage, TaskEvent, read_message
from wakeq_control.model import Snapshot, Task, TaskStatus, replica_address, run_id

OPEN = ("queued", "running", "waiting_input")


@dataclass
class Known:
    """What is known of a task."""

    id: str
    session: str
    service: str
    input: str
    called: float
    timeout_s: float | None
    accepted: bool = False
    end: tuple[str, str] | None = None
    """Its status and its result, once either was seen."""
    ended_at: float | None = None
    events: dict[int, dict[str, Any]] = field(default_factory=dict)
    """By index, as somebody was shown them or they are stored."""
    shown: set[int] = field(default_factory=set)
    """Those that somebody was shown."""
    begun: dict[int, int] = field(default_factory=dict)
    """When an attempt's beginning was known to its worker, by number."""
    began_at: dict[int, float] = field(default_factory=dict)
    """The same, by the clock."""
    heard: dict[tuple[str, int, int], int] = field(default_factory=dict)
    """When what an attempt said first reached the control plane: of what kind, which attempt, which index."""
    received: dict[int, list[str]] = field(default_factory=dict)
    """What an attempt was given, by its number."""
    inputs: list[tuple[str, bool]] = field(default_factory=list)
    """What was sent to it, in order, and whether that was answered."""
    cancelled: bool = False
    """Whether somebody may have cancelled it."""
    must_have_ended: bool = False
    """Whether a cancellation was answered."""

    @property
    def steps(self) -> list[str]:
        steps: list[str] = json.loads(self.input)["steps"]
        return steps


@dataclass
class Counted:
    """How often a number was added to by those who had its version."""

    at_least: int = 0
    at_most: int = 0


class Checker:
    """One simulation's."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.tasks: dict[str, Known] = {}
        self.sessions: dict[str, bool] = {}
        """Those that were created, and whether they may be deleted."""
        self.deleted: set[str] = set()
        """Those whose deletion was answered."""
        self.values: dict[tuple[str, str], list[Any]] = {}
        """What a key of a session's state may be."""
        self.counters: dict[str, Counted] = {}
        """What its key `count` may be, by session."""
        self.registered: dict[str, bool] = {}
        """Services, and whether their registration was answered."""
        self.contexts: dict[tuple[str, int], Any] = {}
        self.counts: Counter[str] = Counter()
        self.most_failures: Counter[str] = Counter()
        """How many attempts of a task were followed by another."""
        self.run_ends: dict[str, str] = {}
        """How runs stood when they were seen last, or that their replica was gone."""
        self.runs: dict[str, Known] = {}
        """By their ids, as they are first heard of."""
        self._present: dict[str, float] = {}
        """Since when the control plane has known of those that are there."""
        self._absent: dict[str, list[float]] = {}
        """When it was told that they aren't."""
        self._moment = 0

    def known(self, task_id: str) -> Known:
        """A task, or a run of one, which has the inputs that its task has."""
        parent, slash, _ = task_id.partition("/")
        if not slash:
            return self.tasks[task_id]
        if task_id not in self.runs:
            task = self.tasks[parent]
            run = Known(task_id, task.session, task.service, task.input, task.called, None, inputs=task.inputs)
            self.runs[task_id] = run
        return self.runs[task_id]

    def saw_present(self, addresses: set[str] | None) -> None:
        """The control plane was told who is there; None: it doesn't know."""
        if addresses is None:
            self._present = {}
            return
        self._present = {address: self._present.get(address, self.now()) for address in addresses}
        for replica in REPLICAS:
            if replica_address(ALL, replica) not in addresses:
                self._absent.setdefault(replica, []).append(self.now())

    def moment(self) -> int:
        self._moment += 1
        return self._moment

    def open_tasks(self) -> int:
        """How many were accepted, and haven't ended as far as is known."""
        there = (known for known in self.tasks.values() if known.accepted and not self.sessions[known.session])
        return sum(known.end is None for known in there)

    # What clients are told

    def task_added(self, known: Known, answer: str) -> None:
        check(answer == known.id, f"task {known.id} was answered as {answer}")
        known.accepted = True
        self.counts["accepted"] += 1

    def saw_events(self, known: Known, last: int, events: Iterable[tuple[int, dict[str, Any]]], *, ended: bool) -> int:
        """A watcher was shown these behind the one that has the index ``last``; returns the last one's.

        A result may overtake events, which whoever looks later sees in their places.
        """
        for index, data in events:
            in_order = index > last if ended else index == last + 1
            check(in_order, f"a watcher of {known.id} was shown event {index} behind {last}")
            self._event(known, index, data)
            known.shown.add(index)
            last = index
        return last

    def saw_all(self, known: Known, shown: int, last: int, status: str) -> None:
        """A watcher was told that there is no more; what was cut off is a beginning."""
        check(last == shown - 1, f"{known.id} is {status}, and {shown} of its events were shown, up to {last}")
        whole = known.service == ALL or shown == len(known.steps)
        check(status != "succeeded" or whole, f"{known.id} has shown {shown} of {known.steps}")

    def gone(self, known: Known) -> None:
        """Somebody was told that a task isn't there."""
        may_be = not known.accepted or self.sessions[known.session] or self.may_be_forgotten(known)
        check(may_be, f"task {known.id} is gone")

    def saw_end(self, known: Known, status: str, result: dict[str, Any]) -> None:
        check(result["task_id"] == known.id, f"the result of {known.id} is that of {result['task_id']}")
        self._end(known, status, result["result"])

    def _event(self, known: Known, index: int, data: dict[str, Any]) -> None:
        before = known.events.setdefault(index, data)
        check(before == data, f"event {index} of {known.id} was {before}, and is {data}")
        attempt = data["by"]
        if known.service == ALL:
            self._run_event(known, index, data)
            return
        first = known.heard.get(("event", attempt, index))
        check(first is not None, f"event {index} of {known.id} was shown, and nobody has said it: {data}")
        self._in_time(known, f"event {index}", attempt, first or 0)

    def _run_event(self, known: Known, index: int, data: dict[str, Any]) -> None:
        """Of its run it has to be the next; that those before it are known, whoever calls sees to."""
        run, attempt = self.known(data["of"]), data["by"]
        place = sum(number < index and one["of"] == data["of"] for number, one in known.events.items())
        check(all(number in known.events for number in range(index)), f"{known.id} has a gap before event {index}")
        first = run.heard.get(("event", attempt, place))
        check(first is not None, f"event {index} of {known.id} was shown, and nobody has said it: {data}")
        self._in_time(run, f"event {place}", attempt, first or 0)

    def _end(self, known: Known, status: str, text: str) -> None:
        before = known.end
        if before is None:
            known.end, known.ended_at = (status, text), self.now()
            self.counts[status] += 1
        else:
            check(before == (status, text), f"{known.id} has ended as {before}, and then as {(status, text)}")
        if known.service == ALL and "/" not in known.id:
            return
        if status in ("succeeded", "failed") and text.startswith("{"):
            said = json.loads(text)
            first = known.heard.get(("result", said["by"], 0))
            check(first is not None, f"{known.id} has a result that nobody has said")
            self._in_time(known, "the result", said["by"], first or 0)
            self._check_answers(known, said["answers"])

    def _in_time(self, known: Known, what: str, attempt: int, first: int) -> None:
        """What an attempt says that has lost its task goes nowhere."""
        later = [number for number, at in known.begun.items() if number > attempt > 0 and at < first]
        check(not later, f"{what} of {known.id} is that of attempt {attempt}, heard when {later} had begun")

    def _check_answers(self, known: Known, answers: Sequence[str]) -> None:
        left = list(known.inputs)
        for answer in answers:
            while left and left[0][0] != answer:
                check(not left[0][1], f"{known.id} was never given the input {left[0][0]}, which was accepted")
                left.pop(0)
            check(left, f"{known.id} was given {answers}, of what was sent: {known.inputs}")
            left.pop(0)

    # What workers are told, and the control plane hears

    def attempt_began(self, task_id: str, attempt: int, context: Any) -> None:
        known = self.known(task_id)
        check(attempt not in known.begun, f"attempt {attempt} of {task_id} has begun twice")
        known.begun[attempt] = self.moment()
        known.began_at[attempt] = self.now()
        self.counts["attempts"] += 1
        check(context is None or known.service != ALL, f"{task_id} was given a context")
        if context is not None:
            kept = self.contexts.get((context["task"], context["attempt"]))
            check(kept == known.session, f"{task_id} was given the context of another session, {context}")

    def input_received(self, task_id: str, attempt: int, text: str, asked: int) -> None:
        received = self.known(task_id).received.setdefault(attempt, [])
        check(text not in received, f"attempt {attempt} of {task_id} was given {text!r} twice")
        received.append(text)
        question = int(text.split()[1])
        # Of several runs each is given what any of them has asked for.
        check(question <= asked or "/" in task_id, f"{task_id} was given {text!r} when it had asked {asked} questions")

    def reached(self, body: dict[str, Any]) -> None:
        """The queue has handed the control plane a message."""
        heard = read_message(body)
        if isinstance(heard, NewTaskMessage):
            return
        if isinstance(heard, TaskEvent):
            self._heard(heard.task_id, ("event", 0, heard.event.index))
        else:
            self._heard(heard.end.result["task_id"], ("result", 0, 0))

    def said(self, word: dict[str, Any]) -> None:
        """The control plane is about to hear an attempt."""
        task_id, attempt, end = word["task_id"], word["attempt"], word.get("end")
        for index, _ in enumerate(word["events"], word["index"]):
            self._heard(task_id, ("event", attempt, index))
        if end is not None:
            self._heard(task_id, ("result", attempt, 0))
            if end["context"] is not None:
                self.contexts[(task_id, attempt)] = word["session_id"]

    def _heard(self, task_id: str, what: tuple[str, int, int]) -> None:
        self.known(task_id).heard.setdefault(what, self.moment())

    # What is true when everybody who could run has run, and nothing waits for the disk

    def at_rest(self, server: Server, snapshot: Snapshot) -> None:
        self.check_stored(snapshot)
        self._check_memory(server.engine, snapshot)
        tasks = {task.id: task for task in snapshot.tasks}
        services = {service.name for service in snapshot.services}
        for task in snapshot.tasks:
            due = None if task.timeout_s is None else task.created_at + task.timeout_s
            late = str(task.status) in OPEN and due is not None and due <= self.now()
            check(not late, f"{task.id} should have timed out at {due}")
            waits = task.retry_at is not None and task.retry_at <= self.now()
            check(not waits, f"{task.id} should have been begun again at {task.retry_at}")
        if self._present:
            self._check_given_out(snapshot.tasks)
        for wait in server.waits.all():
            self._check_wait(wait, tasks, services)
        for follows in server.follows():
            self._check_follows(tasks, *follows)

    def check_stored(self, snapshot: Snapshot) -> None:
        tasks = {task.id: task for task in snapshot.tasks}
        for task in snapshot.tasks:
            self._check_task(task)
            if task.delivery == "all" and task.run_of is None:
                self._check_runs(task, tasks)
        sessions = {session.id: session for session in snapshot.sessions}
        for session_id, may_be_gone in self.sessions.items():
            if session_id in self.deleted:
                check(session_id not in sessions, f"session {session_id} was deleted, and is there")
            else:
                check(may_be_gone or session_id in sessions, f"session {session_id} is lost")
        for known in self.tasks.values():
            if known.session in self.deleted:
                check(known.id not in tasks, f"task {known.id} is there without its session")
            elif known.accepted and known.id not in tasks:
                check(self.sessions[known.session] or self.may_be_forgotten(known), f"task {known.id} is lost")
        for (session_id, key), may_be in self.values.items():
            if session_id in sessions:
                found = sessions[session_id].state.get(key)
                check(found in may_be, f"{key} of {session_id} is {found}, and should be one of {may_be}")
        for session_id, counted in self.counters.items():
            if session_id in sessions:
                number = sessions[session_id].state.get("count", 0)
                check(counted.at_least <= number <= counted.at_most, f"of {counted} in {session_id} there are {number}")
        for name, answered in self.registered.items():
            check(not answered or name in {one.name for one in snapshot.services}, f"service {name} is lost")

    def may_be_forgotten(self, known: Known) -> bool:
        """Whether it need not be kept any longer."""
        # It may have ended unseen, and be dropped at once.
        ended = sum(one.end is not None or one.accepted for one in self.tasks.values())
        return ended > KEEP or self.now() - known.called >= KEEP_S

    def _check_task(self, task: Task) -> None:
        known = self.known(task.id)
        check((task.session_id, task.service, task.input) == (known.session, known.service, known.input), task.id)
        if task.run_of is None:
            for event in task.stream.arrived:
                self._event(known, event.index, event.data)
        indices = [event.index for event in task.stream.arrived]
        check(len(set(indices)) == len(indices), f"{task.id} has an event twice: {indices}")
        was_cut = str(task.status) not in (*OPEN, "succeeded")
        must_be = known.shown if was_cut else set(known.events)
        check(not must_be - set(indices), f"{task.id} has lost of {sorted(must_be)} all but {indices}")
        check(not was_cut or sorted(indices) == list(range(len(indices))), f"{task.id} has kept a gap: {indices}")
        self._check_failures(known, task)
        if str(task.status) in OPEN:
            check(known.end is None, f"{task.id} had ended as {known.end}, and is {task.status}")
            check(not known.must_have_ended, f"{task.id} was cancelled, and is {task.status}")
            return
        check(task.result is not None, f"{task.id} has ended without a result")
        self._end(known, str(task.status), (task.result or {})["result"])
        of_all = task.delivery == "all" and task.run_of is None
        said_end = task.status in (TaskStatus.SUCCEEDED, TaskStatus.FAILED) and not of_all
        if said_end and (task.result or {})["result"].startswith("{"):
            ready = [event.index for event in task.stream.ready]
            check(ready == list(range(len(known.steps))), f"{task.id} has ended with the events {ready}")
        if task.status is TaskStatus.CANCELLED:
            by = self.known(task.run_of or task.id)
            check(by.cancelled, f"{task.id} was cancelled by nobody")

    def _check_runs(self, task: Task, tasks: dict[str, Task]) -> None:
        """A task that each replica was given, and what it has of their runs."""
        runs = [tasks[run_id(task.id, number)] for number in range(len(task.replicas))]
        check([run.replica for run in runs] == task.replicas, f"{task.id} was given to {task.replicas}")
        check(len(set(task.replicas)) == len(runs), f"{task.id} was given twice to one of {task.replicas}")
        open_runs = [run.id for run in runs if str(run.status) in OPEN]
        if str(task.status) in OPEN:
            check(not runs or open_runs, f"all runs of {task.id} have ended, and it is {task.status}")
            waits = any(str(run.status) == "waiting_input" for run in runs)
            check(waits == (str(task.status) == "waiting_input"), f"{task.id} is {task.status} with {runs}")
        else:
            check(not open_runs, f"{task.id} has ended, and {open_runs} have not")
        if task.status is TaskStatus.SUCCEEDED:
            texts = {run.replica: (run.result or {})["result"] for run in runs}
            check(json.loads((task.result or {})["result"]) == texts, f"{task.id} has come to {task.result}")
            check(all(str(run.status) == "succeeded" for run in runs), f"{task.id} has succeeded with {runs}")
            shown = Counter(event.data["of"] for event in task.stream.ready)
            steps = len(self.known(task.id).steps)
            check(all(shown[run.id] == steps for run in runs), f"{task.id} has shown {shown}, of {steps} each")
        elif task.status is TaskStatus.FAILED:
            check(any(str(run.status) == "failed" for run in runs), f"{task.id} has failed with {runs}")
        for run in runs:
            gone = run.error is not None and run.error.startswith("REPLICA_GONE")
            told = any(at >= run.created_at for at in self._absent.get(run.replica or "", ()))
            check(not gone or told, f"{run.id} has failed, and {run.replica} was there")
            self.run_ends[run.id] = "gone" if gone else str(run.status)

    def _check_given_out(self, tasks: Iterable[Task]) -> None:
        """Who was there when a task left was given it; one that nobody was given has found nobody there."""
        for task in tasks:
            if task.delivery == "one" or task.run_of is not None:
                continue
            known = self.tasks[task.id]
            for replica in REPLICAS:
                since = self._present.get(replica_address(ALL, replica))
                if since is None or (str(task.status) not in OPEN and not task.replicas):
                    continue
                check(task.replicas, f"{task.id} waits for replicas, and {replica} is there")
                check(
                    since >= known.called or replica in task.replicas,
                    f"{task.id} was given to {task.replicas}, and {replica} was there all the time",
                )

    def _check_failures(self, known: Known, task: Task) -> None:
        numbers = [failure.attempt for failure in task.failures]
        check(numbers == sorted(set(numbers)), f"attempts of {task.id} have failed as {numbers}")
        check(len(numbers) < RETRY.max_attempts, f"{task.id} was begun again after {numbers}")
        check(not numbers or numbers[-1] < task.attempt, f"{task.id} is at attempt {task.attempt} after {numbers}")
        for failure in task.failures:
            said = ("result", failure.attempt, 0)
            check(said in known.heard, f"attempt {failure.attempt} of {task.id} has not said that it failed")
            following = min((number for number in known.began_at if number > failure.attempt), default=None)
            if following is not None:
                # Of the wait that is drawn the half is the least.
                waited = known.began_at[following] - failure.failed_at
                check(
                    waited >= RETRY.backoff_s / 2, f"attempt {following} of {task.id} began {waited} s after a failure"
                )
        self.most_failures[task.id] = max(self.most_failures[task.id], len(numbers))

    def _check_memory(self, engine: Engine, snapshot: Snapshot) -> None:
        plane = engine._plane
        for task in snapshot.tasks:
            found = plane.tasks.find(task.id)
            check(found is not None and _shape(found) == _shape(task), f"{task.id} is stored as {_shape(task)}")
        check(len(plane.tasks._tasks) == len(snapshot.tasks), "there are tasks that are not stored")
        memory = {session.id: (session.state, session.task_ids) for session in plane.sessions.all()}
        disk = {session.id: (session.state, session.task_ids) for session in snapshot.sessions}
        check(memory == disk, f"sessions are stored as {disk}, and remembered as {memory}")
        # That the queue has a message need not be stored at once.
        riding = {change.key for effects in engine._commits._open.effects for change in effects.changes}
        unsent = [message for message in snapshot.outgoing if str(message.number) not in riding]
        check(plane.tasks.unsent() == unsent, f"{unsent} is stored to be sent")
        check({one.name for one in plane.registry.all()} == {one.name for one in snapshot.services}, "services differ")

    def _check_wait(self, wait: tuple[Any, ...], tasks: dict[str, Task], services: set[str]) -> None:
        match wait:
            case ("result", task_id, _):
                check(task_id in tasks, f"somebody waits for the result of {task_id}, which is gone")
                check(tasks[task_id].result is None, f"somebody waits for the result of {task_id}, which is there")
            case ("events", task_id, shown, _):
                check(task_id in tasks, f"somebody watches {task_id}, which is gone")
                task = tasks[task_id]
                more = len(task.stream.ready) > shown or task.finished_at is not None
                check(not more, f"a watcher of {task_id} waits behind {shown} events, and there is more")
            case ("add", task_id, service, since):
                check(service not in services, f"{task_id} waits for {service}, which is registered")
                check(self.now() <= since + SERVICE_WAIT_S, f"{task_id} waits for {service} for too long")
            case _:
                check(False, f"somebody waits for {wait}")

    def _check_follows(self, tasks: dict[str, Task], task_id: str, attempt: int, told: int) -> None:
        check(task_id in tasks, f"a worker follows {task_id}, which is gone")
        task = tasks[task_id]
        ended = task.finished_at is not None or task.attempt != attempt
        check(not ended, f"attempt {attempt} of {task_id} was not told of its end")
        check(len(task.inputs) <= told, f"attempt {attempt} of {task_id} was not told of an input")

    # At the end, when nothing has gone wrong for long

    def at_the_end(self, snapshot: Snapshot, starts: Counter[tuple[str, int]], unsent: int) -> None:
        for task in snapshot.tasks:
            check(str(task.status) not in OPEN, f"{task.id} never ends: {task.status}, attempt {task.attempt}")
        for known in self.tasks.values():
            if known.accepted and known.session not in self.deleted and not self.sessions[known.session]:
                check(known.end is not None or self.may_be_forgotten(known), f"{known.id} has no end")
        self.counts["retried"] = self.most_failures.total()
        self.counts["runs"] = len(self.run_ends)
        self.counts["gone"] = list(self.run_ends.values()).count("gone")
        self.counts["together"] = sum(run.endswith("/1") for run in self.run_ends)
        twice = [start for start, times in starts.items() if times > 1]
        check(not twice, f"{twice} were started by more than one message")
        check(not unsent, f"{unsent} messages are never sent")


def _shape(task: Task) -> tuple[Any, ...]:
    """What of a task must survive."""
    stream = task.stream
    return (
        task.session_id, task.service, task.input, task.status, task.attempt, task.worker, list(task.inputs),
        task.created_at, task.started_at, task.finished_at, task.error, task.result, task.failures, task.retry_at,
        [(event.index, event.data) for event in stream.arrived], [event.index for event in stream.ready],
    )  # fmt: skip
