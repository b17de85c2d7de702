"""The ASGI application: which call a request is."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from wakeq_control.apiserver.answers import refusal_of
from wakeq_control.apiserver.deployments import DeploymentCalls
from wakeq_control.apiserver.guard import Guard
from wakeq_control.apiserver.sessions import SessionCalls
from wakeq_control.apiserver.tasks import TaskCalls
from wakeq_control.deploy.errors import DeploymentError
from wakeq_control.errors import ControlError
from wakeq_control.http.application import Application, Call
from wakeq_control.http.held import Lot
from wakeq_control.http.wire import Request, Response


class App(Application):
    """The whole HTTP side."""

    refusals = (ControlError, DeploymentError)

    def __init__(
        self, deployments: DeploymentCalls, sessions: SessionCalls, tasks: TaskCalls, guard: Guard, lot: Lot
    ) -> None:
        super().__init__(guard, lot)
        self._deployments = deployments
        self._sessions = sessions
        self._tasks = tasks

    def refuse(self, request: Request, error: ControlError | DeploymentError) -> Response:
        """Say no, in the status line too."""
        refusal = refusal_of(error)
        request.say(refusal.reason)
        return refusal.response

    def calls(self, request: Request) -> Mapping[str, Call]:
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
            return {"GET": partial(plain[request.path], request)}
        match request.path.split("/"):
            case ["", "deployments", "create"]:
                return {
                    "GET": partial(deployments.get, request, "create"),
                    "POST": partial(deployments.create, request),
                }
            case ["", "deployments", name] if name:
                return {"GET": partial(deployments.get, request, name)}
            case ["", "deployments", name, *rest] if name and all(rest):
                return self._calls_of(request, name, rest)
        return {}

    def _calls_of(self, request: Request, deployment: str, rest: list[str]) -> Mapping[str, Call]:
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
                return {"GET": partial(sessions.get, request, deployment, session)}
            case ["tasks"]:
                found = {"GET": tasks.list}
            case ["tasks", "run"]:
                found = {"POST": tasks.run}
            case ["tasks", "create"]:
                found = {"POST": tasks.create}
            case ["tasks", task]:
                return {"GET": partial(tasks.show, request, deployment, task)}
            case ["tasks", task, "events"]:
                return {
                    "GET": partial(tasks.events, request, deployment, task),
                    "POST": partial(tasks.send_event, request, deployment, task),
                }
            case ["tasks", task, "results"]:
                return {"GET": partial(tasks.result, request, deployment, task)}
        return {method: partial(call, request, deployment) for method, call in found.items()}
