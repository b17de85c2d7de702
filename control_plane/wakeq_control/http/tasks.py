"""Tasks: their beginning, their events, their results."""

import math
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from wakeq_control.codec import dump
from wakeq_control.engine.engine import Engine
from wakeq_control.errors import ControlError, InvalidBody, Stopping
from wakeq_control.http.held import LONGEST_BEAT_S, Held, Lot
from wakeq_control.http.wire import JSON_TYPE, Request, Response, answer
from wakeq_control.messages import EventDefinition, TaskDefinition, in_body, service_of
from wakeq_control.model import Task

WAIT_MAX_S = 60.0
"""Longest that a request for a result may ask to be parked."""
SERVICE_WAIT_MAX_S = 600.0
"""Longest that a new task may ask to wait for its service."""
WAIT_S = 55.0
"""How long one that doesn't ask is."""


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid")

    event: Any


class Tasks:
    """The calls about tasks."""

    def __init__(self, engine: Engine, lot: Lot) -> None:
        self._engine = engine
        self._lot = lot

    async def add(self, request: Request, session_id: str) -> Response | None:
        """Begin a task, as soon as its service is registered: its id; with a wait for its end, where it stands then."""
        wait_s = request.seconds("wait", SERVICE_WAIT_MAX_S)
        end_wait_s = request.seconds("ended", WAIT_MAX_S)
        try:
            new = TaskDefinition.model_validate(await request.json()).new_task()
        except ValidationError as error:
            raise InvalidBody(in_body(error)) from None
        add = partial(self._engine.add_task, session_id, new, math.inf if wait_s is None else wait_s)
        if end_wait_s is None:
            return answer(await self._lot.attend(request, add))

        async def run(held: Held) -> Task:
            return await self._ended(held, session_id, await add(), end_wait_s)

        return await self._shown_when_ended(request, run)

    async def send_event(self, request: Request, session_id: str, task_id: str) -> Response:
        """Hand an event to a task's workflow."""
        try:
            said = EventDefinition.model_validate(await request.json())
        except ValidationError as error:
            raise InvalidBody(in_body(error)) from None
        service, _ = service_of(said)
        await self._engine.answer(session_id, task_id, service, said.event_obj_str)
        return answer(None)

    async def post_event(self, request: Request, session_id: str, task_id: str) -> Response:
        """The same by the task alone, the event being any JSON; and where the task stands then."""
        try:
            said = _Event.model_validate(await request.json())
        except ValidationError as error:
            raise InvalidBody(in_body(error)) from None
        task = await self._engine.task(session_id, task_id)
        await self._engine.answer(session_id, task_id, task.service, dump(said.event).decode())
        return answer(self._shown(task))

    async def list(self, request: Request, session_id: str) -> Response:
        """Where each task of a session stands, the oldest first."""
        return answer({"tasks": [self._shown(task) for task in await self._engine.session_tasks(session_id)]})

    async def show(self, request: Request, session_id: str, task_id: str) -> Response | None:
        """Where a task stands; with a wait, as soon as it has ended or the wait is over."""
        wait_s = request.seconds("wait", WAIT_MAX_S)
        if not wait_s:
            return answer(self._shown(await self._engine.task(session_id, task_id)))
        return await self._shown_when_ended(request, lambda held: self._ended(held, session_id, task_id, wait_s))

    async def _shown_when_ended(self, request: Request, ended: Callable[[Held], Awaitable[Task]]) -> Response | None:
        held = Held(request, [JSON_TYPE], beats=self._lot.beats)
        try:
            task = await self._lot.attend(request, lambda: ended(held))
        except ControlError:
            if not held.begun:
                raise
            # Asked again, the client is told.
            await request.cut_off()
            return None
        if not held.begun:
            return answer(self._shown(task))
        await held.end(dump(self._shown(task)))
        return None

    def _shown(self, task: Task) -> dict[str, object]:
        return shown(task, self._engine.runs(task))

    async def _ended(self, held: Held, session_id: str, task_id: str, wait_s: float) -> Task:
        await self._result(held, session_id, task_id, wait_s)
        return await self._engine.task(session_id, task_id)

    async def cancel(self, request: Request, session_id: str, task_id: str) -> Response:
        """End a task that hasn't ended."""
        await self._engine.cancel(session_id, task_id)
        return answer(self._shown(await self._engine.task(session_id, task_id)))

    async def result(self, request: Request, session_id: str, task_id: str) -> Response | None:
        """The result, as soon as there is one; `null` after the wait."""
        wait_s = request.seconds("wait", WAIT_MAX_S)
        held = Held(request, [JSON_TYPE])
        waiting = partial(self._result, held, session_id, task_id, WAIT_S if wait_s is None else wait_s)
        try:
            result = await self._lot.attend(request, waiting)
        except ControlError as error:
            if not held.begun and not isinstance(error, Stopping):
                raise
            # There is no result yet, and an answer that has begun can say nothing else.
            result = None
        if not held.begun:
            return answer(result)
        await held.end(dump(result))
        return None

    async def _result(self, held: Held, session_id: str, task_id: str, wait_s: float) -> dict[str, object] | None:
        deadline = self._engine.now() + wait_s

        async def wait() -> dict[str, object] | None:
            left_s = max(0.0, deadline - self._engine.now())
            # For the next sign of life it is begun again, and needs no end of its own before that.
            return await self._engine.result(session_id, task_id, math.inf if left_s > LONGEST_BEAT_S else left_s)

        return await held.wait(wait)


def shown(task: Task, runs: Iterable[Task]) -> dict[str, object]:
    """A task as wakeq's own calls have it, with its runs, where each replica of its service has one."""
    return {
        **task.definition,
        **_work(task),
        "created_at": instant(task.created_at),
        "timeout_s": task.timeout_s,
        "events": len(task.stream.arrived),
        "context_error": task.context_error,
        "result": task.result,
        "delivery": task.delivery,
        "replicas": [
            {"replica": run.replica, **_work(run), "result": None if run.result is None else run.result["result"]}
            for run in runs
        ],
    }


def _work(task: Task) -> dict[str, object]:
    return {
        "status": task.status,
        "attempt": task.attempt,
        "worker": task.worker,
        "failures": [{**one._asdict(), "failed_at": instant(one.failed_at)} for one in task.failures],
        "retry_at": instant(task.retry_at),
        "started_at": instant(task.started_at),
        "finished_at": instant(task.finished_at),
        "error": task.error,
    }


def instant(wall: float | None) -> str | None:
    """A time as JSON has it, in UTC."""
    if wall is None:
        return None
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
