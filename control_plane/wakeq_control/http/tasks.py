"""Tasks: their beginning, their events, their results."""

from datetime import UTC, datetime
from functools import partial

from pydantic import ValidationError

from wakeq_control.codec import dump
from wakeq_control.engine.engine import Engine
from wakeq_control.errors import ControlError, InvalidBody, Stopping, TaskNotFound
from wakeq_control.http.held import Held, Lot
from wakeq_control.http.wire import JSON_TYPE, Request, Response, answer
from wakeq_control.messages import EventDefinition, TaskDefinition, in_body, service_of
from wakeq_control.model import Task

WAIT_MAX_S = 60.0
"""Longest that a request for a result may ask to be parked."""
WAIT_S = 55.0
"""How long one that doesn't ask is."""
LINES: list[tuple[bytes, bytes]] = [
    (b"content-type", b"application/x-ndjson"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class Tasks:
    """The calls about tasks."""

    def __init__(self, engine: Engine, lot: Lot) -> None:
        self._engine = engine
        self._lot = lot

    async def add(self, request: Request, session_id: str) -> Response:
        """Begin a task; waits for its service to be registered."""
        try:
            new = TaskDefinition.model_validate(await request.json()).new_task()
        except ValidationError as error:
            raise InvalidBody(in_body(error)) from None
        return answer(await self._lot.attend(request, partial(self._engine.add_task, session_id, new)))

    async def send_event(self, request: Request, session_id: str, task_id: str) -> Response:
        """Hand an event to a task's workflow."""
        try:
            said = EventDefinition.model_validate(await request.json())
        except ValidationError as error:
            raise InvalidBody(in_body(error)) from None
        service, _ = service_of(said)
        await self._engine.answer(session_id, task_id, service, said.event_obj_str)
        return answer(None)

    async def show(self, request: Request, session_id: str, task_id: str) -> Response:
        """Where a task stands."""
        return answer(_shown(await self._engine.task(session_id, task_id)))

    async def cancel(self, request: Request, session_id: str, task_id: str) -> Response:
        """End a task that hasn't ended."""
        await self._engine.cancel(session_id, task_id)
        return await self.show(request, session_id, task_id)

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
        return await held.wait(
            lambda: self._engine.result(session_id, task_id, max(0.0, deadline - self._engine.now()))
        )

    async def result_stream(self, request: Request, session_id: str, task_id: str) -> Response | None:
        """The events, a line each, as they come; ends with the task."""
        held = Held(request, LINES)
        try:
            await self._lot.attend(request, partial(self._stream, held, session_id, task_id))
        except ControlError as error:
            if held.begun:
                await request.cut_off()
            elif isinstance(error, TaskNotFound):
                raise TaskNotFound("Task stream not found") from None
            else:
                raise
        return None

    async def _stream(self, held: Held, session_id: str, task_id: str) -> None:
        shown, ended = 0, False
        while not ended:
            more = partial(self._engine.more_events, session_id, task_id, shown)
            new, ended = await held.wait(more)
            if new:
                shown += len(new)
                await held.write(b"".join(event.line for event in new))
        # Clients read what follows a line break as a line, and spaces are no JSON: they have to end as the line that a
        # stream's last event, a StopEvent, is.
        await held.end(b"{}\n" if held.blank else b"")


def _shown(task: Task) -> dict[str, object]:
    return {
        **task.definition,
        "status": task.status,
        "attempt": task.attempt,
        "worker": task.worker,
        "created_at": _instant(task.created_at),
        "started_at": _instant(task.started_at),
        "finished_at": _instant(task.finished_at),
        "timeout_s": task.timeout_s,
        "events": len(task.stream.arrived),
        "error": task.error,
        "result": task.result,
    }


def _instant(wall: float | None) -> str | None:
    if wall is None:
        return None
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
