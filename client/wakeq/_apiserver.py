"""What `wakeq run` asks of an API server: a deployment's tasks."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import orjson

from wakeq._connection import Connection, path_segment, query
from wakeq._errors import WakeqError, raise_for_answer, read_answer
from wakeq._resumed import ServerPatience, read_lines

_TIMEOUT_S = 30.0
"""How long it may be silent; a task may have to wait for its service, and for a control plane that starts again."""
_SILENCE_S = 15.0
"""The same while a request is parked: it sends a space every 3 s then."""
_AWAY_MAX_S = 30.0
"""How long it may be away while a task is waited for."""
_PARKED_S = 55.0


class ApiServer:
    """One API server; as a context manager, its connections are closed on the way out."""

    def __init__(self, url: str) -> None:
        """Raises ValueError where ``url`` is no URL of a server."""
        self._connection = Connection(url, token=None, timeout=_TIMEOUT_S, transport=None)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._connection.aclose()

    async def deployments(self) -> list[str]:
        """The names of what runs there. Raises WakeqError."""
        answer = await self._connection.ask("GET", "/deployments/")
        raise_for_answer(answer)
        return read_answer(answer, lambda said: [str(one["name"]) for one in said])

    async def create_task(
        self, deployment: str, arguments: Mapping[str, Any], *, service: str | None, session_id: str | None
    ) -> "Task":
        """Begin a task, in a session of its own where none is named. Raises WakeqError."""
        path = f"/deployments/{path_segment(deployment)}/tasks/create"
        path += query({} if session_id is None else {"session_id": session_id})
        body = {"input": orjson.dumps(arguments).decode(), "service_id": service}
        answer = await self._connection.ask("POST", path, content=orjson.dumps(body))
        raise_for_answer(answer)
        made: dict[str, Any] = read_answer(
            answer, lambda said: {**said, **{name: str(said[name]) for name in ("task_id", "session_id")}}
        )
        return Task(self._connection, deployment, made)


class Task:
    """A task that an API server has begun."""

    def __init__(self, connection: Connection, deployment: str, definition: dict[str, Any]) -> None:
        self._connection = connection
        self._deployment = f"/deployments/{path_segment(deployment)}"
        self.definition = definition
        """What the server said of it, with its id and that of its session."""
        self.id: str = definition["task_id"]
        self.session_id: str = definition["session_id"]
        self._path = f"{self._deployment}/tasks/{path_segment(self.id)}"

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Its events, lines of JSON, some at a time as they come, until it ends. Raises WakeqError."""
        path = f"{self._path}/events{self._session()}"
        async with aclosing(read_lines(self._connection, path, silence_s=_SILENCE_S, retry_s=_AWAY_MAX_S)) as parts:
            async for part in parts:
                if part:
                    yield part

    async def ended(self) -> dict[str, Any]:
        """Where it stands, once it has ended: `status`, `result`, `error`. Raises WakeqError."""
        patience = ServerPatience(_AWAY_MAX_S)
        path = f"{self._path}{self._session(wait=f'{_PARKED_S:g}')}"
        while True:
            try:
                answer = await self._connection.ask("GET", path, wait_s=_SILENCE_S)
                raise_for_answer(answer)
            except WakeqError as error:
                await patience.wait(error)
                continue
            patience.succeeded()
            said: dict[str, Any] = read_answer(answer, lambda said: {**said, "finished_at": said["finished_at"]})
            if said["finished_at"] is not None:
                return said

    async def forget(self) -> None:
        """Drop its session, and it with it. Raises WakeqError."""
        path = f"{self._deployment}/sessions/delete{self._session()}"
        raise_for_answer(await self._connection.ask("POST", path))

    def _session(self, **more: str) -> str:
        return query({"session_id": self.session_id, **more})
