"""An async function as a service: its signature says what it takes."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, get_type_hints

from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError

from wakeq_control.service.context import TaskContext
from wakeq_control.service.runnable import Outcome, failed, object_schema, refused

_LOOSE = ConfigDict(arbitrary_types_allowed=True)


class Function:
    """A plain `async def`."""

    def __init__(self, function: Callable[..., Awaitable[Any]]) -> None:
        """Raises ValueError where the signature can't be served."""
        self._function = function
        self._context_name: str | None = None
        self._types: dict[str, TypeAdapter[Any]] = {}
        hints = _hints(function)
        required: list[str] = []
        is_open = False
        for name, parameter in inspect.signature(function).parameters.items():
            kind = hints.get(name, Any)
            if parameter.kind is parameter.VAR_KEYWORD:
                is_open = True
            elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                raise ValueError(f"its parameter {name!r} takes no keyword, and tasks have nothing else")
            elif kind is TaskContext:
                self._context_name = name
            else:
                self._types[name] = _adapter(kind)
                required += [name] if parameter.default is parameter.empty else []
        self.schema: dict[str, Any] | None = object_schema(self._types, required, is_open=is_open)

    async def run(self, arguments: dict[str, Any], task: TaskContext, context: dict[str, Any] | None) -> Outcome:
        """Call it; what it returns is the result, as text."""
        values: dict[str, Any] = {}
        for name, value in arguments.items():
            try:
                values[name] = self._types[name].validate_python(value) if name in self._types else value
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                where = ".".join(map(str, (name, *first["loc"])))
                return refused("INVALID_ARGUMENTS", f"{where}: {first['msg']}")
        if self._context_name is not None:
            values[self._context_name] = task
        try:
            return Outcome(str(await self._function(**values)))
        except Exception as error:
            return failed(error)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise ValueError(f"its annotations can't be read: {error}") from None


def _adapter(kind: Any) -> TypeAdapter[Any]:
    try:
        # A model has a configuration of its own.
        return TypeAdapter(kind)
    except PydanticSchemaGenerationError:
        return TypeAdapter(kind, config=_LOOSE)
