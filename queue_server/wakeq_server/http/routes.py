"""The ASGI application: which call a request is, and what every request has in common.

A dozen paths need no router: `/messages/{topic}`, which is all the traffic there is, is cut out of the path, the rest
are looked up.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from wakeq_server.errors import ConsumerGone, QueueError
from wakeq_server.http import params
from wakeq_server.http.events import events
from wakeq_server.http.guard import Guard
from wakeq_server.http.intake import Intake
from wakeq_server.http.messages import Messages
from wakeq_server.http.publishing import is_batch
from wakeq_server.http.pushes import Pushes
from wakeq_server.http.service import Service
from wakeq_server.http.stream import stream, wants_stream
from wakeq_server.http.topics import Topics
from wakeq_server.http.wire import (
    NOT_FOUND,
    Call,
    Connection,
    Headers,
    KnownHead,
    Receive,
    Response,
    Scope,
    Send,
    error_response,
    method_not_allowed,
    send_response,
)

_MESSAGES = "/messages/"
_TOPICS = "/topics/"

_NO_STATE: Mapping[str, Any] = {}

RareCall = Callable[[], Awaitable[Response]]


class App:
    """The whole HTTP side, as an ASGI 3 application."""

    def __init__(
        self,
        messages: Messages,
        topics: Topics,
        pushes: Pushes,
        service: Service,
        guard: Guard,
        intake: Intake,
        access_log: Any,
    ) -> None:
        """``access_log`` is a structlog logger, or None."""
        self._messages = messages
        self._topics = topics
        self._pushes = pushes
        self._service = service
        self._guard = guard
        self._intake = intake
        self._access_log = access_log

    @property
    def has_token(self) -> bool:
        """Whether requests must show one."""
        return self._guard.has_token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"this application speaks HTTP only, not {scope['type']}")
        self._service.requests += 1
        if self._access_log is not None:
            send = self._logged(scope, send)
        state = scope.get("state", _NO_STATE)
        peer: Connection | None = state.get("connection")
        body = None
        if peer is not None and peer.incoming:
            receive = body = self._intake.body(receive, peer, kept=scope["method"] != "GET")
        try:
            head: KnownHead | None = state.get("head")
            call = None if head is None else head.call
            if call is None:
                call = self._decided(scope)
                if head is not None and (not head.has_key or _is_publish(scope)):
                    head.call = call
            response = await call(scope, receive, send)
            if response is not None:
                await send_response(send, response)
        except ConsumerGone:
            if peer is not None:
                peer.abandon()
        except QueueError as error:
            self._service.refused[error.code] += 1
            headers = dict(scope["headers"])
            send = _with_headers(send, self._guard.cors(headers.get(b"origin")))
            await send_response(send, error_response(error, legacy=_is_legacy_call(scope, headers)))
        finally:
            if body is not None:
                body.close()

    def _decided(self, scope: Scope) -> Call:
        """What the head alone decides. Raises QueueError."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        params.check_path(scope)
        self._guard.check_origin(headers)
        if _is_preflight(scope, headers):
            call = _answering(_preflight(headers))
        else:
            self._guard.admit(scope["method"], scope["path"], headers)
            call = self._call(scope, headers)
        if b"origin" in headers:
            call = _with_cors(call, self._guard.cors(headers[b"origin"]))
        return call

    def _call(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Call:
        path: str = scope["path"]
        if path == "/events":
            if scope["method"] == "GET":
                return lambda scope, receive, send: events(self._messages, scope, receive, send)
            return _answering(method_not_allowed(b"GET", legacy=False))
        if not path.startswith(_MESSAGES):
            return lambda scope, receive, send: self._routed(scope, headers, receive)
        topic, slash, action = path[len(_MESSAGES) :].partition("/")
        if topic and not slash:
            return self._topic_call(scope["method"], topic, headers)
        if topic and action in ("claim", "settle"):
            if scope["method"] != "POST":
                return _answering(method_not_allowed(b"POST", legacy=False))
            if action == "claim":
                return lambda scope, receive, send: self._messages.claim(scope, topic, headers, receive, send)
            return lambda scope, receive, send: self._messages.settle(topic, headers, receive)
        return _answering(_redirect(scope) or NOT_FOUND)

    def _topic_call(self, method: str, topic: str, headers: Mapping[bytes, bytes]) -> Call:
        messages = self._messages
        if method == "GET":
            if wants_stream(headers):
                return lambda scope, receive, send: stream(messages, scope, topic, headers, receive, send)
            return lambda scope, receive, send: messages.receive(scope, topic, headers, receive, send)
        if method == "POST":
            if is_batch(headers):
                return lambda scope, receive, send: messages.publishing.batch(topic, headers, receive)
            return messages.publishing.one(topic, headers)
        return _answering(method_not_allowed(b"GET, POST", legacy=True))

    async def _routed(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive) -> Response:
        calls = self._calls(scope, headers, receive)
        if not calls:
            return _redirect(scope) or NOT_FOUND
        call = calls.get(scope["method"])
        if call is None:
            legacy = scope["path"] == "/" or _is_topic(scope["path"])
            return method_not_allowed(", ".join(sorted(calls)).encode(), legacy=legacy)
        return await call()

    def _calls(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive) -> Mapping[str, RareCall]:
        """What can be done with this path, by method."""
        topics, service, path, query = self._topics, self._service, scope["path"], scope["query_string"]
        if path.startswith(_TOPICS):
            return self._topic_calls(path[len(_TOPICS) :].split("/"), query, headers, receive)
        reads: dict[str, RareCall] = {
            "/": service.card,
            "/v1": service.about,
            "/topics": lambda: topics.list(query),
            "/healthz": service.health,
            "/readyz": service.ready,
            "/metrics": service.metrics,
            "/openapi.json": service.openapi,
            "/docs": service.docs,
            "/redoc": service.docs,
        }
        return {"GET": reads[path]} if path in reads else {}

    def _topic_calls(
        self, parts: Sequence[str], query: bytes, headers: Mapping[bytes, bytes], receive: Receive
    ) -> Mapping[str, RareCall]:
        topics, pushes = self._topics, self._pushes
        match parts:
            case ["", *_]:
                return {}
            case [topic]:
                return {
                    "POST": lambda: topics.create(topic),
                    "PUT": lambda: topics.put(topic, headers, receive),
                    "GET": lambda: topics.show(topic),
                    "DELETE": lambda: topics.delete(topic),
                }
            case [topic, "groups", group] if group:
                return {
                    "PUT": lambda: topics.put_group(topic, group),
                    "GET": lambda: topics.show_group(topic, group),
                    "DELETE": lambda: topics.delete_group(topic, group),
                }
            case [topic, "consumers"]:
                return {"GET": lambda: topics.consumers(topic, query)}
            case [topic, "push"]:
                return {"GET": lambda: pushes.list(topic)}
            case [topic, "push", push] if push:
                return {
                    "PUT": lambda: pushes.put(topic, push, headers, receive),
                    "GET": lambda: pushes.show(topic, push),
                    "DELETE": lambda: pushes.delete(topic, push),
                }
            case [topic, "messages"]:
                return {"GET": lambda: topics.peek(topic, query)}
            case [topic, "purge"]:
                return {"POST": lambda: topics.purge(topic, query)}
            case [topic, "redrive"]:
                return {"POST": lambda: topics.redrive(topic, query, headers, receive)}
            case [topic, "pause" | "resume" as action]:
                return {"POST": lambda: topics.pause(topic, action == "pause")}
        return {}

    def _logged(self, scope: Scope, send: Send) -> Send:
        status = 0

        async def logging_send(event: dict[str, Any]) -> None:
            nonlocal status
            status = event.get("status", status)
            await send(event)
            if event["type"] != "http.response.body" or event.get("more_body"):
                return
            if not _is_empty_poll(scope, status, event["body"]):
                client = scope["client"][0] if scope.get("client") else None
                self._access_log.info(
                    "request", method=scope["method"], path=scope["path"], status=status, client=client
                )

        return logging_send


def _is_empty_poll(scope: Scope, status: int, body: bytes) -> bool:
    """Whether somebody asked for a message and there was none: what waiting looks like, and no event."""
    if not scope["path"].startswith(_MESSAGES):
        return False
    if scope["method"] == "GET":
        return status == 204 or body == b"null"
    return body == b'{"messages":[]}'


def _is_legacy_call(scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
    """Whether llama_deploy's server had this call, so that its clients know its errors' form."""
    method: str = scope["method"]
    path: str = scope["path"]
    if path.startswith(_MESSAGES):
        return "/" not in path[len(_MESSAGES) :] and not wants_stream(headers) and not is_batch(headers)
    return path == "/" or (method == "POST" and _is_topic(path))


def _is_publish(scope: Scope) -> bool:
    """Whether it publishes one message: the call that takes another idempotency key than it was decided by."""
    return (
        scope["method"] == "POST"
        and scope["path"].startswith(_MESSAGES)
        and _is_legacy_call(scope, dict(scope["headers"]))
    )


def _is_topic(path: str) -> bool:
    return path.startswith(_TOPICS) and "/" not in path[len(_TOPICS) :]


def _redirect(scope: Scope) -> Response | None:
    """A topic's path with a slash at its end goes to the one without, as FastAPI has it."""
    path = scope["path"]
    topic = path.rstrip("/").removeprefix(_MESSAGES).removeprefix(_TOPICS)
    if not path.startswith((_MESSAGES, _TOPICS)) or not path.endswith("/") or not topic or "/" in topic:
        return None
    host = dict(scope["headers"]).get(b"host") or b"%b:%d" % (scope["server"][0].encode(), scope["server"][1])
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    location = b"%b://%b%b%b" % (scope["scheme"].encode(), host, scope["raw_path"].rstrip(b"/"), query)
    return Response(307, [(b"location", location)], b"")


def _answering(response: Response) -> Call:
    async def answer(scope: Scope, receive: Receive, send: Send) -> Response:
        return response

    return answer


def _with_cors(call: Call, more: Headers) -> Call:
    async def with_cors(scope: Scope, receive: Receive, send: Send) -> None:
        send = _with_headers(send, more)
        response = await call(scope, receive, send)
        if response is not None:
            await send_response(send, response)

    return with_cors


def _with_headers(send: Send, more: Headers) -> Send:
    async def with_headers(event: dict[str, Any]) -> None:
        if event["type"] == "http.response.start":
            event = {**event, "headers": [*event["headers"], *more]}
        await send(event)

    return with_headers if more else send


def _is_preflight(scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
    return scope["method"] == "OPTIONS" and b"access-control-request-method" in headers


def _preflight(headers: Mapping[bytes, bytes]) -> Response:
    return Response(
        204,
        [
            (b"access-control-allow-methods", b"GET, POST, PUT, DELETE"),
            (b"access-control-allow-headers", headers.get(b"access-control-request-headers", b"content-type")),
            (b"access-control-max-age", b"600"),
        ],
        b"",
    )
