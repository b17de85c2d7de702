"""Workers at their tasks: what a worker's process says of all its attempts, and what it hears of them."""

from collections.abc import Iterable
from functools import partial
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wakeq_control.codec import dump_line
from wakeq_control.engine.engine import Engine
from wakeq_control.engine.links import DELETED, Link, numbered
from wakeq_control.errors import BadRequest, ControlError, InvalidBody, PathNotFound, SessionNotFound, TaskNotFound
from wakeq_control.http.held import Held, Lot
from wakeq_control.http.streams import LINES
from wakeq_control.http.wire import Request, Response, answer
from wakeq_control.messages import in_body
from wakeq_control.plane import End, Said
from wakeq_control.streams import Event

_WORKER_MAX = 255
_NUMBER_DIGITS = 15


class _End(BaseModel):
    result: str
    error: str | None = None
    context: dict[str, Any] | None = None
    retryable: bool = False


class _Word(BaseModel):
    """Of one attempt: its beginning, or with ``events`` what it says."""

    model_config = ConfigDict(extra="forbid")

    ref: Annotated[int, Field(ge=0)]
    session_id: str
    task_id: str
    publisher: str | None = None
    """Whose message the worker has the task by."""
    retries: Annotated[int, Field(ge=0)] | None = None
    """How many attempts had failed when that was made."""
    attempt: Annotated[int, Field(ge=1)] | None = None
    index: Annotated[int, Field(ge=0)] = 0
    """Of the first event."""
    events: list[dict[str, Any]] | None = None
    end: _End | None = None


class _Words(BaseModel):
    model_config = ConfigDict(extra="forbid")

    words: list[Any]


class Attempts:
    """The calls of a worker's link."""

    def __init__(self, engine: Engine, lot: Lot) -> None:
        self._engine = engine
        self._lot = lot

    async def follow(self, request: Request, worker: str, number: str) -> Response | None:
        """Open the link: a line of JSON for whatever the worker must know of its attempts, until it hangs up."""
        link = self._engine.links.open(*_name(worker, number))
        held = Held(request, LINES, beats=self._lot.beats)
        try:
            await self._lot.attend(request, partial(self._tell, held, link))
        except ControlError:
            if not held.begun:
                raise
            await request.cut_off()
        finally:
            link.close()
        return None

    async def _tell(self, held: Held, link: Link) -> None:
        await held.begin()
        while True:
            await held.write(b"".join(map(dump_line, await held.wait(link.news))))

    async def hear(self, request: Request, worker: str, number: str) -> Response | None:
        """Take in what attempts say; answers when it is stored, each word by itself, in order."""
        link = self._engine.links.find(*_name(worker, number))
        try:
            said = _Words.model_validate(await request.json())
        except ValidationError as error:
            raise InvalidBody(in_body(error)) from None
        if link is None:
            raise PathNotFound
        answers = self._heard(link, said.words)
        await self._engine.settled()
        return answer({"answers": answers})

    def _heard(self, link: Link, words: Iterable[Any]) -> list[dict[str, Any]]:
        return [self._heard_one(link, word) for word in words]

    def _heard_one(self, link: Link, said: Any) -> dict[str, Any]:
        try:
            word = _Word.model_validate(said)
        except ValidationError as error:
            return {"code": InvalidBody.code, "detail": str(in_body(error))}
        try:
            return self._answer(link, word)
        except (SessionNotFound, TaskNotFound) as error:
            # A task of our own that is gone was deleted. Of another's nobody here knows what has become of it.
            if word.publisher == self._engine.publisher:
                return {"ended": DELETED}
            return {"code": error.code, "detail": error.detail}

    def _answer(self, link: Link, word: _Word) -> dict[str, Any]:
        if word.events is not None:
            why = self._engine.hear_attempt(link, word.ref, _said(word, word.events))
            return {} if why is None else {"ended": why}
        begun = self._engine.begin_attempt(link, word.ref, word.session_id, word.task_id, word.attempt, word.retries)
        if isinstance(begun, str):
            return {"ended": begun}
        inputs = numbered(word.ref, begun.inputs)
        return {"attempt": begun.attempt, "context": begun.context, "inputs": inputs}


def _said(word: _Word, events: list[dict[str, Any]]) -> Said:
    end = None
    if word.end is not None:
        result = {"task_id": word.task_id, "history": [], "result": word.end.result, "data": {}}
        end = End(result, word.end.error, word.end.context, word.end.retryable)
    made = [Event.make(index, data) for index, data in enumerate(events, word.index)]
    return Said(word.session_id, word.task_id, word.attempt or 0, made, end)


def _name(worker: str, number: str) -> tuple[str, int]:
    """Which link it is. Raises BadRequest."""
    if not (len(worker) <= _WORKER_MAX and worker.isprintable()):
        raise BadRequest(f"a worker's name must have at most {_WORKER_MAX} characters, all of them printable")
    if not (number.isascii() and number.isdigit() and len(number) <= _NUMBER_DIGITS):
        raise BadRequest(f"a link's number must be a whole number of at most {_NUMBER_DIGITS} digits, not {number!r}")
    return worker, int(number)
