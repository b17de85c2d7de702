"""Sessions and their states."""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from wakeq_control.engine.engine import Engine
from wakeq_control.errors import InvalidBody
from wakeq_control.http.wire import Request, Response, answer
from wakeq_control.messages import in_body

_STATE: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


class Sessions:
    """The calls about sessions."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def create(self, request: Request) -> Response:
        """A new session's id."""
        return answer(await self._engine.create_session())

    async def get(self, request: Request, session_id: str) -> Response:
        """A session with its state."""
        return answer(await self._shown(session_id))

    async def list(self, request: Request) -> Response:
        """All sessions by id."""
        return answer({session.id: await self._shown(session.id) for session in await self._engine.sessions()})

    async def delete(self, request: Request, session_id: str) -> Response:
        """Forget a session."""
        await self._engine.delete_session(session_id)
        return answer(None)

    async def tasks(self, request: Request, session_id: str) -> Response:
        """The definitions of its tasks."""
        return answer([task.definition for task in await self._engine.session_tasks(session_id)])

    async def current_task(self, request: Request, session_id: str) -> Response:
        """That of the newest task."""
        tasks = await self._engine.session_tasks(session_id)
        return answer(tasks[-1].definition if tasks else None)

    async def state(self, request: Request, session_id: str) -> Response:
        """Its state."""
        return answer(await self._engine.session_state(session_id))

    async def update(self, request: Request, session_id: str) -> Response:
        """Merge values into its state."""
        try:
            values = _STATE.validate_python(await request.json())
        except ValidationError as error:
            raise InvalidBody(in_body(error)) from None
        await self._engine.update_state(session_id, values)
        return answer(None)

    async def _shown(self, session_id: str) -> dict[str, object]:
        session = await self._engine.session(session_id)
        state = await self._engine.session_state(session_id)
        return {"session_id": session_id, "task_ids": list(session.task_ids), "state": state}
