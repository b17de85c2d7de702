"""Bytes to model and back: answers, errors, deliveries. The one table from error code to status is here."""

import base64
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import orjson

from wakeq_server.core.model import (
    LEASE_ID,
    OWN_ID,
    ConsumerInfo,
    Delivery,
    GroupInfo,
    Message,
    Peeked,
    PresenceEvent,
    Push,
    PushStanding,
    TopicConfig,
    TopicInfo,
)
from wakeq_server.errors import ConsumerGone, InvalidMessage, MessageTooLarge, QueueError

Scope = dict[str, Any]
Event = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

STATUS: dict[str, int] = {
    "BAD_REQUEST": 400,
    "UNAUTHENTICATED": 401,
    "FORBIDDEN": 403,
    "ORIGIN_REFUSED": 403,
    "TOPIC_NOT_FOUND": 404,
    "GROUP_NOT_FOUND": 404,
    "NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "REQUEST_TIMEOUT": 408,
    "MESSAGE_TOO_LARGE": 413,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "INVALID_MESSAGE": 422,
    "IDEMPOTENCY_CONFLICT": 422,
    "TOPIC_FULL": 429,
    "TOO_MANY_TOPICS": 429,
    "HEAD_TOO_LARGE": 431,
    "DRAINING": 503,
    "TOO_MANY_PARKED": 503,
    "STORAGE_FULL": 507,
    "STORAGE_FAILED": 500,
}

_WITH: dict[str, Headers] = {
    "UNAUTHENTICATED": [(b"www-authenticate", b"Bearer")],
}

JSON_TYPE = (b"content-type", b"application/json")
PROBLEM_TYPE = (b"content-type", b"application/problem+json")


class Connection(Protocol):
    """What our server knows of a connection beyond ASGI; in ``scope["state"]["connection"]``."""

    @property
    def gone(self) -> bool:
        """Whether the client has closed it; the kernel's word, ahead of the event loop's."""

    @property
    def read_whole(self) -> bool:
        """Whether it did so after reading every byte that was sent."""

    @property
    def kept_alive(self) -> bool:
        """Whether it stays open when the answer that is being given is finished."""

    @property
    def incoming(self) -> bool:
        """Whether a request has begun to come that isn't whole."""

    @property
    def unsent(self) -> int:
        """Bytes of answers that have not left for the kernel."""

    @property
    def fault(self) -> QueueError | None:
        """What is wrong with how the body of the request that is being answered has come; no more of it will."""

    def abandon(self) -> None:
        """End an answer that has nobody to go to, or no end, by closing the connection."""

    async def flushed(self) -> None:
        """Return when everything that was sent has left for the kernel, or the connection is lost."""


class KnownHead(Protocol):
    """What our server knows of a head that it has read before; in ``scope["state"]["head"]``, where it has."""

    call: "Call | None"
    """What the application has decided by it, for the next request that has the same."""

    @property
    def has_key(self) -> bool:
        """Whether the next one's idempotency key, which is in ``scope["state"]["idempotency_key"]``, is another."""


def connection(scope: Scope) -> Connection | None:
    """The request's connection; None under a server that isn't ours."""
    found: Connection | None = scope.get("state", {}).get("connection")
    return found


def client_address(scope: Scope) -> str:
    """The client's address without its port: unmodified clients make a connection a request, so a port says nothing."""
    address: str = scope["client"][0] if scope.get("client") else "unknown"
    return address


class Response(NamedTuple):
    """A whole answer."""

    status: int
    headers: Headers
    body: bytes


Call = Callable[[Scope, Receive, Send], Awaitable[Response | None]]
"""Does what a request asks for. The answer is returned where the call hasn't sent it itself."""


def json_response(value: object, status: int = 200) -> Response:
    """An answer in JSON."""
    return Response(status, [JSON_TYPE], orjson.dumps(value))


async def send_response(send: Send, response: Response) -> None:
    """Send a whole answer."""
    headers = [*response.headers]
    if response.status != 204:
        headers.append((b"content-length", b"%d" % len(response.body)))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


def refusal(code: str, title: str, detail: object, *, legacy: bool, **more: object) -> Response:
    """An error as RFC 9457 has it.

    On the calls that llama_deploy had, the content type is the one it sent, and ``detail`` too.
    """
    status = STATUS[code]
    first = {"detail": detail} if legacy else {"type": f"urn:wakeq:error:{code}"}
    problem = first | {
        "type": f"urn:wakeq:error:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        **more,
    }
    # A lone surrogate in what a client sent must come back to it, and UTF-8 has no bytes for one.
    try:
        body = orjson.dumps(problem)
    except TypeError:
        body = _dump_ascii(problem)
    return Response(status, [JSON_TYPE if legacy else PROBLEM_TYPE], body)


def _dump_ascii(value: object) -> bytes:
    import json  # noqa: PLC0415  needed for what almost no client ever sends

    return json.dumps(value, separators=(",", ":"), default=str).encode()


def error_response(error: QueueError, *, legacy: bool) -> Response:
    """What a refusal looks like on the wire."""
    if isinstance(error, InvalidMessage):
        if legacy:
            return refusal(error.code, error.title, error.errors, legacy=True)
        return refusal(error.code, error.title, error.detail, legacy=False, errors=error.errors)
    response = refusal(error.code, error.title, error.detail, legacy=legacy)
    response.headers.extend(_WITH.get(error.code, ()))
    if error.retry_after_s is not None:
        response.headers.append((b"retry-after", b"%d" % max(1, round(error.retry_after_s))))
    return response


NOT_FOUND = refusal("NOT_FOUND", "Not found", "Not Found", legacy=True)


def method_not_allowed(allow: bytes, *, legacy: bool) -> Response:
    """405, with what is allowed."""
    response = refusal("METHOD_NOT_ALLOWED", "Method not allowed", "Method Not Allowed", legacy=legacy)
    response.headers.append((b"allow", allow))
    return response


async def read_body(receive: Receive, limit: int, headers: Mapping[bytes, bytes]) -> bytes:
    """The whole request body.

    Raises MessageTooLarge, and ConsumerGone when the client hangs up in the middle of it.
    """
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > limit:
        raise MessageTooLarge(f"the body has {int(declared)} bytes; at most {limit} are taken")
    event = await receive()
    if event["type"] == "http.request" and not event.get("more_body"):
        body: bytes = event.get("body", b"")
        if len(body) > limit:
            raise MessageTooLarge(f"the body has more than {limit} bytes")
        return body
    return await _read_parts(receive, limit, event)


async def _read_parts(receive: Receive, limit: int, event: Event) -> bytes:
    parts, size = [], 0
    while True:
        if event["type"] == "http.disconnect":
            raise ConsumerGone
        parts.append(event.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise MessageTooLarge(f"the body has more than {limit} bytes")
        if not event.get("more_body"):
            return b"".join(parts)
        event = await receive()


async def hung_up(receive: Receive) -> None:
    """Return when the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


@lru_cache(maxsize=256)
def instant(wall: float) -> str:
    """Wall-clock seconds as RFC 3339 in UTC."""
    second, microseconds = divmod(round(wall * 1e6), 1_000_000)
    return f"{_second(second)}.{microseconds // 1000:03d}Z"


@lru_cache(maxsize=16)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:19]


def delivery_json(delivery: Delivery) -> bytes:
    """A Delivery. Put together by hand, since there is one for every message, and most of it needs no escaping."""
    message = delivery.message
    head = (
        f'{{"seq":{message.seq},"id":{_text(delivery.id)},"lease_id":"{delivery.lease.encode()}",'
        f'"lease_expires_at":"{instant(delivery.lease_expires_at)}","attempt":{delivery.attempt},'
        f'"published_at":"{instant(message.published_at)}","key":{_text(message.key)},'
        f'"headers":{orjson.dumps(dict(message.headers)).decode() if message.headers else "{}"}}}'
    )
    return _with_body(head.encode(), message)


def deliveries_json(deliveries: Sequence[Delivery]) -> bytes:
    """The answer to a claim."""
    parts: list[bytes] = []
    form, published_at, attempt, expires_at = b"", 0.0, 0, 0.0
    for delivery in deliveries:
        message, key, times, end = delivery
        if message[_AFTER_PUBLISHED_AT:_DUE_AT] != _NOTHING_SAID:
            parts.append(delivery_json(delivery))
            continue
        # Nearly all are such, and come many at one moment; the same as the above.
        at = message.published_at
        if at != published_at or times != attempt or end != expires_at or not form:
            published_at, attempt, expires_at = at, times, end
            form = _PLAIN_DELIVERY % (instant(end).encode(), times, instant(at).encode())
        parts.append(form % (message.seq, key.incarnation, message.seq, *key, message.body))
    return messages_json(parts)


_AFTER_PUBLISHED_AT = Message._fields.index("published_at") + 1
_DUE_AT = Message._fields.index("due_at")
_NOTHING_SAID = (None,) * (_DUE_AT - _AFTER_PUBLISHED_AT)
_PLAIN_DELIVERY = (
    f'{{"seq":%d,"id":"{OWN_ID}","lease_id":"{LEASE_ID}",'.replace("%", "%%").encode()
    + b'"lease_expires_at":"%b","attempt":%d,"published_at":"%b","key":null,"headers":{},"body":%%b}'
)


def _text(text: str | None) -> str:
    return "null" if text is None else orjson.dumps(text).decode()


def peeked_json(peeked: Peeked) -> bytes:
    """A message that was looked at."""
    message = peeked.message
    head = orjson.dumps(
        {
            "seq": message.seq,
            "id": message.id,
            "key": message.key,
            "headers": dict(message.headers) if message.headers else {},
            "published_at": instant(message.published_at),
            "state": peeked.state,
            "attempt": peeked.attempt,
            "reason": peeked.reason,
            "due_at": instant(peeked.due_at) if peeked.due_at is not None else None,
        }
    )
    return _with_body(head, message)


def _with_body(head: bytes, message: Message) -> bytes:
    """A JSON body is put in as it is: it was checked when it was published. One that is damaged can only be missed."""
    if message.body is None:
        return head[:-1] + b',"body":null}'
    if message.content_type is None:
        return head[:-1] + b',"body":' + message.body + b"}"
    body = {"body_b64": base64.b64encode(message.body).decode(), "content_type": message.content_type}
    return head[:-1] + b"," + orjson.dumps(body)[1:]


def messages_json(messages: Iterable[bytes]) -> bytes:
    """The answer to a claim or a look, of messages in JSON."""
    return b'{"messages":[' + b",".join(messages) + b"]}"


def consumer_json(consumer: ConsumerInfo) -> dict[str, object]:
    """A consumer that is present."""
    return {**consumer._asdict(), "since": instant(consumer.since)}


def presence_json(event: PresenceEvent) -> dict[str, object]:
    """The data of an event; what has no meaning for its kind is left out."""
    said = {"topic": event.topic, "group": event.group, "consumer": event.consumer, "address": event.address}
    return {**{name: value for name, value in said.items() if value is not None}, "at": instant(event.at)}


def group_json(group: GroupInfo) -> dict[str, object]:
    """GroupInfo."""
    return {name: value for name, value in group._asdict().items() if name != "name"}


def push_json(push: Push, standing: PushStanding) -> dict[str, object]:
    """A push, and how it goes; credentials in its URL are not shown."""
    until = standing.suspended_until
    return {
        "name": push.name,
        **push.config._asdict(),
        "url": push.config.shown_url,
        "state": "up" if until is None else "suspended",
        "suspended_until": None if until is None else instant(until),
        "in_flight": standing.in_flight,
        "delivered": standing.delivered,
        "failed": standing.failed,
        "last_error": standing.last_error,
    }


def topic_json(info: TopicInfo) -> dict[str, object]:
    """TopicInfo."""
    return {
        "name": info.name,
        "created_at": instant(info.created_at),
        "paused": info.paused,
        "messages": info.messages,
        "bytes": info.bytes,
        "published_per_s": info.published_per_s,
        "config": _config_json(info.config),
        "groups": {group.name: group_json(group) for group in info.groups},
    }


def _config_json(config: TopicConfig) -> dict[str, object]:
    return {
        "kind": "queue",
        "schema": config.schema,
        "lease_s": config.lease_s,
        "max_deliveries": config.max_deliveries,
        "retry_backoff_s": {"min": config.retry_min_s, "max": config.retry_max_s},
        "dead_ttl_s": config.dead_ttl_s,
        "dead_letter_topic": config.dead_letter_topic,
        "ttl_s": config.ttl_s,
        "max_messages": config.max_messages,
        "max_bytes": config.max_bytes,
        "max_message_bytes": config.max_message_bytes,
        "dedup_window_s": config.dedup_window_s,
    }
