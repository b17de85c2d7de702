"""Deliberate faults of the control plane and its workers: each breaks one thing that the checker must then find."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import anyio

from tests.simulation import faults
from tests.simulation.faults import Fault, Replace
from wakeq_control.engine.commits import Commits
from wakeq_control.engine.engine import Engine
from wakeq_control.engine.signals import Signals
from wakeq_control.errors import ServiceNotFound
from wakeq_control.http.attempts import Attempts
from wakeq_control.link.inbox import Inbox
from wakeq_control.link.outbox import Outbox
from wakeq_control.model import Effects, Input, Outgoing, Retry, Session, Task
from wakeq_control.plane import NewTask, Plane, Said
from wakeq_control.registry import Registry
from wakeq_control.replicas import Replicas
from wakeq_control.runs import Runs
from wakeq_control.service.context import TaskContext
from wakeq_control.service.link import Link
from wakeq_control.service.runnable import Outcome
from wakeq_control.service.saying import Saying
from wakeq_control.sessions import Sessions
from wakeq_control.streams import Event, Stream
from wakeq_control.tasks import Tasks

FAULTS: dict[str, Fault] = {}


def fault(owner: Any, name: str, *, seed: int = 1) -> Callable[[Replace], Replace]:
    """Register a replacement of an attribute under its function's name."""
    return faults.fault(owner, name, FAULTS, seed=seed)


def injected(name: str) -> AbstractContextManager[None]:
    """Run with a fault."""
    return faults.injected(name, FAULTS)


def every(times: int) -> Callable[[], bool]:
    """True every so many times."""

    def count() -> Iterator[bool]:
        while True:
            yield from [False] * (times - 1) + [True]

    turns = count()
    return lambda: next(turns)


# Storing


@fault(Engine, "_decided")
def answered_before_it_is_stored(_: Any) -> Callable[..., Any]:
    async def decided(self: Engine, effects: Effects) -> None:
        self._submit(effects)

    return decided


@fault(Commits, "settled", seed=2)
def reading_does_not_wait_for_the_disk(_: Any) -> Callable[..., Any]:
    async def settled(self: Commits) -> None:
        return

    return settled


@fault(Tasks, "give")
def an_input_is_not_stored(original: Any) -> Callable[..., Any]:
    def give(self: Tasks, task: Task, event: str, now: float, effects: Effects) -> None:
        original(self, task, event, now, effects)
        effects.changes.clear()

    return give


@fault(Effects, "put")
def events_share_a_row(original: Any) -> Callable[..., Any]:
    return lambda self, table, key, value, number=0: original(self, table, key, value, number // 2)


@fault(Effects, "drop")
def what_is_dropped_stays_stored(_: Any) -> Callable[..., Any]:
    return lambda self, table, key: None


@fault(Sessions, "update")
def a_state_is_not_stored(original: Any) -> Callable[..., Any]:
    return lambda self, session_id, values, now, effects, versions=None: original(
        self, session_id, values, now, Effects(), versions
    )


@fault(Sessions, "update")
def a_stale_version_is_taken(original: Any) -> Callable[..., Any]:
    return lambda self, session_id, values, now, effects, versions=None: original(
        self, session_id, values, now, effects
    )


# Waking


@fault(Signals, "wake")
def a_wake_is_forgotten(original: Any) -> Callable[..., Any]:
    forgets = every(4)
    return lambda self, name: None if forgets() else original(self, name)


@fault(Engine, "_stored", seed=2)
def a_registration_wakes_nobody(original: Any) -> Callable[..., Any]:
    def stored(self: Engine, effects: Effects) -> None:
        effects.registered.clear()
        original(self, effects)

    return stored


@fault(Tasks, "next_deadline")
def a_deadline_is_forgotten(_: Any) -> Callable[..., Any]:
    return lambda self: None


@fault(Tasks, "finish")
def who_watches_is_not_told_of_the_end(original: Any) -> Callable[..., Any]:
    def finish(self: Tasks, task: Task, status: Any, now: float, effects: Effects, **more: Any) -> None:
        original(self, task, status, now, effects, **more)
        effects.wakes.clear()

    return finish


# Tasks


@fault(Plane, "check_task")
def a_task_is_added_again(original: Any) -> Callable[..., Any]:
    def check_task(self: Plane, session_id: str, new: NewTask) -> str | None:
        original(self, session_id, new)
        return None

    return check_task


@fault(Plane, "check_task")
def any_task_of_that_id_is_the_same(original: Any) -> Callable[..., Any]:
    def check_task(self: Plane, session_id: str, new: NewTask) -> str | None:
        known = None if new.task_id is None else self.tasks.find(new.task_id)
        return original(self, session_id, new) if known is None else known.id

    return check_task


@fault(Stream, "add", seed=2)
def an_event_that_comes_again_is_another(original: Any) -> Callable[..., Any]:
    def add(self: Stream, event: Event) -> bool:
        self._indices.discard(event.index)
        return bool(original(self, event))

    return add


@fault(Stream, "add")
def events_are_shown_as_they_come(_: Any) -> Callable[..., Any]:
    def add(self: Stream, event: Event) -> bool:
        if event.index in self._indices:
            return False
        self._indices.add(event.index)
        self.arrived.append(event)
        self.ready.append(event)
        return True

    return add


@fault(Stream, "cut", seed=4)
def what_is_cut_off_keeps_what_is_behind_a_gap(_: Any) -> Callable[..., Any]:
    return Stream.close


@fault(Stream, "close")
def the_end_forgets_what_is_late(_: Any) -> Callable[..., Any]:
    def close(self: Stream) -> None:
        self._held = {}
        self.ready = self.ready[:2]
        self._closed = True

    return close


@fault(Plane, "complete", seed=4)
def the_last_end_wins(original: Any) -> Callable[..., Any]:
    def complete(self: Plane, end: Any, now: float) -> Effects:
        task = self.tasks.find(end.result["task_id"])
        if task is None or task.finished_at is None:
            found: Effects = original(self, end, now)
            return found
        effects = Effects()
        task.result = end.result
        effects.wakes.append(task.id)
        return effects

    return complete


@fault(Tasks, "begin_attempt")
def an_attempt_begins_twice(original: Any) -> Callable[..., Any]:
    def begin_attempt(self: Tasks, task: Task, worker: str, now: float, effects: Effects) -> None:
        before = task.attempt
        original(self, task, worker, now, effects)
        task.attempt = before

    return begin_attempt


@fault(Retry, "delay_s")
def a_failed_attempt_is_followed_at_once(_: Any) -> Callable[..., Any]:
    return lambda self, failures, jitter: 0.0


@fault(Plane, "begin_attempt", seed=19)
def a_message_begins_an_attempt_after_its_own_has_failed(original: Any) -> Callable[..., Any]:
    return lambda self, session_id, task_id, worker, now, retries=None: original(self, session_id, task_id, worker, now)


@fault(Tasks, "retry")
def a_failed_attempt_goes_on(original: Any) -> Callable[..., Any]:
    def retry(self: Tasks, task: Task, error: str, at: float, now: float, effects: Effects) -> None:
        original(self, task, error, at, now, effects)
        task.attempt -= 1

    return retry


@fault(Tasks, "_set_deadlines", seed=4)
def a_retry_is_forgotten_by_a_restart(original: Any) -> Callable[..., Any]:
    def set_deadlines(self: Tasks, task: Task) -> None:
        original(self, replace(task, retry_at=None))

    return set_deadlines


@fault(Plane, "_retry_delay_s")
def a_failed_attempt_is_always_followed(_: Any) -> Callable[..., Any]:
    return lambda self, task: 2.0


@fault(Engine, "hear_attempt", seed=2)
def an_old_attempt_is_heard(original: Any) -> Callable[..., Any]:
    def hear_attempt(self: Engine, link: Any, ref: int, said: Said) -> Any:
        task = self._plane.tasks.find(said.task_id)
        return original(self, link, ref, said if task is None else said._replace(attempt=task.attempt))

    return hear_attempt


@fault(Tasks, "give")
def inputs_are_not_paced(_: Any) -> Callable[..., Any]:
    def give(self: Tasks, task: Task, event: str, now: float, effects: Effects) -> None:
        task.inputs.append(Input(event, 0))
        effects.put("task", task.id, {})
        effects.changes.clear()
        effects.wakes.append(task.id)

    return give


@fault(TaskContext, "give", seed=4)
def inputs_come_before_they_are_asked_for(original: Any) -> Callable[..., Any]:
    return lambda self, event, after: original(self, event, 0)


@fault(Saying, "end", seed=3)
def a_result_overtakes_events(_: Any) -> Callable[..., Any]:
    async def end(self: Saying, outcome: Outcome) -> None:
        await self._put(0, [], outcome)

    return end


@fault(Saying, "_give_up", seed=16)
def an_attempt_goes_on_without_an_event(_: Any) -> Callable[..., Any]:
    def give_up(self: Saying, error: Exception) -> None:
        self._error = error

    return give_up


@fault(Plane, "delete_session", seed=2)
def tasks_outlive_their_session(_: Any) -> Callable[..., Any]:
    def delete_session(self: Plane, session_id: str) -> Effects:
        effects = Effects()
        self.sessions.delete(session_id, effects)
        return effects

    return delete_session


@fault(Plane, "cancel", seed=4)
def a_cancellation_is_ignored(_: Any) -> Callable[..., Any]:
    return lambda self, task_id, now: Effects()


@fault(Tasks, "tick")
def tasks_are_forgotten_too_soon(original: Any) -> Callable[..., Any]:
    def tick(self: Tasks, now: float, effects: Effects) -> list[Task]:
        original(self, now, effects)
        return [self._tasks[task_id] for task_id in self._ended]

    return tick


@fault(Plane, "context", seed=4)
def the_context_of_another_session(_: Any) -> Callable[..., Any]:
    def context(self: Plane, task: Task) -> Any:
        def kept(session: Session) -> Any:
            return session.state.get(f"context:{task.service}")

        return next((kept(session) for session in self.sessions.all() if kept(session) is not None), None)

    return context


# Runs


@fault(Runs, "give_out", seed=12)
def one_replica_is_left_out(original: Any) -> Callable[..., Any]:
    def give_out(self: Runs, service: str, replicas: Any, now: float, effects: Effects) -> None:
        original(self, service, replicas[:2], now, effects)

    return give_out


@fault(Replicas, "appeared", seed=18)
def the_first_replica_is_given_nothing(_: Any) -> Callable[..., Any]:
    def appeared(self: Replicas, address: str, consumer: str, now: float) -> Effects:
        self._registry.appeared(address, consumer)
        return Effects()

    return appeared


@fault(Runs, "gone", seed=48)
def what_a_replica_had_that_is_gone_never_ends(_: Any) -> Callable[..., Any]:
    return lambda self, address, is_followed, now, effects: None


@fault(Runs, "_show", seed=12)
def events_of_runs_are_not_stored(original: Any) -> Callable[..., Any]:
    return lambda self, run, task, effects: original(self, run, task, Effects())


@fault(Runs, "_changed", seed=12)
def runs_outlive_their_task(original: Any) -> Callable[..., Any]:
    def changed(self: Runs, task: Task, now: float, effects: Effects) -> None:
        if task.run_of is not None:
            original(self, task, now, effects)

    return changed


@fault(Runs, "_follow", seed=18)
def a_task_ends_with_its_first_run(original: Any) -> Callable[..., Any]:
    def follow(self: Runs, run: Task, task: Task, now: float, effects: Effects) -> None:
        if run.finished_at is not None:
            self._end(task, [run], now, effects)
        else:
            original(self, run, task, now, effects)

    return follow


@fault(Runs, "give", seed=18)
def an_input_reaches_one_run(original: Any) -> Callable[..., Any]:
    def give(self: Runs, task: Task, event: str, now: float, effects: Effects) -> None:
        if task.replicas:
            self._tasks.give(self.of(task)[0], event, now, effects)
        else:
            original(self, task, event, now, effects)

    return give


# The way to the queue and back


@fault(Engine, "unsent")
def what_was_not_sent_is_forgotten(_: Any) -> Callable[..., Any]:
    return lambda self: []


@fault(Outbox, "_publish")
def every_publish_is_another_message(original: Any) -> Callable[..., Any]:
    numbers = iter(range(1 << 62))

    async def publish(self: Outbox, message: Outgoing) -> None:
        put = self._broker.publish
        self._broker.publish = lambda service, body, key: put(service, body, f"{next(numbers)}")  # type: ignore[method-assign]
        await original(self, message)

    return publish


@fault(Inbox, "_ack", seed=3)
def messages_are_acked_before_they_are_stored(_: Any) -> Callable[..., Any]:
    async def ack(self: Inbox) -> None:
        while True:
            await self._something.wait()
            self._something = anyio.Event()
            heard, self._heard = self._heard, []
            for delivery in heard:
                async with delivery:
                    pass

    return ack


@fault(Attempts, "_tell")
def an_attempt_is_not_followed(_: Any) -> Callable[..., Any]:
    """It is told of its beginning, and of nothing else."""

    async def tell(self: Attempts, held: Any, link: Any) -> None:
        await held.begin()
        await anyio.sleep_forever()

    return tell


@fault(Link, "announce", seed=60)
def an_attempt_does_not_go_on_over_another_link(original: Any) -> Callable[..., Any]:
    async def announce(self: Link, attempt: Any) -> None:
        if not attempt.begun:
            await original(self, attempt)

    return announce


@fault(Registry, "require")
def any_service_is_refused_at_times(original: Any) -> Callable[..., Any]:
    refuses = every(5)

    def require(self: Registry, name: str) -> Any:
        if refuses():
            raise ServiceNotFound
        return original(self, name)

    return require
