"""One attempt at one task: begun at the control plane, run, told of inputs and of its end, and ended by one message."""

import asyncio
from typing import Any, NamedTuple

import anyio
import anyio.abc
import structlog

import wakeq
from wakeq_control import arguments
from wakeq_control.codec import load
from wakeq_control.errors import InvalidArguments
from wakeq_control.link.trying import PERMANENT, until_done
from wakeq_control.service.context import TaskContext
from wakeq_control.service.control import ControlPlane
from wakeq_control.service.runnable import Outcome, Runnable, failed, refused
from wakeq_control.service.saying import Publish, Saying

_log: Any = structlog.get_logger("wakeq.worker")
_LINGER_S = 2.0
"""How long the end of a request is waited for when the attempt is over."""


class UnknownTask(Exception):
    """The control plane doesn't know a task, and isn't the one that has made it: what becomes of it is for people."""


class Start(NamedTuple):
    """What the message says that a worker has a task by."""

    task_id: str
    session_id: str
    input: str
    publisher: str
    """Which control plane has made it."""
    retries: int
    """How many attempts had failed by then."""


class Attempt:
    """What a worker does with one delivery of a task."""

    def __init__(self, start: Start, *, worker: str, control: ControlPlane, publish: Publish) -> None:
        self._start = start
        self._worker = worker
        self._control = control
        self._publish = publish
        self._context: dict[str, Any] | None = None
        self._task: TaskContext | None = None
        self._saying: Saying | None = None
        self._told = 0
        self._known = anyio.Event()
        self._ended: str | None = None
        self._running = anyio.CancelScope()
        self._following = anyio.CancelScope()
        self._over = False
        self._lost: wakeq.WakeqError | UnknownTask | None = None
        """Why the task can't be followed."""

    async def run(self, service: Runnable, background: anyio.abc.TaskGroup) -> None:
        """Work on the task; returns when it has ended, here or elsewhere.

        Raises WakeqError, when it has to come again, and UnknownTask.
        """
        self._background = background
        background.start_soon(self._follow)
        try:
            await self._known.wait()
            outcome = await self._outcome(service)
            if outcome is not None and self._saying is not None:
                await self._saying.end(outcome)
        except BaseException:
            self._following.cancel()
            raise
        finally:
            if self._saying is not None:
                self._saying.stop()
        if outcome is None and self._lost is not None:
            raise self._lost
        if outcome is None and self._ended == "superseded":
            # By one that may have lost its lease. Whose is still good has to begin anew: if this one's isn't, giving
            # it back changes nothing.
            raise wakeq.LeaseLost("another attempt at the task has begun")
        # The control plane ends the request when it has heard: then its connection can be used again.
        self._over = True
        self._following.deadline = anyio.current_time() + _LINGER_S
        _log.info("task ended", task=self._start.task_id, how=self._how(outcome))

    async def _outcome(self, service: Runnable) -> Outcome | None:
        """None where the task has ended elsewhere."""
        if self._task is None or self._is_elsewhere():
            return None
        outcome: Outcome | None = None
        with self._running:
            outcome = await self._work(service, self._task)
        if self._is_elsewhere():
            return None
        if outcome is None:
            # An event can't be sent, which its end will say.
            return Outcome("")
        if outcome.last is not None:
            self._task.emit(outcome.last)
        return outcome

    def _is_elsewhere(self) -> bool:
        return self._ended is not None or self._lost is not None

    def _how(self, outcome: Outcome | None) -> str:
        if outcome is None or self._ended is not None:
            return self._ended or "elsewhere"
        return "succeeded" if outcome.error is None else outcome.error

    async def _work(self, service: Runnable, task: TaskContext) -> Outcome:
        try:
            arguments.check_input(service.schema, self._start.input)
            given = load(self._start.input)
        except InvalidArguments as error:
            return refused(error.code, error.detail)
        except (ValueError, RecursionError) as error:
            return refused("INVALID_ARGUMENTS", f"the input is not JSON: {error}")
        if not isinstance(given, dict):
            return refused("INVALID_ARGUMENTS", "the input must be a JSON object with an argument for each key")
        try:
            return await service.run(given, task, self._context)
        except asyncio.CancelledError as error:
            current = asyncio.current_task()
            if current is None or current.cancelling():
                raise
            # It cancelled itself, as nobody else did.
            return failed(error)

    # What the control plane tells

    async def _follow(self) -> None:
        with self._following:
            try:
                await until_done(f"following task {self._start.task_id}", self._hear)
            except PERMANENT as error:
                self._lost = error
            self._known.set()
            self._running.cancel()

    async def _hear(self) -> None:
        if self._over:
            return
        start = self._start
        about = {
            "worker": self._worker,
            "attempt": None if self._task is None else self._task.attempt,
            "publisher": start.publisher,
            "retries": start.retries,
        }
        try:
            async with self._control.attempt(start.session_id, start.task_id, about) as lines:
                inputs = 0
                async for line in lines:
                    if "ended" in line:
                        self._end(line["ended"])
                    elif "event" in line:
                        inputs += 1
                        self._give(inputs, line)
                    elif self._task is None:
                        self._begin(line)
        except (wakeq.SessionNotFound, wakeq.TaskNotFound) as error:
            # One that was deleted has ended: this control plane has lost what it knew, or is another.
            self._lost = UnknownTask(f"the control plane does not know the task: {error.code}")
            self._known.set()
            self._running.cancel()
            return
        except wakeq.WakeqError:
            if self._ended is None:
                raise
        if self._ended is None:
            raise wakeq.ServerUnavailable("the control plane has ended the stream")

    def _begin(self, line: dict[str, Any]) -> None:
        start = self._start
        about = {
            "task_id": start.task_id,
            "session_id": start.session_id,
            "publisher": start.publisher,
            "attempt": line["attempt"],
        }
        saying = self._saying = Saying(
            self._publish, about, worker=self._worker, tasks=self._background, failed=self._running.cancel
        )
        self._task = TaskContext(start.task_id, start.session_id, line["attempt"], lambda _, data: saying.event(data))
        self._context = line["context"]
        # What is known of the past comes with it, and an end too.
        self._known.set()

    def _give(self, number: int, line: dict[str, Any]) -> None:
        # After a reconnection they come from the first on.
        if self._task is not None and number > self._told:
            self._told = number
            self._task.give(line["event"], line["after"])

    def _end(self, how: str) -> None:
        """The task is no longer this attempt's; the request's own end may be on its way."""
        self._ended = how
        self._known.set()
        self._running.cancel()
