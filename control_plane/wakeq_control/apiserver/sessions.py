"""Sessions of a deployment, which its control plane keeps."""

from wakeq_control.apiserver.upstream import ControlPlane, ControlPlanes, session_path
from wakeq_control.deploy.base import Deployments
from wakeq_control.errors import InvalidBody
from wakeq_control.http.wire import Request, Response, answer


class SessionCalls:
    """The calls about sessions."""

    def __init__(self, deployments: Deployments, planes: ControlPlanes) -> None:
        self._deployments = deployments
        self._planes = planes

    async def list(self, request: Request, deployment: str) -> Response:
        """All sessions."""
        plane = self._plane(deployment)
        return answer([_definition(session["session_id"]) async for session in plane.sessions()])

    async def create(self, request: Request, deployment: str) -> Response:
        """A new one."""
        return answer(_definition(await self._plane(deployment).create_session()))

    async def get(self, request: Request, deployment: str, session_id: str) -> Response:
        """One, if it is there."""
        await self._plane(deployment).ask("GET", f"/v1{session_path(session_id)}")
        return answer(_definition(session_id))

    async def delete(self, request: Request, deployment: str) -> Response:
        """Forget a session; one that isn't there is forgotten."""
        plane = self._plane(deployment)
        await plane.ask("POST", f"{session_path(session_of(request))}/delete")
        return answer(None)

    def _plane(self, deployment: str) -> ControlPlane:
        return self._planes.at(self._deployments.get(deployment).control_plane_url)


def session_of(request: Request) -> str:
    """The session that a query names. Raises InvalidBody."""
    session_id = request.parameter("session_id")
    if not session_id:
        raise InvalidBody([{"type": "missing", "loc": ["query", "session_id"], "msg": "Field required", "input": None}])
    return session_id


def _definition(session_id: str) -> dict[str, object]:
    # llama_deploy says nothing more of a session here, whatever it has.
    return {"session_id": session_id, "task_ids": [], "state": {}}
