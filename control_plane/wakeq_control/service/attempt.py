"""One attempt at one task: begun at the control plane, run, told of inputs and of its end, and ended by one message."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import anyio.abc
import structlog

import wakeq
from wakeq_control import arguments
from wakeq_control.codec import load
from wakeq_control.errors import InvalidArguments
from wakeq_control.link.trying import PERMANENT, until_done
from wakeq_control.messages import CONTROL_PLANE
from wakeq_control.service.context import TaskContext
from wakeq_control.service.control import ControlPlane
from wakeq_control.service.runnable import Outcome, Runnable, failed, refused

_log: Any = structlog.get_logger("wakeq.worker")
_NOT_FOUND = 404
Publish = Callable[[dict[str, Any], str], Awaitable[None]]
"""Publishes a message to the control plane, under an idempotency key. Raises WakeqError, TypeError, ValueError."""


class Attempt:
    """What a worker does with one delivery of a task."""

    def __init__(
        self, task_id: str, session_id: str, text: str, *, worker: str, control: ControlPlane, publish: Publish
    ) -> None:
        """``text`` is the task's input."""
        self._task_id = task_id
        self._session_id = session_id
        self._text = text
        self._worker = worker
        self._control = control
        self._publish = publish
        self._context: dict[str, Any] | None = None
        self._task: TaskContext | None = None
        self._told = 0
        self._known = anyio.Event()
        self._ended: str | None = None
        self._running = anyio.CancelScope()
        self._sending = 0
        self._sent = anyio.Event()
        self._error: Exception | None = None
        """Why an event could not be sent."""
        self._lost: wakeq.WakeqError | None = None
        """Why the task can't be followed."""

    async def run(self, service: Runnable) -> None:
        """Work on the task; returns when it has ended, here or elsewhere. Raises WakeqError: it has to come again."""
        outcome: Outcome | None = None
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._follow)
            await self._known.wait()
            if self._task is not None and self._ended is None:
                with self._running:
                    outcome = await self._work(service, self._task)
                    await self._all_sent()
            tasks.cancel_scope.cancel()
        if self._error is not None and self._ended is None:
            outcome = _unsendable(self._error)
        elif self._running.cancelled_caught:
            outcome = None
        if outcome is not None and self._task is not None:
            await self._end(outcome, self._task.attempt)
        elif self._lost is not None:
            raise self._lost
        _log.info("task ended", task=self._task_id, how=self._how(outcome))

    def _how(self, outcome: Outcome | None) -> str:
        if outcome is None or self._ended is not None:
            return self._ended or "elsewhere"
        return "succeeded" if outcome.error is None else outcome.error

    async def _work(self, service: Runnable, task: TaskContext) -> Outcome:
        try:
            arguments.check_input(service.schema, self._text)
            given = load(self._text)
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
        try:
            await until_done(f"following task {self._task_id}", self._hear)
        except PERMANENT as error:
            self._lost = error
        self._known.set()
        self._running.cancel()

    async def _hear(self) -> None:
        number = None if self._task is None else self._task.attempt
        try:
            async with self._control.attempt(self._session_id, self._task_id, self._worker, number) as lines:
                inputs = 0
                async for line in lines:
                    if "ended" in line:
                        self._ended = line["ended"]
                        return
                    if "event" in line:
                        inputs += 1
                        self._give(inputs, line)
                    elif self._task is None:
                        self._begin(line)
        except wakeq.WakeqError as error:
            if error.status != _NOT_FOUND:
                raise
            # It was deleted, with its session or by age.
            self._ended = "gone"
            return
        raise wakeq.ServerUnavailable("the control plane has ended the stream")

    def _begin(self, line: dict[str, Any]) -> None:
        self._task = TaskContext(self._task_id, self._session_id, line["attempt"], self._emit)
        self._context = line["context"]
        # What is known of the past comes with it, and an end too.
        self._known.set()

    def _give(self, number: int, line: dict[str, Any]) -> None:
        # After a reconnection they come from the first on.
        if self._task is not None and number > self._told:
            self._told = number
            self._task.give(line["event"], line["after"])

    # What the control plane is told

    def _emit(self, index: int, data: dict[str, Any]) -> None:
        assert self._task is not None
        body = self._message("task_stream", session_id=self._session_id, data=data, index=index)
        self._sending += 1
        self._tasks.start_soon(self._send, body, f"event:{self._task_id}:{self._task.attempt}:{index}")

    async def _send(self, body: dict[str, Any], key: str) -> None:
        try:
            await self._publish(body, key)
        except (wakeq.WakeqError, TypeError, ValueError) as error:
            # What comes behind it would never be shown, such as a question that the task waits for an answer to.
            self._error = self._error or error
            self._running.cancel()
        finally:
            self._sending -= 1
            self._sent.set()

    async def _all_sent(self) -> None:
        """A result ends the stream, so that events come first."""
        while self._sending:
            self._sent = anyio.Event()
            await self._sent.wait()

    async def _end(self, outcome: Outcome, attempt: int) -> None:
        send = partial(self._send_end, attempt=attempt)
        try:
            await send(outcome)
        except (*PERMANENT, TypeError, ValueError) as error:
            await send(refused("QUEUE_REFUSED", f"the result or the workflow's context can't be sent: {error}"))

    async def _send_end(self, outcome: Outcome, attempt: int) -> None:
        kept = {} if outcome.context is None else {"context": outcome.context}
        body = self._message("completed_task", history=[], result=outcome.result, data={}, error=outcome.error, **kept)
        # What it says instead, after a refusal, is another message.
        kind = "result" if outcome.error is None else "error"
        await self._publish(body, f"{kind}:{self._task_id}:{attempt}")

    def _message(self, action: str, **data: Any) -> dict[str, Any]:
        assert self._task is not None
        said = {"task_id": self._task_id, **data, "attempt": self._task.attempt}
        return {"publisher_id": self._worker, "type": CONTROL_PLANE, "action": action, "data": said}


def _unsendable(error: Exception) -> Outcome:
    """The outcome where an event can never be sent. Raises the error where another attempt may be able to."""
    if isinstance(error, wakeq.WakeqError) and not isinstance(error, PERMANENT):
        raise error
    return refused("QUEUE_REFUSED", f"an event can't be sent: {error}")
