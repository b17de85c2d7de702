"""A worker: takes its service's tasks from the queue, as many at a time as it may, until it is told to stop."""

import os
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

import anyio
import anyio.abc
import structlog
from pydantic import ValidationError

import wakeq
from wakeq_control.errors import InvalidBody, StartupError
from wakeq_control.link.broker import Broker, open_broker
from wakeq_control.link.trying import until_done
from wakeq_control.messages import TaskDefinition
from wakeq_control.service.attempt import Attempt
from wakeq_control.service.control import open_control_plane
from wakeq_control.service.link import Link
from wakeq_control.service.runnable import Runnable

_log: Any = structlog.get_logger("wakeq.worker")
_SERVER_ERROR = 500
_RETRY_S = 60.0
"""How long the queue is told again of a lease that has ended; then its task comes again, and is known to have ended."""


class Options(NamedTuple):
    """What an operator may set; `wakeq_control.service.cli` describes each."""

    service: str
    description: str
    control_plane: str
    queue: str | None
    token: str | None
    max_concurrent_tasks: int
    lease_s: float
    grace_s: float


class Worker:
    """One consumer of a service's tasks."""

    def __init__(self, runnable: Runnable, options: Options, working: Callable[[], None]) -> None:
        """``working`` is called each time that it begins to take tasks."""
        self._working = working
        self._runnable = runnable
        self._options = options
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._consumer: wakeq.Consumer | None = None
        self._all = anyio.CancelScope()

    async def run(self) -> None:
        """Until a signal says so. Raises StartupError, in a group."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch_signals)
            with self._all:
                await self._work()
            tasks.cancel_scope.cancel()
        _log.info("stopped")

    async def _watch_signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            await anext(signals)
            _log.info("stopping", grace_s=self._options.grace_s)
            if self._consumer is None:
                self._all.cancel()
            else:
                # What runs may end in time; what doesn't is given back.
                self._consumer.stop()
                self._all.deadline = anyio.current_time() + self._options.grace_s
            await anext(signals)
            self._all.cancel()

    async def _work(self) -> None:
        options = self._options
        async with open_control_plane(options.control_plane) as control:
            queue = options.queue or await _insist("asking where the queue is", control.queue_url)
            register = partial(control.register, options.service, options.description, self._runnable.schema)
            namespace = await _insist("registering", register)
            async with open_broker(queue, options.token, namespace, consumer=self.name, retry_s=_RETRY_S) as broker:
                await self._serve(broker, Link(control, self.name))

    async def _serve(self, broker: Broker, link: Link) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.run)
            await until_done("consuming from the queue", partial(self._consume, broker, link))
            tasks.cancel_scope.cancel()

    async def _consume(self, broker: Broker, link: Link) -> None:
        options = self._options
        topic = broker.topic(options.service)
        await broker.make_topic(options.service, is_worker=True)
        error: wakeq.WakeqError | None = None
        consumer = broker.client.consume(topic, prefetch=options.max_concurrent_tasks, lease_s=options.lease_s)
        async with consumer as deliveries:
            self._consumer = deliveries
            _log.info(
                "working", service=options.service, topic=topic, max_concurrent_tasks=options.max_concurrent_tasks
            )
            self._working()
            async with anyio.create_task_group() as running:
                try:
                    async for delivery in deliveries:
                        running.start_soon(self._handle, delivery, link, running)
                except wakeq.WakeqError as raised:
                    # Those that run may end.
                    error = raised
        if error is not None:
            raise error

    async def _handle(self, delivery: wakeq.Delivery, link: Link, running: anyio.abc.TaskGroup) -> None:
        try:
            async with delivery:
                try:
                    task_id, session_id, text = _read(delivery.body)
                except ValueError as error:
                    _log.warning("refused a message", reason=str(error))
                    await delivery.dead(reason=str(error))
                    return
                await Attempt(task_id, session_id, text, link).run(self._runnable, running)
        except wakeq.WakeqError as error:
            _log.warning("gave a task back", reason=error.detail)


async def serve(runnable: Runnable, options: Options, working: Callable[[], None]) -> None:
    """Work until a signal says so. Raises StartupError, in a group, where the control plane refuses us."""
    await Worker(runnable, options, working).run()


async def _insist(what: str, work: Callable[[], Awaitable[str]]) -> str:
    """What the control plane says, as soon as it is there. Raises StartupError where it says no."""

    async def once() -> str:
        try:
            return await work()
        except wakeq.WakeqError as error:
            if error.status is not None and error.status < _SERVER_ERROR:
                hint = "is --control-plane the address of a wakeq control plane?"
                raise StartupError(f"{what}: {error.detail}", hint) from error
            raise

    return await until_done(what, once)


def _read(body: Any) -> tuple[str, str, str]:
    """A task's id, its session's, and its input. Raises ValueError where the message is none of a task."""
    if not isinstance(body, dict) or body.get("action") != "new_task":
        raise ValueError("it is no task; what is sent to a running task comes from the control plane")
    try:
        task = TaskDefinition.model_validate(body.get("data"))
    except (ValidationError, InvalidBody) as error:
        raise ValueError(f"it is no task: {error}") from None
    if task.task_id is None or task.session_id is None:
        raise ValueError("it is a task without an id or a session, which the control plane would have given it")
    return task.task_id, task.session_id, task.input
