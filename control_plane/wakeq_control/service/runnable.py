"""What a worker runs: it has a schema of its arguments, and an outcome, and never raises."""

from typing import Any, NamedTuple, Protocol

from pydantic import PydanticInvalidForJsonSchema, TypeAdapter

from wakeq_control.service.context import TaskContext


class Outcome(NamedTuple):
    """How a task has ended."""

    result: str
    """What clients get as its result; of a failed task the text of its error, as llama_deploy has it."""
    error: str | None = None
    """What kind of error, and its text; None: the task has succeeded."""
    context: dict[str, Any] | None = None
    """A workflow's context, for the session's next task."""
    last: Any = None
    """The stream's last event, which is shown together with the end; None: there is none."""
    retryable: bool = False
    """Whether another attempt may end better."""


class Runnable(Protocol):
    """A function or a workflow."""

    schema: dict[str, Any] | None
    """JSON Schema of its arguments; None: anything passes."""

    async def run(self, arguments: dict[str, Any], task: TaskContext, context: dict[str, Any] | None) -> Outcome:
        """Work on a task. Raises nothing but the cancellation."""


class NotRetryable(Exception):
    """Raised by what a worker runs: the task has failed, and another attempt would end no better."""


def failed(error: BaseException) -> Outcome:
    """The outcome of an error."""
    text = str(error)
    name = type(error).__name__
    return Outcome(text or name, f"{name}: {text}" if text else name, retryable=not isinstance(error, NotRetryable))


def refused(code: str, detail: str) -> Outcome:
    """The outcome of a task that can't be run, with a stable code."""
    return Outcome(f"{code}: {detail}", f"{code}: {detail}")


def object_schema(types: dict[str, TypeAdapter[Any]], required: list[str], *, is_open: bool) -> dict[str, Any]:
    """The JSON Schema of arguments by their types; what JSON has no schema for is any value."""
    known = {name: adapter for name, adapter in types.items() if _is_describable(adapter)}
    found, shared = TypeAdapter.json_schemas([(name, "validation", adapter) for name, adapter in known.items()])
    properties = {name: found[(name, "validation")] if name in known else {} for name in types}
    definitions = {"$defs": shared["$defs"]} if "$defs" in shared else {}
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": is_open,
        **definitions,
    }


def _is_describable(adapter: TypeAdapter[Any]) -> bool:
    try:
        adapter.json_schema()
    except PydanticInvalidForJsonSchema:
        return False
    return True
