"""A task's events as they come: lines for llama_deploy, server-sent events (WHATWG HTML, section 9.2) for others.

Each event was made bytes once, when it came; a watcher costs an event no more than handing those on.
"""

from bisect import bisect_right
from functools import partial
from operator import attrgetter

from wakeq_control.codec import dump
from wakeq_control.engine.engine import Engine
from wakeq_control.errors import BadRequest, ControlError, TaskNotFound
from wakeq_control.http.held import Held, Lot
from wakeq_control.http.tasks import shown
from wakeq_control.http.wire import Headers, Request, Response
from wakeq_control.streams import Event

_UNBUFFERED: Headers = [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
LINES: Headers = [(b"content-type", b"application/x-ndjson"), *_UNBUFFERED]
_EVENTS: Headers = [(b"content-type", b"text/event-stream; charset=utf-8"), *_UNBUFFERED]
_RETRY = b"retry: 1000\n\n"
_COMMENT = b":\n\n"
_INDEX_DIGITS = 15


class Streams:
    """The call of whoever watches a task."""

    def __init__(self, engine: Engine, lot: Lot) -> None:
        self._engine = engine
        self._lot = lot

    async def follow(self, request: Request, session_id: str, task_id: str) -> Response | None:
        """The events as they come, from the first on or behind `Last-Event-ID`; ends with the task."""
        as_events = b"text/event-stream" in request.headers.get(b"accept", b"")
        held = Held(request, _EVENTS, beats=self._lot.beats, beat=_COMMENT) if as_events else Held(request, LINES)
        send = partial(self._send_events, last_event_id(request)) if as_events else self._send_lines
        try:
            await self._lot.attend(request, partial(send, held, session_id, task_id))
        except ControlError as error:
            if held.begun:
                await request.cut_off()
            elif isinstance(error, TaskNotFound):
                raise TaskNotFound("Task stream not found") from None
            else:
                raise
        return None

    async def _send_lines(self, held: Held, session_id: str, task_id: str) -> None:
        sent, ended = 0, False
        while not ended:
            new, ended = await held.wait(partial(self._engine.more_events, session_id, task_id, sent))
            if new:
                sent += len(new)
                await held.write(b"".join(event.line for event in new))
        # Clients read what follows a line break as a line, and spaces are no JSON: they have to end as the line that a
        # stream's last event, a StopEvent, is.
        await held.end(b"{}\n" if held.blank else b"")

    async def _send_events(self, last_id: int, held: Held, session_id: str, task_id: str) -> None:
        task = await self._engine.task(session_id, task_id)
        # Where events were lost for good, indices have gaps.
        sent, ended = bisect_right(task.stream.ready, last_id, key=attrgetter("index")), False
        await held.write(_RETRY)
        while not ended:
            new, ended = await held.wait(partial(self._engine.more_events, session_id, task_id, sent))
            if new:
                sent += len(new)
                await held.write(b"".join(map(_frame, new)))
        await held.end(b"event: end\ndata: %b\n\n" % dump(shown(task)))


def last_event_id(request: Request) -> int:
    """The index of the event that the client has seen last; -1: it has seen none. Raises BadRequest."""
    text = request.headers.get(b"last-event-id", b"")
    if not text:
        return -1
    if not text.isdigit() or len(text) > _INDEX_DIGITS:
        raise BadRequest("Last-Event-ID: must be the id of an event of this task, a whole number")
    return int(text)


def _frame(event: Event) -> bytes:
    # A line ends with a line break.
    return b"id: %d\ndata: %b\n" % (event.index, event.line)
