"""A worker's registration: made anew whenever the connection breaks that it was made by.

A control plane that was started again may know nothing of what it knew before, and asks nobody.
"""

from typing import Any

import anyio
import structlog

import wakeq
from wakeq_control.errors import StartupError
from wakeq_control.link.trying import new_backoff, until_done
from wakeq_control.service.control import ControlPlane

_log: Any = structlog.get_logger("wakeq.worker")
_SERVER_ERROR = 500


class Registration:
    """One worker's."""

    def __init__(self, control: ControlPlane, service: str, about: dict[str, Any]) -> None:
        """``about`` is what the service says of itself."""
        self._control = control
        self._service = service
        self._about = about
        self._backoff = new_backoff()
        self._namespace: str | None = None
        self._registered = anyio.Event()

    async def namespace(self) -> str:
        """What the names of all topics begin with, as soon as the control plane has told it."""
        await self._registered.wait()
        assert self._namespace is not None
        return self._namespace

    async def run(self) -> None:
        """Stay registered, for ever. Raises StartupError where the control plane refuses the first time."""
        await until_done(f"staying registered as {self._service}", self._stay, self._backoff)

    async def _stay(self) -> None:
        try:
            async with self._control.registration(self._service, self._about) as lines:
                async for line in lines:
                    self._heard(line)
        except wakeq.WakeqError as error:
            refusal = refusal_of("registering", error)
            if refusal is None:
                raise
            if self._namespace is None:
                raise refusal from error
            # One that runs has tasks, and the control plane may be started anew as it was.
            raise wakeq.ServerUnavailable(error.detail) from error
        raise wakeq.ServerUnavailable("the control plane has ended the registration")

    def _heard(self, line: dict[str, Any]) -> None:
        namespace = str(line["topic_namespace"])
        if self._namespace not in (None, namespace):
            problem = f"the control plane's topics begin with {namespace} now, and no longer with {self._namespace}"
            raise StartupError(problem, "start the worker again")
        self._namespace = namespace
        self._registered.set()
        self._backoff.succeeded()
        _log.info("registered", service=self._service)


def refusal_of(what: str, error: wakeq.WakeqError) -> StartupError | None:
    """What it means to an operator that the control plane has said no; None: it has said nothing, or that it can't."""
    if error.status is None or error.status >= _SERVER_ERROR:
        return None
    hint = "is --control-plane the address of a wakeq control plane?"
    if isinstance(error, wakeq.Unauthenticated):
        hint = "WAKEQ_CONTROL_TOKEN, else WAKEQ_TOKEN, has the token that it is shown"
    return StartupError(f"{what}: {error.detail}", hint)
