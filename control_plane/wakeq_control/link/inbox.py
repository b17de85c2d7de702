"""What services say, taken from the queue over a leased stream, and acked when it is stored.

Messages are taken in as fast as they come; those that were stored together are acked together. What nobody could ever
understand becomes a dead letter at once; what is about a session or a task that is gone is acked, as llama_deploy drops
it.
"""

from functools import partial
from typing import Any

import anyio
import anyio.abc
import structlog

import wakeq
from wakeq_control.engine.engine import Engine
from wakeq_control.errors import ControlError, InvalidBody, SessionNotFound, TaskNotFound
from wakeq_control.link.broker import Broker
from wakeq_control.link.trying import until_done
from wakeq_control.messages import CONTROL_PLANE, NewTaskMessage, read_message

_log: Any = structlog.get_logger("wakeq.control")
_PREFETCH = 256
_LEASE_S = 30.0


class Inbox:
    """The one consumer of the control plane's topic."""

    def __init__(self, engine: Engine, broker: Broker) -> None:
        self._engine = engine
        self._broker = broker
        self._topic = broker.topic(CONTROL_PLANE)
        self._heard: list[wakeq.Delivery] = []
        self._something = anyio.Event()

    async def run(self) -> None:
        """Take in what comes, for ever."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._ack)
            await until_done("consuming from the queue", partial(self._consume, tasks))

    async def _consume(self, tasks: anyio.abc.TaskGroup) -> None:
        await self._broker.make_topic(CONTROL_PLANE)
        _log.info("consuming", topic=self._topic)
        # Without a grace: what a control plane that died had in hand must come before what was said after it, since a
        # task's result ends the task.
        consumer = self._broker.client.consume(self._topic, prefetch=_PREFETCH, lease_s=_LEASE_S, grace_s=0.0)
        async with consumer as deliveries:
            async for delivery in deliveries:
                await self._take(delivery, tasks)

    async def _take(self, delivery: wakeq.Delivery, tasks: anyio.abc.TaskGroup) -> None:
        try:
            heard = read_message(delivery.body)
        except InvalidBody as error:
            await _refuse(delivery, str(error.errors))
            return
        try:
            if isinstance(heard, NewTaskMessage):
                tasks.start_soon(self._begin, delivery, heard)
                return
            self._engine.note(heard)
        except (SessionNotFound, TaskNotFound) as error:
            _log.info("dropped a message", reason=error.detail)
        self._done(delivery)

    async def _begin(self, delivery: wakeq.Delivery, heard: NewTaskMessage) -> None:
        """A task may have to wait for its service; what comes behind it doesn't."""
        try:
            await self._engine.hear(heard)
        except ControlError as error:
            await _refuse(delivery, f"{error.code}: {error.detail}")
        else:
            self._done(delivery)

    def _done(self, delivery: wakeq.Delivery) -> None:
        self._heard.append(delivery)
        self._something.set()

    async def _ack(self) -> None:
        while True:
            await self._something.wait()
            self._something = anyio.Event()
            heard, self._heard = self._heard, []
            await self._engine.settled()
            for delivery in heard:
                try:
                    async with delivery:
                        """Its end is what acks it, soon and with others."""
                except wakeq.WakeqError as error:
                    # It comes again when its lease has ended, and changes nothing then.
                    _log.warning("an ack was lost", reason=error.detail)


async def _refuse(delivery: wakeq.Delivery, reason: str) -> None:
    _log.warning("refused a message", reason=reason)
    try:
        await delivery.dead(reason=reason)
    except wakeq.WakeqError as error:
        _log.warning("a dead letter was not made", reason=error.detail)
