"""What a running task can do besides returning."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import anyio
from pydantic_core import to_jsonable_python

from wakeq_control.codec import load
from wakeq_control.tasks import asks_for_input


class TaskContext:
    """One attempt at one task, for the function that works on it: it is passed to the parameter with this type."""

    def __init__(
        self, task_id: str, session_id: str, attempt: int, publish: Callable[[int, dict[str, Any]], None]
    ) -> None:
        """Made by the worker. ``publish`` takes an event's index and its data."""
        self.task_id = task_id
        self.session_id = session_id
        self.attempt = attempt
        """1 for the first; what an attempt before this one has shown to clients isn't shown again."""
        self._publish = publish
        self._emitted = 0
        self._questions = 0
        self._inputs: deque[tuple[str, int]] = deque()
        self._something: anyio.Event | None = None
        self._take: Callable[[str], None] | None = None

    def emit(self, event: Any) -> None:
        """Show clients an event: a mapping, or a pydantic model. It is on its way when this returns.

        A mapping with a ``prefix`` is a question: the task waits for input until it is answered. Raises TypeError.
        """
        data = to_jsonable_python(event, fallback=str)
        if not isinstance(data, Mapping):
            raise TypeError(f"an event must be a mapping or a pydantic model, not {type(event).__name__}")
        self._publish(self._emitted, dict(data))
        self._emitted += 1
        if asks_for_input(data):
            self._questions += 1
            self._tell()

    async def receive(self) -> Any:
        """The next input that a client has sent to the task, as soon as there is one."""
        return plain(await self.receive_text())

    async def receive_text(self) -> str:
        """The same as the client sent it.

        An attempt that begins anew is given the inputs of the one before, each when it has asked as many questions.
        """
        while not self._is_due():
            if self._something is None:
                self._something = anyio.Event()
            await self._something.wait()
        return self._inputs.popleft()[0]

    def hand_over(self, take: Callable[[str], None] | None) -> None:
        """Be given each input the moment that `receive_text` would return it; None: no more. For the worker."""
        self._take = take
        self._tell()

    def give(self, event: str, after: int) -> None:
        """A client has sent an input, when the task had asked so many questions; for the worker."""
        self._inputs.append((event, after))
        self._tell()

    def _is_due(self) -> bool:
        return bool(self._inputs) and self._inputs[0][1] <= self._questions

    def _tell(self) -> None:
        while self._take is not None and self._is_due():
            self._take(self._inputs.popleft()[0])
        something, self._something = self._something, None
        if something is not None:
            something.set()


def plain(text: str) -> Any:
    """What a client sent, without what llama-index says around an event of its own."""
    try:
        value = load(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, dict) and value.get("__is_pydantic"):
        value = value["value"]
        if isinstance(value, dict) and isinstance(value.get("_data"), dict):
            value = {**{name: one for name, one in value.items() if name != "_data"}, **value["_data"]}
    return value
