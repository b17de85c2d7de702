"""Requests and answers. The one table from error code to status is here."""

from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qs

from wakeq_control.codec import dump, load
from wakeq_control.errors import BadRequest, ControlError, InvalidBody, TooLarge, Unauthenticated
from wakeq_control.limits import DEFAULTS
from wakeq_control.messages import check_storable

Scope = dict[str, Any]
HttpEvent = dict[str, Any]
Receive = Callable[[], Awaitable[HttpEvent]]
Send = Callable[[HttpEvent], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

STATUS: dict[str, int] = {
    "BAD_REQUEST": 400,
    "INVALID_ARGUMENTS": 400,
    "INVALID_DEPLOYMENT": 400,
    "NO_DEFAULT_SERVICE": 400,
    "WRONG_SESSION": 400,
    "UNAUTHENTICATED": 401,
    "DEPLOY_FORBIDDEN": 403,
    "ORIGIN_REFUSED": 403,
    "DEPLOYMENT_NOT_FOUND": 404,
    "NOT_FOUND": 404,
    "SERVICE_NOT_FOUND": 404,
    "SESSION_NOT_FOUND": 404,
    "TASK_NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "DEPLOYMENT_EXISTS": 409,
    "TASK_CONFLICT": 409,
    "STATE_CONFLICT": 412,
    "BODY_TOO_LARGE": 413,
    "STATE_TOO_LARGE": 413,
    "INVALID_BODY": 422,
    "TOO_MANY_INPUTS": 429,
    "TOO_MANY_SESSIONS": 429,
    "TOO_MANY_TASKS": 429,
    "DEPLOYMENT_FAILED": 500,
    "CONTROL_PLANE_UNAVAILABLE": 503,
    "STOPPING": 503,
}
_QUERIES_KEPT = 64
JSON_TYPE = (b"content-type", b"application/json")
# A body with no more brackets than these isn't nested too deeply.
_SHALLOW = 500


class Gone(Exception):
    """The client has hung up, or its answer can't be finished: there is nothing more to say to it."""


class Connection(Protocol):
    """What our server knows of a connection beyond ASGI; in ``scope["state"]["connection"]``."""

    def close(self) -> None:
        """Close it, whatever has been sent."""

    def say(self, reason: str) -> None:
        """What the next status line has behind its number."""

    def when_gone(self, call: Callable[[], None] | None) -> None:
        """Have this called when the client hangs up, or now where it has; None: nothing any more."""


class Response(NamedTuple):
    """A whole answer."""

    status: int
    headers: Headers
    body: bytes


class Request:
    """One request, its body not read yet."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, *, body_max_bytes: int = DEFAULTS.body_bytes
    ) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.client: str | None = (scope.get("client") or (None,))[0]
        """The address that it comes from."""
        self.receive = receive
        self.send = send
        self._body_max_bytes = body_max_bytes
        self._query: bytes = scope["query_string"]
        self._connection: Connection | None = scope.get("state", {}).get("connection")

    def parameter(self, name: str) -> str | None:
        """A parameter of the query."""
        values = _parameters(self._query).get(name)
        return None if values is None else values[-1]

    def seconds(self, name: str, longest: float) -> float | None:
        """A parameter that is a time. Raises BadRequest."""
        text = self.parameter(name)
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value <= longest:
            raise BadRequest(f"{name}: must be a number of seconds from 0 to {longest:g}")
        return value

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """A parameter that is a whole number. Raises BadRequest."""
        text = self.parameter(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(high)) and low <= int(text) <= high):
            raise BadRequest(f"{name}: must be a whole number from {low} to {high}")
        return int(text)

    async def body(self) -> bytes:
        """All of it. Raises TooLarge, and Gone when the client hangs up in the middle of it."""
        # Which is refused before it comes, where the client says how much it will be.
        self._check_size(int(self.headers.get(b"content-length", b"0")))
        parts, size = [], 0
        while True:
            event = await self.receive()
            if event["type"] == "http.disconnect":
                raise Gone
            parts.append(event.get("body", b""))
            size += len(parts[-1])
            self._check_size(size)
            if not event.get("more_body"):
                return b"".join(parts)

    def _check_size(self, size: int) -> None:
        if size > self._body_max_bytes:
            raise TooLarge(f"the body has more than {self._body_max_bytes:,} bytes")

    async def json(self) -> Any:
        """The body's value. Raises InvalidBody, TooLarge, Gone."""
        body = await self.body()
        if not body:
            raise InvalidBody([{"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}])
        try:
            value = load(body)
        except RecursionError:
            raise InvalidBody([_not_json(0, "nested too deeply")]) from None
        except ValueError as error:
            raise InvalidBody([_not_json(getattr(error, "pos", 0), getattr(error, "msg", str(error)))]) from None
        if body.count(b"[") + body.count(b"{") > _SHALLOW:
            check_storable(value)
        return value

    def when_gone(self, call: Callable[[], None] | None) -> bool:
        """Have this called when the client hangs up; None: nothing any more. False where the server can't tell."""
        if self._connection is None:
            return False
        self._connection.when_gone(call)
        return True

    async def hung_up(self) -> None:
        """Return when the client has closed the connection. The body must have been read."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    def say(self, reason: str) -> None:
        """What the answer's status line has behind its number, for clients that show nothing else of an error."""
        if self._connection is not None:
            self._connection.say(reason)

    async def cut_off(self) -> None:
        """End an answer that has begun so that the client sees that there would have been more."""
        if self._connection is not None:
            self._connection.close()
            await self.hung_up()


@lru_cache(_QUERIES_KEPT)
def _parameters(query: bytes) -> dict[str, list[str]]:
    """A query's. Most clients ask with the same one again and again."""
    return parse_qs(query.decode("latin-1"), keep_blank_values=True)


def _not_json(position: int, reason: str) -> dict[str, object]:
    context = {"error": reason}
    return {
        "type": "json_invalid",
        "loc": ["body", position],
        "msg": "JSON decode error",
        "input": {},
        "ctx": context,
    }


def answer(value: object, headers: Headers | None = None) -> Response:
    """200, in JSON."""
    return Response(200, [JSON_TYPE, *(headers or ())], dump(value))


def refusal(code: str, title: str, detail: object) -> Response:
    """An error: ``detail`` as llama_deploy has it, and beside it what RFC 9457 has."""
    status = STATUS[code]
    problem = {"detail": detail, "type": f"urn:wakeq:error:{code}", "title": title, "status": status, "code": code}
    return Response(status, [JSON_TYPE], dump(problem))


def error_answer(error: ControlError) -> Response:
    """What a refusal looks like on the wire."""
    response = refusal(error.code, error.title, error.errors if isinstance(error, InvalidBody) else error.detail)
    if isinstance(error, Unauthenticated):
        response.headers.append((b"www-authenticate", b"Bearer"))
    return response


def method_not_allowed(allowed: list[str]) -> Response:
    """405, with what is allowed."""
    response = refusal("METHOD_NOT_ALLOWED", "Method not allowed", "Method Not Allowed")
    response.headers.append((b"allow", ", ".join(allowed).encode()))
    return response


async def send_response(send: Send, response: Response, *, has_body: bool = True) -> None:
    """Send a whole answer."""
    headers = [*response.headers, (b"content-length", b"%d" % len(response.body))]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body if has_body else b""})
