"""The ASGI application: which call a request is, and what every request has in common."""

from collections.abc import Awaitable, Callable
from typing import Any

from wakeq_control.apiserver.answers import NOT_FOUND, Refusal, refusal_of
from wakeq_control.apiserver.deployments import DeploymentCalls
from wakeq_control.apiserver.guard import Guard
from wakeq_control.apiserver.sessions import SessionCalls
from wakeq_control.apiserver.tasks import TaskCalls
from wakeq_control.deploy.errors import DeploymentError
from wakeq_control.errors import ControlError
from wakeq_control.http.held import Lot
from wakeq_control.http.wire import (
    Gone,
    Receive,
    Request,
    Response,
    Scope,
    Send,
    method_not_allowed,
    send_response,
)

Call = Callable[[], Awaitable[Response | None]]
"""An answer, or None where it has been sent."""


class App:
    """The whole HTTP side, as an ASGI 3 application."""

    def __init__(
        self, deployments: DeploymentCalls, sessions: SessionCalls, tasks: TaskCalls, guard: Guard, lot: Lot
    ) -> None:
        self._deployments = deployments
        self._sessions = sessions
        self._tasks = tasks
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
        except (ControlError, DeploymentError) as error:
            response = self._refuse(request, refusal_of(error))
        if response is not None:
            await send_response(send, response, has_body=request.method != "HEAD")

    async def _answer(self, request: Request) -> Response | None:
        self._guard.check(request.headers)
        calls = self._calls(request)
        if not calls:
            return self._refuse(request, NOT_FOUND)
        call = calls.get(request.method)
        return method_not_allowed(sorted(calls)) if call is None else await call()

    def _refuse(self, request: Request, refusal: Refusal) -> Response:
        request.say(refusal.reason)
        return refusal.response

    def _calls(self, request: Request) -> dict[str, Call]:
        """What can be done with this path, by method."""
        deployments = self._deployments
        # llama_deploy's clients put a slash at the end of these.
        plain: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "/": deployments.home,
            "/status": deployments.status,
            "/status/": deployments.status,
            "/deployments": deployments.list,
            "/deployments/": deployments.list,
            "/healthz": deployments.health,
        }
        if request.path in plain:
            return {"GET": _with(plain[request.path], request)}
        match request.path.split("/"):
            case ["", "deployments", "create"]:
                return {
                    "GET": _with(deployments.get, request, "create"),
                    "POST": _with(deployments.create, request),
                }
            case ["", "deployments", name] if name:
                return {"GET": _with(deployments.get, request, name)}
            case ["", "deployments", name, *rest] if name and all(rest):
                return self._calls_of(request, name, rest)
        return {}

    def _calls_of(self, request: Request, deployment: str, rest: list[str]) -> dict[str, Call]:
        sessions, tasks = self._sessions, self._tasks
        found: dict[str, Callable[..., Awaitable[Response | None]]] = {}
        match rest:
            case ["sessions"]:
                found = {"GET": sessions.list}
            case ["sessions", "create"]:
                found = {"POST": sessions.create}
            case ["sessions", "delete"]:
                found = {"POST": sessions.delete}
            case ["sessions", session]:
                return {"GET": _with(sessions.get, request, deployment, session)}
            case ["tasks"]:
                found = {"GET": tasks.list}
            case ["tasks", "run"]:
                found = {"POST": tasks.run}
            case ["tasks", "create"]:
                found = {"POST": tasks.create}
            case ["tasks", task]:
                return {"GET": _with(tasks.show, request, deployment, task)}
            case ["tasks", task, "events"]:
                return {
                    "GET": _with(tasks.events, request, deployment, task),
                    "POST": _with(tasks.send_event, request, deployment, task),
                }
            case ["tasks", task, "results"]:
                return {"GET": _with(tasks.result, request, deployment, task)}
        return {method: _with(call, request, deployment) for method, call in found.items()}


def _with(call: Callable[..., Awaitable[Response | None]], *arguments: Any) -> Call:
    return lambda: call(*arguments)
