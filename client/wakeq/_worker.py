"""A program that works on messages: handlers by topic, a limit to how many run, an orderly end.

A handler's delivery is acked when it returns, nacked with the error's text when it raises, and made a dead letter when
its body isn't what the handler asks for. Nothing is taken that no handler is free for.
"""

import logging
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import anyio

from wakeq._async_client import AsyncClient
from wakeq._consumer import Consumer
from wakeq._delivery import Delivery
from wakeq._handlers import Handler, InvalidBody

Middleware = Callable[[Delivery, Callable[[], Awaitable[None]]], Awaitable[None]]
"""Called around a handler: with the delivery, and what runs the rest."""

_Function = TypeVar("_Function", bound=Callable[..., Any])
_log = logging.getLogger("wakeq")


class HandlerTimeout(Exception):
    """A handler took longer than it may."""


class Worker:
    """Runs handlers for the messages of any number of topics.

    worker = wakeq.Worker(concurrency=10)

    @worker.handler("jobs")
    async def work(job: Job) -> None: ...

    worker.run()
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        client: AsyncClient | None = None,
        concurrency: int = 10,
        grace_s: float = 30.0,
        middleware: Sequence[Middleware] = (),
    ) -> None:
        """``concurrency`` is how many handlers run at a time, of each topic and group.

        ``grace_s`` is how many seconds running handlers have when the worker ends; then they are cancelled, and their
        messages given back. ``middleware`` is called around each handler, the first outermost. ``client`` None: one of
        its own for ``base_url``. Raises ValueError where both are given, or ``concurrency`` is under 1.
        """
        if client is not None and base_url is not None:
            raise ValueError("base_url: a client has its own; give one of the two")
        if concurrency < 1:
            raise ValueError(f"concurrency: must be 1 or more, not {concurrency}")
        self._base_url = base_url
        self._client = client
        self._concurrency = concurrency
        self._grace_s = grace_s
        self._middleware = tuple(middleware)
        self._handlers: dict[tuple[str, str | None], Handler] = {}
        self._consumers: list[Consumer] = []
        self._stopping = False
        self._stopped: anyio.Event | None = None

    def handler(
        self,
        topic: str,
        *,
        group: str | None = None,
        lease_s: float = 30.0,
        time_limit_s: float | None = None,
        concurrency: int | None = None,
    ) -> Callable[[_Function], _Function]:
        """Register a function, asynchronous or not, for a topic's messages; one that is not runs in a thread.

        Its first parameter gets the body, as what its annotation says: what pydantic can make of JSON. A body that
        can't be that is made a dead letter. A parameter annotated with `Delivery` gets the delivery; one that the
        handler settles itself stays so. After ``time_limit_s`` seconds the handler is cancelled and the message nacked
        (a thread can't be cancelled, and goes on). ``concurrency`` None: the worker's.

        Raises ValueError where the topic and group have a handler, TypeError where the function has no such parameters.
        """

        def register(function: _Function) -> _Function:
            if (topic, group) in self._handlers:
                raise ValueError(f"topic {topic!r}, group {group!r} has a handler already")
            self._handlers[topic, group] = Handler(
                function,
                topic,
                group,
                lease_s=lease_s,
                time_limit_s=time_limit_s,
                concurrency=concurrency or self._concurrency,
            )
            return function

        return register

    def run(self, *, backend: str = "asyncio") -> None:
        """Work until SIGTERM or SIGINT, and end in order; a second signal ends at once. Raises what `serve` raises."""
        anyio.run(self._until_signal, backend=backend)

    async def _until_signal(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            try:
                async with anyio.create_task_group() as tasks:

                    async def watch() -> None:
                        async for _ in signals:
                            if self._stopping:
                                tasks.cancel_scope.cancel()
                            self.stop()

                    tasks.start_soon(watch)
                    await self.serve()
                    tasks.cancel_scope.cancel()
            except BaseExceptionGroup as group:
                raise _only(group) from None

    async def serve(self) -> None:
        """Work until `stop`, then end in order. Raises what ends a consumer: TopicNotFound, BadRequest, …"""
        if not self._handlers:
            raise ValueError("the worker has no handlers: decorate a function with @worker.handler(TOPIC)")
        self._stopped = anyio.Event()
        if self._stopping:
            return
        async with AsyncExitStack() as stack:
            client = self._client
            if client is None:
                client = await stack.enter_async_context(AsyncClient(self._base_url))
            try:
                async with anyio.create_task_group() as tasks:
                    for handler in self._handlers.values():
                        tasks.start_soon(self._work, client, handler)
                    await self._stopped.wait()
                    # Whoever is still at it then is cancelled, and gives back what he has.
                    tasks.cancel_scope.deadline = anyio.current_time() + self._grace_s
            except BaseExceptionGroup as group:
                raise _only(group) from None

    def stop(self) -> None:
        """Take no more messages, let running handlers end, and give back the rest at once."""
        self._stopping = True
        if self._stopped is not None:
            self._stopped.set()
        for consumer in self._consumers:
            consumer.stop()

    async def _work(self, client: AsyncClient, handler: Handler) -> None:
        free = anyio.Semaphore(handler.concurrency)
        # As many as can be worked on: one that is slow keeps none from others.
        consumer = client.consume(
            handler.topic, group=handler.group, prefetch=handler.concurrency, lease_s=handler.lease_s
        )
        async with consumer, anyio.create_task_group() as tasks:
            self._consumers.append(consumer)
            if self._stopping:
                return
            while True:
                # First, so that a delivery never waits for a handler where it could be given back no more.
                await free.acquire()
                delivery = await anext(consumer, None)
                if delivery is None:
                    return
                tasks.start_soon(self._handle, handler, delivery, free)

    async def _handle(self, handler: Handler, delivery: Delivery, free: anyio.Semaphore) -> None:
        try:
            async with delivery:
                await self._through(handler, delivery, self._middleware)
        except Exception:
            _log.exception("topic %s: the handler of message %d failed", delivery.topic, delivery.seq)
        finally:
            free.release()

    async def _through(self, handler: Handler, delivery: Delivery, middleware: tuple[Middleware, ...]) -> None:
        if middleware:
            first, *rest = middleware
            await first(delivery, lambda: self._through(handler, delivery, tuple(rest)))
            return
        try:
            with anyio.fail_after(handler.time_limit_s) as limit:
                await handler.call(delivery)
        except InvalidBody as error:
            _log.warning("topic %s: message %d is a dead letter: %s", delivery.topic, delivery.seq, error)
            await delivery.dead(reason=str(error))
        except TimeoutError:
            if not limit.cancelled_caught:
                raise
            raise HandlerTimeout(f"the handler took longer than {handler.time_limit_s:g} s") from None


def _only(error: BaseException) -> BaseException:
    """The error in a group that has one: who reads it knows nothing of the tasks here."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
