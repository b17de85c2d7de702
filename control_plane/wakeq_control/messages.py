"""What services and clients say in llama_deploy's messages, read and checked."""

from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from wakeq_control.codec import is_storable
from wakeq_control.errors import InvalidBody
from wakeq_control.model import IdField
from wakeq_control.plane import End, NewTask
from wakeq_control.streams import Event

CONTROL_PLANE = "control_plane"
"""The type of messages to the control plane, and so the end of its topic's name; no service can have it."""
SERVICE_MAX = 150
"""Characters of a service's name, which is part of a topic's."""
REPLICA_MAX = 100
"""Characters of a replica's name, which is part of a topic's, too."""
TASK_ID_MAX = 200
"""Characters of a task's id, which is part of an idempotency key."""
TIMEOUT_MAX_S = 30 * 86_400.0
"""Longest that a task may be given."""


class TaskEvent(NamedTuple):
    """`task_stream`: an event of a running task."""

    session_id: str
    task_id: str
    event: Event


class CompletedTask(NamedTuple):
    """`completed_task`: a task's end."""

    end: End


class NewTaskMessage(NamedTuple):
    """`new_task`: a task that comes by the queue."""

    task: NewTask


Heard = TaskEvent | CompletedTask | NewTaskMessage


def check_name(value: str, longest: int) -> str:
    """The value. Raises ValueError unless it can stand in paths, headers and logs."""
    if not (1 <= len(value) <= longest and value.isprintable() and "/" not in value):
        raise ValueError(f"must have 1 to {longest} characters, all of them printable, and none of them /")
    return value


def check_replica(value: str) -> str:
    """The value. Raises ValueError unless a topic's name can end with it."""
    check_name(value, REPLICA_MAX)
    if "@" in value:
        raise ValueError("must have no @: it stands before it in the name of its topic")
    return value


class TaskDefinition(BaseModel):
    """llama_deploy's, of all its versions. Unknown fields are ignored, as it did."""

    model_config = ConfigDict(extra="ignore")

    input: str
    task_id: Annotated[str, AfterValidator(lambda value: check_name(value, TASK_ID_MAX))] | None = None
    session_id: str | None = None
    service_id: str | None = None
    agent_id: str | None = None
    timeout_s: Annotated[float, Field(gt=0, le=TIMEOUT_MAX_S)] | None = None

    def new_task(self) -> NewTask:
        """What it asks for. Raises InvalidBody where it names no service."""
        service, id_field = service_of(self)
        return NewTask(self.input, service, id_field, self.task_id, self.session_id or None, self.timeout_s)


class TaskMessage(TaskDefinition):
    """What a worker is handed: a task, begun or begun again."""

    task_id: str
    session_id: str
    retries: Annotated[int, Field(ge=0)] = 0
    """How many attempts have failed and were followed by another."""


class EventDefinition(BaseModel):
    """llama_deploy's event for a running workflow."""

    event_obj_str: str
    service_id: str | None = None
    agent_id: str | None = None


class _TaskStream(BaseModel):
    task_id: str
    session_id: str
    data: dict[str, Any]
    index: Annotated[int, Field(ge=0)]


class _TaskResult(BaseModel):
    task_id: str
    history: list[Any]
    result: str
    data: dict[str, Any] = Field(default_factory=dict)


class _QueueMessage(BaseModel):
    id_: str | None = None
    action: str | None = None
    data: dict[str, Any] = Field(default_factory=dict)


def service_of(body: TaskDefinition | EventDefinition) -> tuple[str, IdField]:
    """The service that a body names, and the word it has for it. Raises InvalidBody."""
    if body.service_id:
        return body.service_id, "service_id"
    if body.agent_id:
        return body.agent_id, "agent_id"
    given = body.model_dump(exclude_unset=True)
    raise InvalidBody([{"type": "missing", "loc": ["body", "service_id"], "msg": "Field required", "input": given}])


def read_message(body: Any) -> Heard:
    """A QueueMessage to the control plane. Raises InvalidBody."""
    check_storable(body)
    try:
        message = _QueueMessage.model_validate(body)
        match message.action:
            case "task_stream":
                said = _TaskStream.model_validate(message.data)
                return TaskEvent(said.session_id, said.task_id, Event.make(said.index, said.data))
            case "completed_task":
                return CompletedTask(End(_TaskResult.model_validate(message.data).model_dump()))
            case "new_task":
                # Without an id of its own the message has one, which is the same whenever it comes.
                task_id = message.data.get("task_id") or message.id_
                return NewTaskMessage(TaskDefinition.model_validate({**message.data, "task_id": task_id}).new_task())
    except ValidationError as error:
        raise InvalidBody(in_body(error)) from None
    problem = "must be new_task, task_stream or completed_task"
    raise InvalidBody([{"type": "enum", "loc": ["body", "action"], "msg": problem, "input": message.action}])


def check_storable(body: Any) -> None:
    """Raises InvalidBody."""
    if not is_storable(body):
        raise InvalidBody([{"type": "recursion", "loc": ["body"], "msg": "nested too deeply", "input": None}])


def in_body(error: ValidationError) -> list[dict[str, object]]:
    """What is wrong with a body, as FastAPI tells it."""
    return [{**one, "loc": ["body", *one["loc"]]} for one in error.errors(include_url=False, include_context=False)]
