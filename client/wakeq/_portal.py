"""What the synchronous clients are made of: an asynchronous one, on an event loop in a thread of its own."""

import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, suppress
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

_P = ParamSpec("_P")
_T = TypeVar("_T")


class OnPortal:
    """Calls an asynchronous client from any number of threads; the loop's thread starts with the first call."""

    def __init__(self, client: AbstractAsyncContextManager[Any]) -> None:
        """``client`` is entered on the loop, and left there in the end."""
        self._inner = client
        self._lock = threading.Lock()
        self._end: Callable[[], object] | None = None
        self._portal: BlockingPortal | None = None
        self._closed = False

    def __enter__(self) -> Self:
        self._started()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections, and end the thread."""
        with self._lock:
            self._portal, self._closed = None, True
            end, self._end = self._end, None
        if end is not None:
            end()

    def _started(self) -> BlockingPortal:
        with self._lock:
            if self._closed:
                raise RuntimeError("the client is closed")
            if self._portal is None:
                with ExitStack() as stack:
                    portal = stack.enter_context(start_blocking_portal(name="wakeq"))
                    stack.enter_context(portal.wrap_async_context_manager(self._inner))
                    # At the program's end too: later the interpreter would wait for a thread that it has stopped.
                    self._end = weakref.finalize(self, stack.pop_all().close)
                    self._portal = portal
            return self._portal

    def _call(self, function: Callable[_P, Awaitable[_T]], *args: _P.args, **more: _P.kwargs) -> _T:
        """What the function returns or raises on the loop; an interrupt cancels it there."""
        future = (self._portal or self._started()).start_task_soon(partial(function, *args, **more))
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _soon(self, function: Callable[[], Awaitable[None]]) -> None:
        """Run it on the loop without waiting for it; a client that is being closed closes its streams itself."""
        portal = self._portal
        if portal is not None:
            with suppress(RuntimeError):
                portal.start_task_soon(function)
