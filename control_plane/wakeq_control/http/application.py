"""What the ASGI applications of this package have in common: a request is let in, finds its call, and is answered."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar

from wakeq_control.errors import ControlError, PathNotFound
from wakeq_control.http.guard import Guard
from wakeq_control.http.held import Lot
from wakeq_control.http.wire import (
    Gone,
    Receive,
    Request,
    Response,
    Scope,
    Send,
    method_not_allowed,
    send_response,
)
from wakeq_control.limits import DEFAULTS

Call = Callable[[], Awaitable[Response | None]]
"""An answer, or None where it has been sent."""


class Application:
    """An ASGI 3 application; what can be done with a path, a subclass says."""

    refusals: ClassVar[tuple[type[Exception], ...]] = (ControlError,)
    """What `refuse` makes answers of."""

    def __init__(self, guard: Guard, lot: Lot, *, body_max_bytes: int = DEFAULTS.body_bytes) -> None:
        self._guard = guard
        self._body_max_bytes = body_max_bytes
        self.lot = lot

    def calls(self, request: Request) -> Mapping[str, Call]:
        """What can be done with the request's path, by method."""
        raise NotImplementedError

    def refuse(self, request: Request, error: Any) -> Response:
        """The answer to a request that was refused, with one of `refusals`."""
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"this application speaks HTTP only, not {scope['type']}")
        request = Request(scope, receive, send, body_max_bytes=self._body_max_bytes)
        try:
            response = await self._answer(request)
        except Gone:
            # Returning without a last part makes the server close the connection.
            return
        except self.refusals as error:
            response = self.refuse(request, error)
        if response is not None:
            await send_response(send, response, has_body=request.method != "HEAD")

    async def _answer(self, request: Request) -> Response | None:
        self._guard.admit(request.method, request.path, request.headers)
        calls = self.calls(request)
        if not calls:
            raise PathNotFound
        call = calls.get(request.method)
        return method_not_allowed(sorted(calls)) if call is None else await call()
