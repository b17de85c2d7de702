"""The ASGI application: which call a request is."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from wakeq_control.errors import ControlError
from wakeq_control.http.application import Application, Call
from wakeq_control.http.attempts import Attempts
from wakeq_control.http.guard import Guard
from wakeq_control.http.held import Lot
from wakeq_control.http.services import Services
from wakeq_control.http.sessions import Sessions
from wakeq_control.http.streams import Streams
from wakeq_control.http.tasks import Tasks
from wakeq_control.http.wire import Request, Response, error_answer
from wakeq_control.limits import DEFAULTS


class App(Application):
    """The whole HTTP side."""

    def __init__(
        self,
        services: Services,
        sessions: Sessions,
        tasks: Tasks,
        streams: Streams,
        attempts: Attempts,
        guard: Guard,
        lot: Lot,
        *,
        body_max_bytes: int = DEFAULTS.body_bytes,
    ) -> None:
        super().__init__(guard, lot, body_max_bytes=body_max_bytes)
        self._services = services
        self._sessions = sessions
        self._tasks = tasks
        self._streams = streams
        self._attempts = attempts
        self._plain: dict[str, dict[str, Callable[[Request], Awaitable[Response]]]] = {
            "/": {"GET": services.home},
            "/queue_config": {"GET": services.queue_config},
            "/process_message": {"POST": services.process_message},
            "/services": {"GET": services.list},
            "/sessions": {"GET": sessions.list},
            "/v1/services": {"GET": services.standing},
            "/v1/sessions": {"GET": sessions.page},
            "/healthz": {"GET": services.health},
        }

    def refuse(self, request: Request, error: ControlError) -> Response:
        """What a refusal looks like on the wire."""
        return error_answer(error)

    def calls(self, request: Request) -> Mapping[str, Call]:
        """What can be done with this path, by method."""
        services, sessions = self._services, self._sessions
        if request.path in self._plain:
            return {method: partial(call, request) for method, call in self._plain[request.path].items()}
        match request.path.split("/"):
            case ["", "services", name] if name:
                posts = {"register": services.register, "deregister": services.deregister}
                found: dict[str, Call] = {"GET": partial(services.get, request, name)}
                return found | ({"POST": partial(posts[name], request)} if name in posts else {})
            case ["", "v1", "services", name] if name:
                return {
                    "GET": partial(services.stands, request, name),
                    "PUT": partial(services.put_worker, request, name),
                }
            case ["", "v1", "workers", worker] if worker:
                return {"DELETE": partial(self._attempts.leave, request, worker)}
            case ["", "v1", "workers", worker, "links", number] if worker:
                return {
                    "GET": partial(self._attempts.follow, request, worker, number),
                    "POST": partial(self._attempts.hear, request, worker, number),
                }
            case ["", "v1", "sessions", session] if session:
                return {"GET": partial(sessions.summary, request, session)}
            case ["", "v1", "sessions", session, "state"] if session:
                return {
                    "GET": partial(sessions.own_state, request, session),
                    "POST": partial(sessions.merge, request, session),
                    "PUT": partial(sessions.replace, request, session),
                }
            case ["", "v1", "sessions", session, "tasks"] if session:
                return {"GET": partial(self._tasks.list, request, session)}
            case ["", "v1", "sessions", session, "tasks", task, "events"] if session and task:
                return {"POST": partial(self._tasks.post_event, request, session, task)}
            case ["", "sessions", *rest] if all(rest):
                return self._session_calls(request, rest)
        return {}

    def _session_calls(self, request: Request, rest: list[str]) -> Mapping[str, Call]:
        sessions, tasks = self._sessions, self._tasks
        match rest:
            case ["create"]:
                return {
                    "GET": partial(sessions.get, request, "create"),
                    "POST": partial(sessions.create, request),
                }
            case [session]:
                return {"GET": partial(sessions.get, request, session)}
            case [session, "delete"]:
                return {"POST": partial(sessions.delete, request, session)}
            case [session, "tasks"]:
                return {
                    "GET": partial(sessions.tasks, request, session),
                    "POST": partial(tasks.add, request, session),
                }
            case [session, "current_task"]:
                return {"GET": partial(sessions.current_task, request, session)}
            case [session, "state"]:
                return {
                    "GET": partial(sessions.state, request, session),
                    "POST": partial(sessions.update, request, session),
                }
            case [session, "tasks", task]:
                return {"GET": partial(tasks.show, request, session, task)}
            case [session, "tasks", task, action]:
                return self._task_calls(request, session, task, action)
        return {}

    def _task_calls(self, request: Request, session: str, task: str, action: str) -> Mapping[str, Call]:
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
        return {method: partial(call, request, session, task)}
