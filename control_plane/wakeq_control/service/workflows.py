"""A workflow of llama-index as a service: of `llama-index-workflows` 2 and 1, known by what it can do.

Nothing of it is imported here: what is needed is where the workflow itself comes from.
"""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

import anyio
import structlog
from pydantic import PydanticInvalidForJsonSchema

from wakeq_control.codec import load
from wakeq_control.service.context import TaskContext
from wakeq_control.service.runnable import Outcome, failed

_log: Any = structlog.get_logger("wakeq.worker")
_LIBRARY = "workflows"
_FORMERLY = "llama_index.core.workflow."
"""Where its classes were before it was a package of its own, and still are for clients of that time."""
_CANCEL_S = 5.0
"""How long a workflow that is cancelled may take to end."""


def is_workflow(found: object) -> bool:
    """Whether it is an instance of llama-index's Workflow."""
    return not isinstance(found, type) and any(cls.__module__ == f"{_LIBRARY}.workflow" for cls in type(found).__mro__)


class Workflow:
    """A workflow's instance, which runs any number of tasks at a time."""

    def __init__(self, workflow: Any) -> None:
        self._workflow = workflow
        self._events: Any = import_module(f"{_LIBRARY}.events")
        self._context: Any = import_module(f"{_LIBRARY}.context").Context
        # Pickles, which llama_deploy keeps contexts as, run whatever is in them when they are read.
        self._serializer = import_module(f"{_LIBRARY}.context.serializers").JsonSerializer()
        self.schema = _schema(workflow.start_event_class)

    async def run(self, arguments: dict[str, Any], task: TaskContext, context: dict[str, Any] | None) -> Outcome:
        """Run it from its start event to its stop event."""
        try:
            handler = self._workflow.run(ctx=self._restored(context), **arguments)
        except Exception as error:
            return failed(error)
        task.hand_over(partial(self._hand_over, handler, task))
        try:
            return await self._follow(handler, task)
        except BaseException:
            with anyio.move_on_after(_CANCEL_S, shield=True), suppress(Exception):
                await handler.cancel_run()
                await handler
            raise
        finally:
            task.hand_over(None)

    def _restored(self, saved: dict[str, Any] | None) -> Any:
        if saved is None:
            return None
        return self._context.from_dict(self._workflow, saved, serializer=self._serializer)

    async def _follow(self, handler: Any, task: TaskContext) -> Outcome:
        try:
            last = None
            async for event in handler.stream_events():
                if isinstance(event, self._events.StopEvent):
                    last = event
                else:
                    task.emit(event)
            result = await handler
        except Exception as error:
            # The session's context stays as it was: what is half done would be taken up by the next task.
            return failed(error)
        # Of a workflow that failed it says nothing that clients should see.
        return Outcome(str(result), None, self._saved(handler), last)

    def _saved(self, handler: Any) -> dict[str, Any] | None:
        try:
            saved: dict[str, Any] = handler.ctx.to_dict(serializer=self._serializer)
        except Exception as error:
            _log.warning("a context can't be kept: it is no JSON", reason=str(error))
            return None
        return saved

    def _hand_over(self, handler: Any, task: TaskContext, text: str) -> None:
        try:
            handler.ctx.send_event(self._event(text))
        except Exception as error:
            _log.warning("an input was not understood", task=task.task_id, reason=str(error))

    def _event(self, text: str) -> Any:
        """The event that a client sent, of a class that is there: names of others are not imported."""
        said = load(text)
        name = said["qualified_name"] if isinstance(said, dict) and said.get("__is_pydantic") else None
        if isinstance(name, str) and name.startswith(_FORMERLY):
            name = f"{_LIBRARY}.{name.removeprefix(_FORMERLY)}"
        for cls in _with_subclasses(self._events.Event):
            if name == f"{cls.__module__}.{cls.__name__}":
                return cls.model_validate(said["value"])
        raise ValueError(f"it is no event of a class that this worker knows, but {name or 'none at all'}")


def _schema(start_event: Any) -> dict[str, Any] | None:
    """What a typed start event takes; one without fields takes anything."""
    fields = start_event.model_fields
    if not fields:
        return None
    try:
        schema: dict[str, Any] = start_event.model_json_schema()
    except PydanticInvalidForJsonSchema:
        required = [name for name, field in fields.items() if field.is_required()]
        schema = {"type": "object", "properties": {name: {} for name in fields}, "required": required}
    return schema | {"additionalProperties": False}


def _with_subclasses(cls: Any) -> Iterator[Any]:
    yield cls
    for one in cls.__subclasses__():
        yield from _with_subclasses(one)
