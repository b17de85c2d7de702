"""A worker's registration: made anew with each link that it opens.

A control plane that was started again may know nothing of what it knew before, and asks nobody.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import anyio
import structlog

import wakeq
from wakeq_control.errors import StartupError
from wakeq_control.service.control import ControlPlane

_log: Any = structlog.get_logger("wakeq.worker")
_T = TypeVar("_T")
_SERVER_ERROR = 500


class Registration:
    """One worker's."""

    def __init__(self, control: ControlPlane, service: str, about: dict[str, Any]) -> None:
        """``about`` is what the service says of itself."""
        self._control = control
        self._service = service
        self._about = about
        self._namespace: str | None = None
        self._registered = anyio.Event()

    async def namespace(self) -> str:
        """What the names of all topics begin with, as soon as the control plane has told it."""
        await self._registered.wait()
        assert self._namespace is not None
        return self._namespace

    @asynccontextmanager
    async def over(self, link: AbstractAsyncContextManager[_T]) -> AsyncIterator[_T]:
        """Open a link and register, in this order: where another process answers the second, the first breaks off.

        Raises WakeqError; StartupError where the control plane refuses the first time, or names its topics anew.
        """
        async with AsyncExitStack() as stack:
            try:
                opened = await stack.enter_async_context(link)
                self._registered_in(await self._control.register(self._service, self._about))
            except wakeq.WakeqError as error:
                raise self._meaning(error) from error
            yield opened

    def _meaning(self, error: wakeq.WakeqError) -> Exception:
        refusal = refusal_of("registering", error)
        if refusal is None:
            return error
        # One that runs has tasks, and the control plane may be started anew as it was.
        return refusal if self._namespace is None else wakeq.ServerUnavailable(error.detail)

    def _registered_in(self, namespace: str) -> None:
        if self._namespace not in (None, namespace):
            problem = f"the control plane's topics begin with {namespace} now, and no longer with {self._namespace}"
            raise StartupError(problem, "start the worker again")
        self._namespace = namespace
        self._registered.set()
        _log.info("registered", service=self._service)


def refusal_of(what: str, error: wakeq.WakeqError) -> StartupError | None:
    """What it means to an operator that the control plane has said no; None: it has said nothing, or that it can't."""
    if error.status is None or error.status >= _SERVER_ERROR:
        return None
    hint = "is --control-plane the address of a wakeq control plane?"
    if isinstance(error, wakeq.Unauthenticated):
        hint = "WAKEQ_CONTROL_TOKEN, else WAKEQ_TOKEN, has the token that it is shown"
    return StartupError(f"{what}: {error.detail}", hint)
