"""The asynchronous client of a control plane, for asyncio and trio alike.

What is asked for is named by ids, and those of tasks are chosen here: a task that is created again after a lost answer
is the same task. Waiting for a task is a request that the server holds until there is something to say.
"""

import math
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self
from weakref import WeakSet

import anyio
from anyio.abc import TaskGroup

from wakeq._bodies import as_event, encoded
from wakeq._connection import (
    DEFAULT_CONTROL_URL,
    JSON,
    SILENCE_S,
    Answer,
    Connection,
    Transport,
    control_token,
    path_segment,
    query,
)
from wakeq._control_model import ServiceInfo, SessionInfo, SessionState, TaskInfo
from wakeq._errors import ServerUnavailable, Stopping, TaskFailed, WakeqError, raise_for_answer, read_answer
from wakeq._json import without_none
from wakeq._patience import Patience
from wakeq._task_events import TaskEvents
from wakeq._task_feed import TaskFeed
from wakeq._wire import Arriving, Header

_WAIT_S = 55.0
"""How long one request for a task's end is held."""
SERVICE_WAIT_S = 30.0
"""How long a new task may wait for its service, if the server lets it."""
_GIVE_UP_S = 5.0
"""How long telling the server that nobody waits any more may take."""


class AsyncControlPlane:
    """A connection to one control plane; use it as an async context manager.

    Each method raises ServerUnavailable, and SessionNotFound or TaskNotFound where it names one that isn't there.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        token: str | None = None,
        timeout: float = 10.0,
        retry_s: float = 60.0,
        transport: Transport = None,
    ) -> None:
        """``base_url`` None: the environment's ``WAKEQ_CONTROL_PLANE``, else the local one.

        ``token`` is what it asks for (``wakeq control-plane --token-file``), None: the environment's
        ``WAKEQ_CONTROL_TOKEN``, else its ``WAKEQ_TOKEN``. ``timeout`` (seconds) bounds connecting, and the silence of a
        server that isn't asked to wait. For ``retry_s`` seconds creating a task, and waiting for its events or its end,
        is tried again while the server can't be reached; 0: it is tried once. ``transport`` is as for `AsyncClient`.
        Raises ValueError naming what is none of this.
        """
        self._connection = Connection(
            base_url or os.environ.get("WAKEQ_CONTROL_PLANE") or DEFAULT_CONTROL_URL,
            token=token or control_token(),
            timeout=timeout,
            transport=transport,
        )
        self._retry_s = retry_s
        self._feeds: WeakSet[TaskFeed] = WeakSet()
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._connection.aopen()
            stack.push_async_callback(self._connection.aclose)
            self._tasks = await anyio.create_task_group().__aenter__()
            stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks, self._tasks = self._tasks, None
        try:
            if tasks is not None:
                # Whoever only reads owes nobody anything.
                for feed in self._feeds:
                    feed.stop()
                await tasks.__aexit__(None, None, None)
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Close all connections, of a client that was not used as a context manager."""
        await self._connection.aclose()

    # Services

    async def services(self) -> list[ServiceInfo]:
        """All that are registered."""
        answer = await self._ask("GET", "/v1/services")
        return read_answer(answer, lambda said: [ServiceInfo.from_wire(wire) for wire in said["services"]])

    async def service(self, name: str) -> ServiceInfo:
        """One of them. Raises ServiceNotFound."""
        return read_answer(await self._ask("GET", f"/v1/services/{path_segment(name)}"), ServiceInfo.from_wire)

    # Sessions

    async def create_session(self) -> str:
        """A new session's id."""
        return read_answer(await self._ask("POST", "/sessions/create"), str)

    async def sessions(self) -> AsyncIterator[SessionInfo]:
        """All of them, the oldest first, asked for in pages as they are needed."""
        after: str | None = ""
        while after is not None:
            page, after = await self._sessions_from(after)
            for session in page:
                yield session

    async def _sessions_from(self, after: str) -> tuple[list[SessionInfo], str | None]:
        """A page of sessions, and behind which the next begins; None: this was the last."""
        answer = await self._ask("GET", f"/v1/sessions{query({'after': after})}")
        return read_answer(
            answer, lambda said: ([SessionInfo.from_wire(wire) for wire in said["sessions"]], said["next"])
        )

    async def session(self, session_id: str) -> SessionInfo:
        """How a session stands."""
        return read_answer(await self._ask("GET", f"/v1{_session(session_id)}"), SessionInfo.from_wire)

    async def delete_session(self, session_id: str) -> None:
        """Drop a session with its tasks, those that run too; one that isn't there is no error."""
        await self._ask("POST", f"{_session(session_id)}/delete")

    async def session_state(self, session_id: str) -> SessionState:
        """What clients and services have put into it, and its version."""
        return read_answer(await self._ask("GET", f"/v1{_session(session_id)}/state"), SessionState.from_wire)

    async def update_session_state(
        self, session_id: str, values: Mapping[str, Any], *, version: int | None = None
    ) -> int:
        """Merge values into it at its top level, and return its version. What is kept of tasks is left as it is.

        ``version``: the one that was read; None: whatever it is. It is asked once: ServerUnavailable leaves open
        whether it was written. Raises StateConflict where it has another version, StateTooLarge, TypeError.
        """
        return await self._write_state("POST", session_id, values, version)

    async def replace_session_state(
        self, session_id: str, values: Mapping[str, Any], *, version: int | None = None
    ) -> int:
        """Put values in the place of all that is in it, as `update_session_state` does."""
        return await self._write_state("PUT", session_id, values, version)

    async def _write_state(self, method: str, session_id: str, values: Mapping[str, Any], version: int | None) -> int:
        headers = [(b"if-match", b'"%d"' % version)] if version is not None else []
        answer = await self._ask(method, f"/v1{_session(session_id)}/state", encoded(values, "values"), headers)
        return read_answer(answer, lambda said: int(said["version"]))

    # Tasks

    async def create_task(
        self,
        session_id: str,
        service: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        task_id: str | None = None,
        timeout_s: float | None = None,
        service_wait_s: float = SERVICE_WAIT_S,
    ) -> str:
        """Begin a task, and return its id as soon as it is stored; the service need not be there yet.

        ``arguments`` are what JSON has, dataclasses and pydantic models. ``task_id``: 1 to 200 printable characters,
        none of them ``/``; None: a new one. Creating a task again with its id is no other task. ``timeout_s``: after
        so many seconds it has timed out. A service that isn't registered is waited for, at most ``service_wait_s``
        seconds (0 to 600) and at most as long as the server does for anybody (``--wait-for-service``).

        Raises TypeError where the arguments aren't JSON, InvalidArguments where the service doesn't take them,
        ServiceNotFound when nobody has registered it, TaskConflict, InvalidBody, BadRequest.
        """
        wait_s = service_wait_s + self._connection.timeout
        answer = await self._post_task(
            session_id, service, arguments, task_id, timeout_s, {"wait": service_wait_s}, wait_s=wait_s
        )
        return read_answer(answer, str)

    async def _post_task(
        self,
        session_id: str,
        service: str,
        arguments: Mapping[str, Any] | None,
        task_id: str | None,
        timeout_s: float | None,
        asked: Mapping[str, object],
        *,
        wait_s: float,
        kind: Literal["requests", "streams"] = "requests",
    ) -> Answer:
        definition = {
            "input": encoded({} if arguments is None else arguments, "arguments").decode(),
            "service_id": service,
            # Without one of its own, who loses the answer could begin it twice.
            "task_id": secrets.token_hex(16) if task_id is None else task_id,
            "timeout_s": timeout_s,
        }
        path = f"{_session(session_id)}/tasks{query(asked)}"
        content = encoded(without_none(definition))
        return await self._insist(
            partial(self._connection.ask, "POST", path, content=content, wait_s=wait_s, kind=kind)
        )

    async def tasks(self, session_id: str) -> list[TaskInfo]:
        """A session's tasks, the oldest first."""
        answer = await self._ask("GET", f"/v1{_session(session_id)}/tasks")
        return read_answer(answer, lambda said: [TaskInfo.from_wire(wire) for wire in said["tasks"]])

    async def task(self, session_id: str, task_id: str) -> TaskInfo:
        """Where a task stands."""
        return read_answer(await self._ask("GET", _task(session_id, task_id)), TaskInfo.from_wire)

    async def wait(self, session_id: str, task_id: str, *, wait_s: float | None = None) -> TaskInfo:
        """How a task has ended, as soon as it has; or where it stands after ``wait_s`` seconds, None: however long.

        It is asked for again when a server has held the request for long enough, or went away meanwhile.
        """
        deadline = math.inf if wait_s is None else anyio.current_time() + wait_s
        while True:
            left_s = max(0.0, deadline - anyio.current_time())
            held_s = min(_WAIT_S, left_s)
            path = f"{_task(session_id, task_id)}{query({'wait': held_s})}"
            ask = partial(self._connection.ask, "GET", path, kind="streams", wait_s=SILENCE_S)
            answer = await self._insist(ask, at_most_s=left_s)
            task = read_answer(answer, TaskInfo.from_wire)
            if task.ended or anyio.current_time() >= deadline:
                return task

    def events(self, session_id: str, task_id: str, *, after: int | None = None) -> TaskEvents:
        """What a task shows, from its first event on and as it comes, over one stream that reconnects by itself.

        ``after``: the index of an event; it begins behind that one. The iteration ends with the task, and then
        `TaskEvents.end` says how that has ended. Raises RuntimeError where the client is not used as a context manager,
        which is what ends its background.
        """
        if self._tasks is None:
            raise RuntimeError(
                "to watch a task, use the client as a context manager: `async with wakeq.AsyncControlPlane() as …`"
            )
        path = f"{_task(session_id, task_id)}/result_stream"

        def open_stream(last: int) -> AbstractAsyncContextManager[Arriving]:
            seen = [(b"last-event-id", b"%d" % last)] if last >= 0 else []
            return self._connection.stream(path, [(b"accept", b"text/event-stream"), *seen], SILENCE_S)

        feed = TaskFeed(open_stream, after=-1 if after is None else after, retry_s=self._retry_s)
        return TaskEvents(feed, self._start)

    def _start(self, feed: TaskFeed) -> None:
        if self._tasks is None:
            raise RuntimeError("the client is closed")
        self._feeds.add(feed)
        self._tasks.start_soon(feed.run)

    async def send_event(self, session_id: str, task_id: str, event: Any) -> TaskInfo:
        """Hand an event to a running task, such as a human's answer, and say where the task stands then.

        ``event`` is what JSON has, or an event of llama-index's workflows. One for a task that has ended goes nowhere.
        It is asked once: ServerUnavailable leaves open whether the task has it. Raises TypeError.
        """
        content = encoded({"event": as_event(event)}, "event")
        answer = await self._ask("POST", f"/v1{_task(session_id, task_id)}/events", content)
        return read_answer(answer, TaskInfo.from_wire)

    async def result(self, session_id: str, task_id: str) -> str:
        """What a task has come to, as soon as it has ended, however long that takes.

        Raises TaskFailed, TaskCancelled or TaskTimedOut where it has not succeeded.
        """
        return _result(await self.wait(session_id, task_id))

    async def run(
        self,
        service: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        session_id: str | None = None,
        task_id: str | None = None,
        timeout_s: float | None = None,
        service_wait_s: float = SERVICE_WAIT_S,
    ) -> str:
        """Create a task and wait for its result; ``session_id`` None: in a session of its own, which goes with it.

        Who stops waiting, as by a cancellation, cancels the task. Raises what `create_task` and `result` raise.
        """
        own = await self.create_session() if session_id is None else None
        session = own or str(session_id)
        task_id = secrets.token_hex(16) if task_id is None else task_id
        try:
            # One request for a task that doesn't take long.
            asked = {"wait": service_wait_s, "ended": _WAIT_S}
            answer = await self._post_task(
                session,
                service,
                arguments,
                task_id,
                timeout_s,
                asked,
                wait_s=service_wait_s + SILENCE_S,
                kind="streams",
            )
            task = read_answer(answer, TaskInfo.from_wire)
            return _result(task) if task.ended else await self.result(session, task_id)
        except anyio.get_cancelled_exc_class():
            if own is None:
                await self._tell_at_last(lambda: self.cancel(session, task_id))
            raise
        finally:
            if own is not None:
                await self._tell_at_last(lambda: self.delete_session(own))

    async def cancel(self, session_id: str, task_id: str) -> TaskInfo:
        """End a task that hasn't ended, and say how it has. Workers are told; services of llama_deploy can't be."""
        return read_answer(await self._ask("POST", f"{_task(session_id, task_id)}/cancel"), TaskInfo.from_wire)

    async def _tell_at_last(self, tell: Callable[[], Awaitable[object]]) -> None:
        """Say so even while being cancelled; a server that can't be told finds no one waiting anyway."""
        with anyio.move_on_after(_GIVE_UP_S, shield=True):
            try:
                await tell()
            except WakeqError:
                return

    async def _insist(self, ask: Callable[[], Awaitable[Answer]], *, at_most_s: float = math.inf) -> Answer:
        """The answer, asked for again while the server is away, for ``retry_s`` at most. Raises what it says."""
        patience = Patience(min(self._retry_s, at_most_s))
        while True:
            try:
                answer = await ask()
                raise_for_answer(answer)
            except (ServerUnavailable, Stopping) as error:
                await patience.wait(error)
            else:
                return answer

    async def _ask(self, method: str, path: str, content: bytes = b"", headers: Sequence[Header] = ()) -> Answer:
        answer = await self._connection.ask(method, path, content=content, headers=[*JSON, *headers])
        raise_for_answer(answer)
        return answer


def _session(session_id: str) -> str:
    return f"/sessions/{path_segment(session_id)}"


def _task(session_id: str, task_id: str) -> str:
    return f"{_session(session_id)}/tasks/{path_segment(task_id)}"


def _result(task: TaskInfo) -> str:
    if task.status != "succeeded":
        raise TaskFailed.of(task)
    return task.result or ""
