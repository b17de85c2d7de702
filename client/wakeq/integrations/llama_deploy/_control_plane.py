"""llama_deploy's control plane, which tells of a result or an event when it is there.

By itself it answers "not yet", and its clients ask again half a second later: most of what a short task takes, however
fast its queue is. It also reads a session, waits for something, and writes the session back, which loses what others
have written in between: with a fast queue, events of a stream.
"""

# llama_deploy is not among the dependencies; who imports this has it.
# mypy: disable-error-code="import-not-found, no-any-return", allow-subclassing-any

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import anyio
from fastapi import HTTPException
from fastapi.responses import StreamingResponse
from llama_deploy.control_plane import ControlPlaneServer
from llama_deploy.orchestrators.utils import get_result_key, get_stream_key
from llama_deploy.types import TaskDefinition, TaskResult, TaskStream

HELD_S = 3.0
"""How long an answer is held that would be "not yet"; clients without a setting of their own give up after 5 s."""

_Found = TypeVar("_Found")


class WokenControlPlane(ControlPlaneServer):
    """Stands where llama_deploy has a ControlPlaneServer."""

    # Its messages and its consumer are named after the class; neither has changed for whoever looks for them.
    __qualname__ = ControlPlaneServer.__qualname__

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As the original."""
        # Of tasks that somebody waits for, and of sessions that somebody changes: nobody else keeps these.
        self._changes: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()
        self._changing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        super().__init__(*args, **kwargs)

    async def add_task_to_session(self, session_id: str, task_def: TaskDefinition) -> str:
        """As the original, and before or after any other change of the session."""
        async with self._change_of(session_id):
            return await super().add_task_to_session(session_id, task_def)

    async def handle_service_completion(self, task_result: TaskResult) -> None:
        """As the original, and wakes who waits for the result."""
        task = await self.get_task(task_result.task_id)
        try:
            async with self._change_of(task.session_id):
                await super().handle_service_completion(task_result)
        finally:
            # The result is kept before it is published, which may fail, to whom it is to go to in the end.
            self._wake(task_result.task_id)

    async def add_stream_to_session(self, task_stream: TaskStream) -> None:
        """As the original, and wakes who reads the stream."""
        async with self._change_of(task_stream.session_id):
            await super().add_stream_to_session(task_stream)
        self._wake(task_stream.task_id)

    async def update_session_state(self, session_id: str, state: dict[str, Any]) -> None:
        """As the original, but for events and results, which are the control plane's own.

        A service writes back the whole state that it has read before, and with it these as they were then.
        """
        async with self._change_of(session_id):
            session = await self.get_session(session_id)
            own = {key(task_id) for task_id in session.task_ids for key in (get_result_key, get_stream_key)}
            changed = {name: value for name, value in state.items() if name not in own}
            await super().update_session_state(session_id, changed)

    async def get_task_result(self, task_id: str, session_id: str) -> TaskResult | None:
        """A task's result as soon as there is one; None after HELD_S."""
        return await self._held(task_id, partial(super().get_task_result, task_id, session_id))

    async def get_task_result_stream(self, session_id: str, task_id: str) -> StreamingResponse:
        """A task's events, a line of JSON each as they come, until there is a result; 404 after HELD_S without one."""

        async def ended() -> bool:
            return await super(WokenControlPlane, self).get_task_result(task_id, session_id) is not None

        events = partial(self._events, session_id, task_id)
        if await self._held(task_id, events) is None:
            raise HTTPException(404, "Task stream not found")
        return StreamingResponse(self._lines(task_id, events, ended), media_type="application/x-ndjson")

    async def _lines(
        self,
        task_id: str,
        events: Callable[[], Awaitable[list[TaskStream] | None]],
        ended: Callable[[], Awaitable[bool]],
    ) -> AsyncGenerator[str, None]:
        sent = 0
        try:
            while True:
                change = self._next_change(task_id)
                # Asked first: events that come before a result are in the stream by then.
                last = await ended()
                for event in (await events() or [])[sent:]:
                    sent += 1
                    yield json.dumps(event.data) + "\n"
                if last:
                    return
                # Another control plane on the same state store may have the news, and can't wake anybody here.
                with anyio.move_on_after(HELD_S):
                    await change.wait()
        except HTTPException as error:
            # The session is gone; the answer has begun, so its status can't say that any more.
            yield json.dumps({"error": str(error)}) + "\n"

    async def _events(self, session_id: str, task_id: str) -> list[TaskStream] | None:
        """A task's events so far; None before the first."""
        state = (await self.get_session(session_id)).state
        return [TaskStream.model_validate(event) for event in state.get(get_stream_key(task_id), [])] or None

    async def _held(self, task_id: str, find: Callable[[], Awaitable[_Found | None]]) -> _Found | None:
        """What is found, looked for anew at each change of the task, for HELD_S."""
        with anyio.move_on_after(HELD_S):
            while True:
                change = self._next_change(task_id)
                found = await find()
                if found is not None:
                    return found
                await change.wait()
        return await find()

    def _next_change(self, task_id: str) -> asyncio.Event:
        """Set when something of the task has changed; taken before looking, so that none is missed."""
        return self._changes.setdefault(task_id, asyncio.Event())

    def _wake(self, task_id: str) -> None:
        change = self._changes.pop(task_id, None)
        if change is not None:
            change.set()

    def _change_of(self, session_id: str | None) -> asyncio.Lock:
        """Held while a session is read, changed and written back."""
        return self._changing.setdefault(session_id or "", asyncio.Lock())
