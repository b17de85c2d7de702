"""Tasks of a deployment: their beginning, their events, their results."""

import uuid
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

import anyio
from anyio.abc import TaskGroup
from pydantic import ValidationError

from wakeq_control.apiserver.arguments import typed
from wakeq_control.apiserver.errors import NO_DEPLOYMENT, NoDefaultService, Relayed
from wakeq_control.apiserver.outcome import Outcome
from wakeq_control.apiserver.sessions import session_of
from wakeq_control.apiserver.upstream import ControlPlane, ControlPlanes, service_path, session_path, task_path
from wakeq_control.codec import dump, load
from wakeq_control.deploy.base import Deployment, Deployments
from wakeq_control.deploy.errors import DeploymentNotFound
from wakeq_control.errors import ControlError, InvalidArguments, InvalidBody, ServiceNotFound
from wakeq_control.http.held import Held, Lot
from wakeq_control.http.streams import LINES
from wakeq_control.http.tasks import WAIT_MAX_S, WAIT_S
from wakeq_control.http.wire import JSON_TYPE, Request, Response, answer
from wakeq_control.messages import EventDefinition, TaskDefinition, in_body, service_of
from wakeq_control.model import IdField

_T = TypeVar("_T")
# What unmodified clients ask again after, every half a second and for ever.
_NOT_FOUND = 404
_GONE = 410


class _Begun(NamedTuple):
    """A task that the control plane has taken."""

    plane: ControlPlane
    definition: dict[str, Any]
    session_id: str
    is_own_session: bool
    """Whether the session was made for it."""


class TaskCalls:
    """The calls about tasks."""

    def __init__(self, deployments: Deployments, planes: ControlPlanes, lot: Lot, running: TaskGroup) -> None:
        """``running``: where a task is seen to its end whose client doesn't wait for it."""
        self._deployments = deployments
        self._planes = planes
        self._lot = lot
        self._running = running

    async def run(self, request: Request, deployment: str) -> Response | None:
        """Run a task and answer its result; a session that was made for it goes with it.

        A client that hangs up doesn't end the task: what was begun is done, as with llama_deploy.
        """
        begun = await self._begin(request, deployment)
        outcome = Outcome[str]()
        self._running.start_soon(outcome.by, partial(_finish, begun))
        return await self._answer(request, lambda held: held.wait(outcome.wait))

    async def show(self, request: Request, deployment: str, task_id: str) -> Response | None:
        """Where a task stands; with `wait`, as soon as it has ended or after so many seconds."""
        session_id, wait_s = session_of(request), request.seconds("wait", WAIT_MAX_S)
        work = partial(self._plane(deployment).standing, session_id, task_id, wait_s or 0.0)
        return await self._answer(request, lambda held: _beside(held, work))

    async def create(self, request: Request, deployment: str) -> Response:
        """Begin a task and answer its definition, with the session that it is in."""
        return answer((await self._begin(request, deployment)).definition)

    async def list(self, request: Request, deployment: str) -> Response:
        """The tasks of all sessions."""
        plane = self._plane(deployment)
        tasks: list[object] = []
        async for session in plane.sessions():
            if session["tasks"]:
                tasks += await plane.ask("GET", f"{session_path(session['session_id'])}/tasks")
        return answer(tasks)

    async def result(self, request: Request, deployment: str, task_id: str) -> Response | None:
        """A task's result, as soon as there is one; `null` after the wait, and where there is no such task."""
        session_id, wait_s = session_of(request), request.seconds("wait", WAIT_MAX_S)
        work = partial(_result, self._plane(deployment), session_id, task_id, WAIT_S if wait_s is None else wait_s)
        return await self._answer(request, lambda held: _beside(held, work))

    async def events(self, request: Request, deployment: str, task_id: str) -> Response | None:
        """A task's events, a line each, as they come; ends with the task."""
        session_id = session_of(request)
        held = Held(request, LINES)
        try:
            plane = self._plane(deployment)
            await self._lot.attend(request, partial(_stream, held, plane, session_id, task_id))
        except DeploymentNotFound as error:
            raise Relayed(_GONE, error.code, NO_DEPLOYMENT) from None
        except ControlError as error:
            if held.begun:
                await request.cut_off()
            elif isinstance(error, Relayed) and error.status == _NOT_FOUND:
                raise Relayed(_GONE, error.relayed_code, error.detail) from None
            else:
                raise
        return None

    async def send_event(self, request: Request, deployment: str, task_id: str) -> Response:
        """Hand an event to a task's workflow; the answer is the event."""
        session_id, body = session_of(request), await request.json()
        try:
            said = EventDefinition.model_validate(body)
        except ValidationError as error:
            raise InvalidBody(in_body(error)) from None
        service, id_field = service_of(said)
        definition = {id_field: service, "event_obj_str": said.event_obj_str}
        path = f"{task_path(session_id, task_id)}/send_event"
        await self._plane(deployment).ask("POST", path, definition, once=True)
        return answer(definition)

    async def _begin(self, request: Request, deployment: str) -> _Begun:
        try:
            said = TaskDefinition.model_validate(await request.json())
        except ValidationError as error:
            raise InvalidBody(in_body(error)) from None
        found = self._deployments.get(deployment)
        plane = self._planes.at(found.control_plane_url)
        service, id_field = await _service(found, plane, said)
        _check_is_object(said.input)
        session_id = request.parameter("session_id") or said.session_id or None
        is_own = session_id is None
        if session_id is None:
            session_id = await plane.create_session()
        definition: dict[str, Any] = {"input": said.input, "task_id": str(uuid.uuid4())}
        definition |= {"session_id": session_id, id_field: service}
        if said.timeout_s is not None:
            definition["timeout_s"] = said.timeout_s
        try:
            definition = await _add(plane, session_id, service, definition)
        except ControlError:
            if is_own:
                await _forget(plane, session_id)
            raise
        return _Begun(plane, definition, session_id, is_own)

    def _plane(self, deployment: str) -> ControlPlane:
        return self._planes.at(self._deployments.get(deployment).control_plane_url)

    async def _answer(self, request: Request, work: Callable[[Held], Awaitable[_T]]) -> Response | None:
        """What work returns, in JSON; the client is kept waiting, and the work ends with it."""
        held = Held(request, [JSON_TYPE])
        try:
            value = await self._lot.attend(request, lambda: work(held))
        except ControlError:
            if not held.begun:
                raise
            await request.cut_off()
            return None
        if not held.begun:
            return answer(value)
        await held.end(dump(value))
        return None


async def _service(deployment: Deployment, plane: ControlPlane, said: TaskDefinition) -> tuple[str, IdField]:
    """The service that a task goes to, and the word that its client has for it."""
    id_field: IdField = "agent_id" if "agent_id" in said.model_fields_set else "service_id"
    service = said.service_id or said.agent_id
    if not service:
        if deployment.default_service is None:
            raise NoDefaultService
        return deployment.default_service, id_field
    names = [one.name for one in deployment.services()]
    if service not in names:
        await _check_is_registered(deployment, plane, service, names)
    return service, id_field


async def _check_is_registered(deployment: Deployment, plane: ControlPlane, service: str, names: list[str]) -> None:
    """Services that are none of the file's may have registered themselves."""
    try:
        await plane.ask("GET", service_path(service))
    except Relayed as error:
        if error.status != _NOT_FOUND:
            raise
        has = ", ".join(names) or "none"
        raise ServiceNotFound(
            f"Service {service!r} not found in deployment {deployment.name!r}; its services are: {has}"
        ) from None


def _check_is_object(text: str) -> None:
    try:
        is_object = isinstance(load(text), dict)
    except (ValueError, RecursionError) as error:
        raise InvalidArguments(f"the input is not JSON: {error}") from None
    if not is_object:
        raise InvalidArguments("the input must be a JSON object with an argument for each key")


async def _add(plane: ControlPlane, session_id: str, service: str, definition: dict[str, Any]) -> dict[str, Any]:
    """Begin a task; returns its definition as it was taken.

    `llamactl` has only text for its arguments. Where the service takes no text, they are what the text says in JSON.
    """
    path = f"{session_path(session_id)}/tasks"
    try:
        await plane.ask("POST", path, definition)
    except Relayed as error:
        if error.relayed_code != InvalidArguments.code:
            raise
        values = load(definition["input"])
        read = typed(await plane.schema(service), values)
        if read == values:
            raise
        definition = {**definition, "input": dump(read).decode()}
        await plane.ask("POST", path, definition)
    return definition


async def _finish(begun: _Begun) -> str:
    """A task's result; then nobody needs the session that was made for it."""
    try:
        result = await begun.plane.result(begun.session_id, begun.definition["task_id"])
    finally:
        if begun.is_own_session:
            await _forget(begun.plane, begun.session_id)
    return "" if result is None else str(result["result"])


async def _forget(plane: ControlPlane, session_id: str) -> None:
    with suppress(ControlError):
        await plane.ask("POST", f"{session_path(session_id)}/delete")


async def _result(plane: ControlPlane, session_id: str, task_id: str, wait_s: float) -> dict[str, Any] | None:
    try:
        return await plane.result(session_id, task_id, wait_s)
    except Relayed as error:
        if error.relayed_code != "TASK_NOT_FOUND":
            raise
        return None


async def _beside(held: Held, work: Callable[[], Awaitable[_T]]) -> _T:
    """What work returns. It isn't begun again for each sign of life that the client gets."""
    outcome = Outcome[_T]()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outcome.by, work)
        await held.wait(outcome.ended)
    return await outcome.wait()


async def _stream(held: Held, plane: ControlPlane, session_id: str, task_id: str) -> None:
    async with aclosing(plane.events(session_id, task_id)) as parts:
        async for part in parts:
            await held.write(part or b" ")
            held.blank = not part
    # A stream whose last is a space would end in a line that is no JSON.
    await held.end(b"{}\n" if held.blank else b"")
