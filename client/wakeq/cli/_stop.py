"""Signals that end a command in good order."""

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
import typer


class Stop:
    """SIGINT and SIGTERM: the first says to take no more, the second to end at once."""

    def __init__(self) -> None:
        self.working = anyio.CancelScope()
        """What the second ends."""
        self.received: signal.Signals | None = None
        self._taking: set[anyio.CancelScope] = set()
        self._no_more = False

    @contextmanager
    def taking(self) -> Iterator[None]:
        """A block that the first ends, or `no_more`."""
        with anyio.CancelScope() as scope:
            self._taking.add(scope)
            try:
                if self._no_more:
                    scope.cancel()
                yield
            finally:
                self._taking.discard(scope)

    def no_more(self) -> None:
        """Take no more, without a signal."""
        self._no_more = True
        for scope in self._taking:
            scope.cancel()

    async def _listen(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for number in signals:
                if self.received is None:
                    self.received = number
                    self.no_more()
                else:
                    self.working.cancel()


@asynccontextmanager
async def stoppable() -> AsyncIterator[Stop]:
    """Signals do what `Stop` says until the block ends. After SIGINT the exit code is 130, as shells expect."""
    stop = Stop()
    error: Exception | None = None
    async with anyio.create_task_group() as tasks:
        await tasks.start(stop._listen)
        try:
            yield stop
        except Exception as raised:
            # Out of here a group of tasks would make a group of it.
            error = raised
        tasks.cancel_scope.cancel()
    if stop.received == signal.SIGINT:
        raise typer.Exit(130)
    if error is not None:
        raise error
