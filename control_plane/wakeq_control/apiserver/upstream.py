"""What the API server asks of a deployment's control plane.

A control plane that dies is started again by who supervises the deployment, and goes on from what it had stored. So
what got no answer is asked again for a while, and may come twice: tasks have ids of ours, and the second is the first.
What would count twice is asked again only where nobody can have heard it.
"""

import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import anyio

import wakeq
from wakeq._connection import Connection, control_token, path_segment, query
from wakeq._errors import raise_for_answer, read_answer
from wakeq._resumed import ServerPatience, is_away, read_lines
from wakeq_control.apiserver.errors import ControlPlaneUnavailable, Relayed
from wakeq_control.codec import dump
from wakeq_control.errors import ControlError

PATIENCE_S = 30.0
"""How long a control plane may be away."""
SILENCE_S = 20.0
"""How long it may be silent, at most the 10 s that a task waits for its service; it sends a space every 3 s then."""
_PAGE = 1_000
_PARKED_S = 55.0
"""How long one request for a result is parked."""


class ControlPlane:
    """One control plane."""

    def __init__(self, url: str) -> None:
        self._connection = Connection(url, token=control_token(), timeout=SILENCE_S, transport=None)

    async def aclose(self) -> None:
        """Close its connections."""
        await self._connection.aclose()

    async def create_session(self) -> str:
        """A new session's id."""
        return str(await self.ask("POST", "/sessions/create"))

    async def sessions(self) -> AsyncGenerator[dict[str, Any], None]:
        """How each session stands, the oldest first. Raises Relayed, ControlPlaneUnavailable."""
        after: str | None = ""
        while after is not None:
            page = await self.ask("GET", f"/v1/sessions{query({'after': after, 'limit': _PAGE})}")
            for session in page["sessions"]:
                yield session
            after = page["next"]

    async def schema(self, service: str) -> dict[str, Any]:
        """What a service takes; empty where it doesn't say."""
        services = (await self.ask("GET", "/v1/services"))["services"]
        return next((one["schema"] or {} for one in services if one["name"] == service), {})

    async def result(self, session_id: str, task_id: str, wait_s: float = math.inf) -> dict[str, Any] | None:
        """A task's result, as soon as there is one; None after ``wait_s``.

        Raises Relayed, also where there is no such task.
        """
        deadline = anyio.current_time() + wait_s
        while True:
            parked_s = max(0.0, min(_PARKED_S, deadline - anyio.current_time()))
            task = await self.standing(session_id, task_id, parked_s)
            if task["finished_at"] is not None or anyio.current_time() >= deadline:
                found: dict[str, Any] | None = task["result"]
                return found

    async def standing(self, session_id: str, task_id: str, wait_s: float) -> dict[str, Any]:
        """Where a task stands, as soon as it has ended; after ``wait_s`` in any case. Raises as `ask`."""
        found: dict[str, Any] = await self.ask("GET", f"{task_path(session_id, task_id)}?wait={wait_s:.3f}")
        return found

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, once: bool = False) -> Any:
        """What it answers; ``once``: it must not come twice. Raises Relayed, ControlPlaneUnavailable."""
        content = b"" if body is None else dump(body)
        patience = ServerPatience(PATIENCE_S)
        while True:
            try:
                # Any of these may be parked, and the others' pool is for what is answered at once.
                answer = await self._connection.ask(method, path, content=content, wait_s=SILENCE_S, kind="streams")
                raise_for_answer(answer)
                return read_answer(answer, lambda said: said)
            except wakeq.WakeqError as error:
                if once and isinstance(error, wakeq.ServerUnavailable) and error.may_have_happened:
                    raise ControlPlaneUnavailable(f"it may have been done, or not: {error.detail}") from error
                await _wait(patience, error)

    async def events(self, session_id: str, task_id: str) -> AsyncGenerator[bytes, None]:
        """The lines of a task's events, some at a time, as they come; an empty part is a sign of life.

        Each comes once, however often the connection breaks. Raises Relayed, ControlPlaneUnavailable.
        """
        path = f"{task_path(session_id, task_id)}/result_stream"
        try:
            async with aclosing(read_lines(self._connection, path, silence_s=SILENCE_S, retry_s=PATIENCE_S)) as parts:
                async for part in parts:
                    yield part
        except wakeq.WakeqError as error:
            raise _told(error) from error


async def _wait(patience: ServerPatience, error: wakeq.WakeqError) -> None:
    try:
        await patience.wait(error)
    except wakeq.WakeqError:
        raise _told(error) from error


def _told(error: wakeq.WakeqError) -> ControlError:
    if is_away(error) or not error.code:
        return ControlPlaneUnavailable(f"the deployment's control plane is away: {error.detail}")
    return Relayed(error.status or 500, error.code, error.detail)


def session_path(session_id: str) -> str:
    """Where a session is."""
    return f"/sessions/{path_segment(session_id)}"


def service_path(name: str) -> str:
    """Where a service is."""
    return f"/services/{path_segment(name)}"


def task_path(session_id: str, task_id: str) -> str:
    """Where a task is."""
    return f"{session_path(session_id)}/tasks/{path_segment(task_id)}"


class ControlPlanes:
    """Those of all deployments, by URL."""

    def __init__(self) -> None:
        self._open: dict[str, ControlPlane] = {}

    def at(self, url: str) -> ControlPlane:
        """The one there. Raises ValueError where that is no URL."""
        if url not in self._open:
            self._open[url] = ControlPlane(url)
        return self._open[url]

    async def aclose(self) -> None:
        """Close all connections."""
        planes, self._open = self._open, {}
        for plane in planes.values():
            await plane.aclose()
