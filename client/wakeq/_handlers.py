"""A function as a handler: what it wants of a delivery, and how it is called."""

import inspect
import typing
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from wakeq._bodies import encoded
from wakeq._delivery import Delivery


class InvalidBody(Exception):
    """A body is not what the handler asks for."""


class Handler:
    """A function and when it is called."""

    def __init__(
        self,
        function: Callable[..., Any],
        topic: str,
        group: str | None,
        *,
        lease_s: float,
        time_limit_s: float | None,
        concurrency: int,
    ) -> None:
        """Raises TypeError where the function has no parameters that a handler has."""
        self.topic = topic
        self.group = group
        self.lease_s = lease_s
        self.time_limit_s = time_limit_s
        self.concurrency = concurrency
        self._function = function
        self._waits = inspect.iscoroutinefunction(function)
        self._threads: anyio.CapacityLimiter | None = None
        self._body, self._delivery, self._read = _parameters(function)

    async def call(self, delivery: Delivery) -> None:
        """Raises InvalidBody, and what the function raises."""
        arguments: dict[str, Any] = {}
        if self._body is not None:
            arguments[self._body] = self._read(delivery.body)
        if self._delivery is not None:
            arguments[self._delivery] = delivery
        if self._waits:
            await self._function(**arguments)
            return
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(self.concurrency)
        await anyio.to_thread.run_sync(
            partial(self._function, **arguments), limiter=self._threads, abandon_on_cancel=True
        )


def _parameters(function: Callable[..., Any]) -> tuple[str | None, str | None, Callable[[Any], Any]]:
    """The names of the parameters for the body and the delivery, and what makes the first of a body."""
    hints = typing.get_type_hints(function)
    names = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    of_delivery = [name for name in names if hints.get(name) is Delivery]
    of_body = [name for name in names if name not in of_delivery]
    if len(of_body) > 1 or len(of_delivery) > 1 or not names:
        raise TypeError(
            f"{getattr(function, '__qualname__', function)}: a handler has a parameter for the body, one annotated "
            f"with wakeq.Delivery, or both; this one has {', '.join(names) or 'none'}"
        )
    body = of_body[0] if of_body else None
    wanted = hints.get(body, Any) if body is not None else Any
    return body, of_delivery[0] if of_delivery else None, _reader(wanted)


def _reader(wanted: Any) -> Callable[[Any], Any]:
    if wanted in (Any, object):
        return lambda body: body
    # Takes longer to import than everything else here, and a client that only publishes needs none of it.
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415

    adapter = TypeAdapter(wanted)

    def read(body: Any) -> Any:
        try:
            # As JSON, which may become what strict models would not make of Python's values.
            return adapter.validate_python(body) if isinstance(body, bytes) else adapter.validate_json(encoded(body))
        except ValidationError as error:
            raise InvalidBody(_sentence(error.errors(include_url=False, include_context=False))) from None

    return read


def _sentence(errors: Any) -> str:
    told = [f"{'.'.join(map(str, error['loc'])) or 'body'}: {error['msg']}" for error in errors]
    return f"the body is not what the handler asks for: {'; '.join(told)}"
