"""Workers at their tasks: who takes one follows it, and so hears at once of inputs and of a cancellation."""

from functools import partial
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wakeq_control.codec import dump_line
from wakeq_control.engine.engine import Engine
from wakeq_control.errors import ControlError, InvalidBody, SessionNotFound, TaskNotFound
from wakeq_control.http.held import Held, Lot
from wakeq_control.http.streams import LINES
from wakeq_control.http.tasks import BEAT_S
from wakeq_control.http.wire import Request, Response
from wakeq_control.messages import in_body


class _Attempt(BaseModel):
    model_config = ConfigDict(extra="forbid")

    worker: Annotated[str, Field(min_length=1, max_length=255)]
    attempt: Annotated[int, Field(ge=1)] | None = None
    publisher: str | None = None
    """Whose message the worker has the task by."""
    retries: Annotated[int, Field(ge=0)] | None = None
    """How many attempts had failed when that was made."""


class Attempts:
    """The call of a worker that has been handed a task."""

    def __init__(self, engine: Engine, lot: Lot) -> None:
        self._engine = engine
        self._lot = lot

    async def follow(self, request: Request, session_id: str, task_id: str) -> Response | None:
        """Begin an attempt, or go on with one that names its number: a line of JSON for whatever the worker must know.

        The first, unless there is nothing to do, has the attempt's number and the session's context, then there is one
        for each input, and the last says why the attempt has ended.
        """
        try:
            said = _Attempt.model_validate(await request.json())
        except ValidationError as error:
            raise InvalidBody(in_body(error)) from None
        held = Held(request, LINES, beat_s=BEAT_S)
        try:
            await self._lot.attend(request, partial(self._follow, held, session_id, task_id, said))
        except ControlError:
            if not held.begun:
                raise
            await request.cut_off()
        return None

    async def _follow(self, held: Held, session_id: str, task_id: str, said: _Attempt) -> None:
        try:
            await self._tell(held, session_id, task_id, said)
        except (SessionNotFound, TaskNotFound):
            # A task of our own that is gone was deleted. Of another's nobody here knows what has become of it.
            if not held.begun and said.publisher != self._engine.publisher:
                raise
            await held.end(dump_line({"ended": "deleted"}))

    async def _tell(self, held: Held, session_id: str, task_id: str, said: _Attempt) -> None:
        attempt, context = said.attempt, None
        if attempt is None:
            attempt, context = await self._engine.begin_attempt(session_id, task_id, said.worker, said.retries)
        # An unknown task is refused before anything is written, and where there is nothing to do none begins.
        task = await self._engine.task(session_id, task_id)
        if task.finished_at is None and task.attempt == attempt:
            await held.write(dump_line({"attempt": attempt, "context": context}))
        shown, ended = 0, None
        while ended is None:
            new, ended = await held.wait(partial(self._engine.more_inputs, session_id, task_id, attempt, shown))
            shown += len(new)
            if new:
                await held.write(b"".join(dump_line(one._asdict()) for one in new))
        await held.end(dump_line({"ended": ended}))
