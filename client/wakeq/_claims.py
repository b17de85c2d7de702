"""The requests that messages come by: claims and streams."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import orjson

from wakeq._connection import Connection, messages_path, query
from wakeq._errors import raise_for_answer, read_answer
from wakeq._json import without_none
from wakeq._wire import Arriving

# An answer that was parked may come this much after its time.
_SLACK_S = 10.0


class Claims:
    """Asks for messages as one consumer."""

    def __init__(self, connection: Connection, consumer: str) -> None:
        self._connection = connection
        self._consumer = (b"wakeq-consumer", consumer.encode())

    async def claim(self, topic: str, *, wait_s: float, **ask: object) -> list[Mapping[str, Any]]:
        """Deliveries of the protocol. Raises WakeqError."""
        answer = await self._connection.ask(
            "POST",
            f"{messages_path(topic)}/claim",
            content=orjson.dumps(without_none({**ask, "wait_s": wait_s})),
            headers=[(b"content-type", b"application/json"), self._consumer],
            kind="streams",
            wait_s=wait_s + _SLACK_S,
        )
        raise_for_answer(answer)
        return read_answer(answer, lambda said: list(said["messages"]))

    def stream(self, topic: str, *, silence_s: float, **parameters: object) -> AbstractAsyncContextManager[Arriving]:
        """The answer of a stream; a silence of ``silence_s`` ends it. Raises WakeqError."""
        path = f"{messages_path(topic)}{query(without_none(parameters))}"
        headers = [(b"accept", b"text/event-stream"), (b"cache-control", b"no-store"), self._consumer]
        return self._connection.stream(path, headers, silence_s)
