"""The ASGI application: which call a request is, and what every request has in common."""

from collections.abc import Awaitable, Callable
from typing import Any

from wakeq_control.errors import ControlError
from wakeq_control.http.attempts import Attempts
from wakeq_control.http.guard import Guard
from wakeq_control.http.held import Lot
from wakeq_control.http.services import Services
from wakeq_control.http.sessions import Sessions
from wakeq_control.http.streams import Streams
from wakeq_control.http.tasks import Tasks
from wakeq_control.http.wire import (
    NOT_FOUND,
    Gone,
    Receive,
    Request,
    Response,
    Scope,
    Send,
    error_answer,
    method_not_allowed,
    send_response,
)

Call = Callable[[], Awaitable[Response | None]]
"""An answer, or None where it has been sent."""


class App:
    """The whole HTTP side, as an ASGI 3 application."""

    def __init__(
        self,
        services: Services,
        sessions: Sessions,
        tasks: Tasks,
        streams: Streams,
        attempts: Attempts,
        guard: Guard,
        lot: Lot,
    ) -> None:
        self._services = services
        self._sessions = sessions
        self._tasks = tasks
        self._streams = streams
        self._attempts = attempts
        self._guard = guard
        self.lot = lot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"this application speaks HTTP only, not {scope['type']}")
        request = Request(scope, receive, send)
        try:
            response = await self._answer(request)
        except Gone:
            # Returning without a last part makes the server close the connection.
            return
        except ControlError as error:
            response = error_answer(error)
        if response is not None:
            await send_response(send, response, has_body=request.method != "HEAD")

    async def _answer(self, request: Request) -> Response | None:
        self._guard.check(request.headers)
        calls = self._calls(request)
        if not calls:
            return NOT_FOUND
        call = calls.get(request.method)
        return method_not_allowed(sorted(calls)) if call is None else await call()

    def _calls(self, request: Request) -> dict[str, Call]:
        """What can be done with this path, by method."""
        services, sessions = self._services, self._sessions
        plain: dict[str, dict[str, Callable[[Request], Awaitable[Response]]]] = {
            "/": {"GET": services.home},
            "/queue_config": {"GET": services.queue_config},
            "/process_message": {"POST": services.process_message},
            "/services": {"GET": services.list},
            "/sessions": {"GET": sessions.list},
            "/v1/services": {"GET": services.standing},
            "/healthz": {"GET": services.health},
        }
        if request.path in plain:
            return {method: _with(call, request) for method, call in plain[request.path].items()}
        match request.path.split("/"):
            case ["", "services", name] if name:
                posts = {"register": services.register, "deregister": services.deregister}
                found = {"GET": _with(services.get, request, name)}
                return found | ({"POST": _with(posts[name], request)} if name in posts else {})
            case ["", "v1", "services", name] if name:
                return {
                    "GET": _with(services.stands, request, name),
                    "PUT": _with(services.put_worker, request, name),
                }
            case ["", "v1", "workers", worker, "links", number] if worker:
                return {
                    "GET": _with(self._attempts.follow, request, worker, number),
                    "POST": _with(self._attempts.hear, request, worker, number),
                }
            case ["", "v1", "sessions", session, "tasks"] if session:
                return {"GET": _with(self._tasks.list, request, session)}
            case ["", "v1", "sessions", session, "tasks", task, "events"] if session and task:
                return {"POST": _with(self._tasks.post_event, request, session, task)}
            case ["", "sessions", *rest] if all(rest):
                return self._session_calls(request, rest)
        return {}

    def _session_calls(self, request: Request, rest: list[str]) -> dict[str, Call]:
        sessions, tasks = self._sessions, self._tasks
        match rest:
            case ["create"]:
                return {
                    "GET": _with(sessions.get, request, "create"),
                    "POST": _with(sessions.create, request),
                }
            case [session]:
                return {"GET": _with(sessions.get, request, session)}
            case [session, "delete"]:
                return {"POST": _with(sessions.delete, request, session)}
            case [session, "tasks"]:
                return {
                    "GET": _with(sessions.tasks, request, session),
                    "POST": _with(tasks.add, request, session),
                }
            case [session, "current_task"]:
                return {"GET": _with(sessions.current_task, request, session)}
            case [session, "state"]:
                return {
                    "GET": _with(sessions.state, request, session),
                    "POST": _with(sessions.update, request, session),
                }
            case [session, "tasks", task]:
                return {"GET": _with(tasks.show, request, session, task)}
            case [session, "tasks", task, action]:
                return self._task_calls(request, session, task, action)
        return {}

    def _task_calls(self, request: Request, session: str, task: str, action: str) -> dict[str, Call]:
        tasks = self._tasks
        known: dict[str, tuple[str, Callable[..., Awaitable[Response | None]]]] = {
            "result": ("GET", tasks.result),
            "result_stream": ("GET", self._streams.follow),
            "send_event": ("POST", tasks.send_event),
            "cancel": ("POST", tasks.cancel),
        }
        if action not in known:
            return {}
        method, call = known[action]
        return {method: _with(call, request, session, task)}


def _with(call: Callable[..., Awaitable[Response | None]], *arguments: Any) -> Call:
    return lambda: call(*arguments)
