"""Messages to services, published in their order, each until the queue has it.

They are stored before they come here, and forgotten when they are published; what was published just before a crash is
published again, and is the same message by its key. A service whose topic is full holds up nobody else's. What waits
for a service is published together; but of a task, one message at a time, since its order matters.
"""

from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any

import anyio
import anyio.abc
import structlog

from wakeq_control.engine.engine import Engine
from wakeq_control.link.broker import Broker
from wakeq_control.link.trying import PERMANENT, until_done
from wakeq_control.model import Outgoing

_log: Any = structlog.get_logger("wakeq.control")
_BATCH_MAX = 256


class Outbox:
    """What the queue doesn't have yet."""

    def __init__(self, engine: Engine, broker: Broker) -> None:
        self._engine = engine
        self._broker = broker
        self._waiting: dict[str, deque[Outgoing]] = {}
        self._tasks: anyio.abc.TaskGroup | None = None

    def put(self, message: Outgoing) -> None:
        """Publish it behind the service's others."""
        behind = self._waiting.get(message.service)
        if behind is not None:
            behind.append(message)
            return
        self._waiting[message.service] = deque([message])
        if self._tasks is not None:
            self._tasks.start_soon(self._send, message.service)

    async def run(self) -> None:
        """Publish what comes, for ever."""
        async with anyio.create_task_group() as tasks:
            for service in self._waiting:
                tasks.start_soon(self._send, service)
            self._tasks = tasks
            await anyio.sleep_forever()

    async def _send(self, service: str) -> None:
        waiting = self._waiting[service]
        while waiting:
            batch = _one_of_each_task(waiting)
            if len(batch) == 1:
                await self._publish(batch[0])
            else:
                async with anyio.create_task_group() as tasks:
                    for message in batch:
                        tasks.start_soon(self._publish, message)
            for _ in batch:
                waiting.popleft()
        del self._waiting[service]

    async def _publish(self, message: Outgoing) -> None:
        if not self._engine.is_unsent(message):
            return
        publish = partial(self._broker.publish, message.service, message.body, message.key)
        try:
            await until_done(f"publishing to {message.service}", publish)
        except PERMANENT as error:
            self._refused(message, error.detail)
        except (TypeError, ValueError) as error:
            # A lone surrogate, which the queue's clients have no bytes for.
            self._refused(message, f"it can't be sent: {error}")
        else:
            self._engine.sent(message)

    def _refused(self, message: Outgoing, reason: str) -> None:
        _log.error("refused by the queue", task=message.task_id, service=message.service, reason=reason)
        self._engine.refused(message, reason)


def _one_of_each_task(waiting: Iterable[Outgoing]) -> list[Outgoing]:
    """The first that wait, up to one whose task has another before it."""
    found: dict[str, Outgoing] = {}
    for message in waiting:
        if message.task_id in found or len(found) == _BATCH_MAX:
            break
        found[message.task_id] = message
    return list(found.values())
