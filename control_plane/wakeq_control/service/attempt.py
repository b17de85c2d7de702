"""One attempt at one task: begun at the control plane, run, told of inputs and of its end, and ended by one word."""

import asyncio
from typing import Any, NamedTuple

import anyio
import anyio.abc
import structlog

import wakeq
from wakeq_control import arguments
from wakeq_control.codec import load
from wakeq_control.errors import InvalidArguments
from wakeq_control.service.context import TaskContext
from wakeq_control.service.link import Link
from wakeq_control.service.runnable import Outcome, Runnable, failed, refused
from wakeq_control.service.saying import Saying

SUPERSEDED = "superseded"
_SUCCEEDED = "succeeded"
_UNKNOWN = (wakeq.SessionNotFound, wakeq.TaskNotFound)
_log: Any = structlog.get_logger("wakeq.worker")


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

    ref = 0

    def __init__(self, start: Start, link: Link) -> None:
        self._start = start
        self._link = link
        self._context: dict[str, Any] | None = None
        self._task: TaskContext | None = None
        self._saying: Saying | None = None
        self._inputs: dict[int, dict[str, Any]] = {}
        """Those that came before the ones in front of them, by number."""
        self._given = 0
        self._ended: str | None = None
        self._lost: wakeq.WakeqError | None = None
        """Why the control plane doesn't let it go on."""
        self._running = anyio.CancelScope()

    async def run(self, service: Runnable, background: anyio.abc.TaskGroup) -> None:
        """Work on the task; returns when it has ended, here or elsewhere.

        Raises WakeqError, when it has to come again, and UnknownTask.
        """
        self._background = background
        outcome: Outcome | None = None
        with self._link.following(self):
            try:
                await self._link.announce(self)
                outcome = await self._outcome(service)
                if outcome is not None and self._saying is not None:
                    await self._saying.end(outcome)
            except _UNKNOWN as error:
                self._lost = error
            finally:
                if self._saying is not None:
                    self._saying.stop()
        if self._lost is not None:
            raise _why_lost(self._lost, outcome)
        if self._ended == SUPERSEDED:
            # By one that may have lost its lease. Whose is still good has to begin anew: if this one's isn't, giving
            # it back changes nothing.
            raise wakeq.LeaseLost("another attempt at the task has begun")
        # A line for each that succeeds would be most of what a worker writes, and a good part of its work.
        if (how := self._how(outcome)) != _SUCCEEDED:
            _log.info("task ended", task=self._start.task_id, how=how)

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
        if outcome.last is not None and self._saying is not None:
            self._saying.about_to_end()
            self._task.emit(outcome.last)
        return outcome

    def _is_elsewhere(self) -> bool:
        return self._ended is not None or self._lost is not None

    def _how(self, outcome: Outcome | None) -> str:
        if outcome is None or self._ended is not None:
            return self._ended or "elsewhere"
        return _SUCCEEDED if outcome.error is None else outcome.error

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

    # What it says to the control plane, and hears

    @property
    def begun(self) -> bool:
        """See `Follower`."""
        return self._task is not None

    def announcement(self) -> dict[str, Any]:
        """See `Follower`."""
        start = self._start
        return {
            "ref": self.ref,
            "session_id": start.session_id,
            "task_id": start.task_id,
            "publisher": start.publisher,
            "retries": start.retries,
            "attempt": None if self._task is None else self._task.attempt,
        }

    def told(self, said: dict[str, Any]) -> None:
        """See `Follower`."""
        if "ended" in said:
            self._end(said["ended"])
        elif "event" not in said and self._task is None:
            self._begin(said)
        # They come from the first on with each announcement's answer, and those over the stream may overtake it.
        for one in [said] if "event" in said else said.get("inputs", ()):
            if one["number"] > self._given:
                self._inputs[one["number"]] = one
        self._give()

    def refused(self, error: wakeq.WakeqError) -> None:
        """See `Follower`."""
        self._lost = error
        self._running.cancel()

    def _begin(self, said: dict[str, Any]) -> None:
        saying = self._saying = Saying(self._say, tasks=self._background, failed=self._running.cancel)
        start = self._start
        self._task = TaskContext(start.task_id, start.session_id, said["attempt"], lambda _, data: saying.event(data))
        self._context = said["context"]

    async def _say(self, said: dict[str, Any]) -> None:
        try:
            answer = await self._link.say({**self.announcement(), **said})
        except _UNKNOWN as error:
            self.refused(error)
            return
        if "ended" in answer:
            self._end(answer["ended"])

    def _give(self) -> None:
        while self._task is not None and (following := self._inputs.pop(self._given + 1, None)) is not None:
            self._given += 1
            self._task.give(following["event"], following["after"])

    def _end(self, how: str) -> None:
        """The task is no longer this attempt's."""
        self._ended = how
        self._running.cancel()


def _why_lost(error: wakeq.WakeqError, outcome: Outcome | None) -> Exception:
    if not isinstance(error, _UNKNOWN):
        return error
    # One that was deleted has ended: this control plane has lost what it knew, or is another.
    # Empty where the control plane has refused one of its events, before there was any.
    result = "" if outcome is None else outcome.error or outcome.result
    result = f"; it has come to {result!r}" if result else ""
    return UnknownTask(f"the control plane does not know the task: {error.code}{result}")
