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
from wakeq_control.link.broker import Broker, open_broker
from wakeq_control.link.trying import until_done
from wakeq_control.messages import TaskMessage
from wakeq_control.model import NO_RETRY, Retry
from wakeq_control.service.attempt import Attempt, Start, UnknownTask
from wakeq_control.service.control import open_control_plane
from wakeq_control.service.link import Link
from wakeq_control.service.registering import Registration, refusal_of
from wakeq_control.service.runnable import Runnable

_log: Any = structlog.get_logger("wakeq.worker")
_RETRY_S = 60.0
"""How long the queue is told again of a lease that has ended; then its task comes again, and is known to have ended."""


class Options(NamedTuple):
    """What an operator may set; `wakeq_control.service.cli` describes each."""

    service: str
    description: str
    control_plane: str
    queue: str | None
    queue_token: str | None
    control_token: str | None
    max_concurrent_tasks: int
    lease_s: float
    grace_s: float
    retry: Retry = NO_RETRY


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
        async with open_control_plane(options.control_plane, options.control_token) as control:
            queue = options.queue or await _insist("asking where the queue is", control.queue_url)
            registration = Registration(control, options.service, self._about())
            link = Link(control, self.name, registration)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(link.run)
                namespace = await registration.namespace()
                token = options.queue_token
                async with open_broker(queue, token, namespace, consumer=self.name, retry_s=_RETRY_S) as broker:
                    await until_done("consuming from the queue", partial(self._consume, broker, link))
                tasks.cancel_scope.cancel()

    def _about(self) -> dict[str, Any]:
        options = self._options
        return {
            "description": options.description,
            "schema": self._runnable.schema,
            "retry": options.retry._asdict(),
            "max_concurrent_tasks": options.max_concurrent_tasks,
        }

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
                    start = _read(delivery.body)
                except ValueError as error:
                    await _refuse(delivery, str(error))
                    return
                try:
                    await Attempt(start, link).run(self._runnable, running)
                except UnknownTask as error:
                    await _refuse(delivery, f"task {start.task_id}: {error}")
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
            raise refusal_of(what, error) or error from error

    return await until_done(what, once)


async def _refuse(delivery: wakeq.Delivery, reason: str) -> None:
    """Make it a dead letter, for people to look at."""
    _log.warning("refused a message", reason=reason)
    await delivery.dead(reason=reason)


def _read(body: Any) -> Start:
    """Raises ValueError where the message is none of a task."""
    if not isinstance(body, dict) or body.get("action") != "new_task":
        raise ValueError("it is no task; what is sent to a running task comes from the control plane")
    try:
        task = TaskMessage.model_validate(body.get("data"))
    except ValidationError as error:
        raise ValueError(f"it is no task: {error}") from None
    return Start(task.task_id, task.session_id, task.input, str(body.get("publisher_id")), task.retries)
