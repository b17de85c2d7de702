"""Publishing: one message, with what its headers say of it; or a batch, a message or an envelope a line."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import repeat
from typing import Any

import structlog

from wakeq_server.core.model import NOTHING_SAID, NewMessage, Published, TopicConfig, many
from wakeq_server.engine.base import Engine
from wakeq_server.errors import (
    BadRequest,
    BadValue,
    InvalidMessage,
    MessageTooLarge,
    QueueError,
    StorageError,
    TopicFull,
    TopicNotFound,
)
from wakeq_server.http import attributes, envelopes, params, schemas
from wakeq_server.http.wire import JSON_TYPE, Call, Receive, Response, Scope, Send, json_response, read_body
from wakeq_server.settings import (
    BATCH_MAX_BYTES,
    BATCH_MAX_MESSAGES,
    MESSAGE_MAX_BYTES,
    PUBLISH_HOLD_S,
    QUEUE_MESSAGE_MAX_BYTES,
)

_LINES = b"application/x-ndjson"
_ENVELOPES = b"application/vnd.wakeq.envelopes+x-ndjson"
_NO_STATE: Mapping[str, Any] = {}

_log = structlog.get_logger("wakeq.server")


def is_batch(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a publish has a message a line."""
    return _kind(headers) in (_LINES, _ENVELOPES)


def _kind(headers: Mapping[bytes, bytes]) -> bytes:
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower()


class Publishing:
    """`POST /messages/{topic}`."""

    def __init__(self, engine: Engine, config: Callable[[str], Awaitable[TopicConfig]]) -> None:
        """``config`` finds a topic's configuration, and may make the topic."""
        self._engine = engine
        self._config = config

    def one(self, topic: str, headers: Mapping[bytes, bytes]) -> Call:
        """One message: 200 and `null`, as llama_deploy had it."""
        content_type = headers.get(b"content-type")
        said: attributes.Attributes | None = None

        async def publish(scope: Scope, receive: Receive, send: Send) -> Response:
            nonlocal said
            try:
                config = await self._config(topic)
            except TopicNotFound:
                # The original looks at the body first, and so do its clients' tests.
                schemas.new_message(
                    "queue_message", await read_body(receive, QUEUE_MESSAGE_MAX_BYTES, headers), content_type
                )
                raise
            # Not sooner, since what is wrong with it is not the first thing to be said.
            if said is None:
                said = attributes.of_headers(headers)
            own = _own_key(scope) or said.id
            most = max_message_bytes(config)
            if said is attributes.NO_ATTRIBUTES:
                message = schemas.new_message(config.schema, await read_body(receive, most, headers), content_type)
            else:
                said.check(config, delay="Wakeq-Delay", ttl="Wakeq-TTL")
                body = await read_body(receive, most, headers)
                message = said.given_to(schemas.new_message(config.schema, body, content_type, own), own)
            check_size(most, "the message", message.body)
            if config.schema == "queue_message":
                published = await self._publish_held(topic, message)
            else:
                published = await self._engine.publish(topic, [message], key=message.id)
            return Response(200, [JSON_TYPE, (b"wakeq-seq", b"%d" % published.first_seq)], b"null")

        return publish

    async def _publish_held(self, topic: str, message: NewMessage) -> Published:
        try:
            return await self._engine.publish(topic, [message], key=message.id, hold_s=PUBLISH_HOLD_S)
        except (TopicFull, StorageError) as error:
            self._note_loss(topic, error)
            raise

    def _note_loss(self, topic: str, error: QueueError) -> None:
        self._engine.stats.refused_publishes[topic, error.code] += 1
        _log.warning(
            "publish refused", topic=topic, code=error.code, detail=error.detail,
            meaning="a llama_deploy client does not look at the answer: to it, this message is lost",
        )  # fmt: skip

    async def batch(self, topic: str, headers: Mapping[bytes, bytes], receive: Receive) -> Response:
        """A message or an envelope a line: all or none, or (`Prefer: handling=lenient`) each by itself."""
        config = await self._config(topic)
        key = attributes.batch_key(headers)
        lines = batch_lines(await read_body(receive, BATCH_MAX_BYTES, headers))
        if _kind(headers) == _LINES:
            return await self._together(topic, _messages(config, lines, key), key)
        if params.prefers_lenient(headers):
            if key is not None:
                raise BadValue("Idempotency-Key", "with handling=lenient each envelope has its own id")
            return await self._each(topic, config, lines)
        messages = [_enveloped(config, *line) for line in lines]
        return await self._together(topic, messages, whole_key(messages, key))

    async def _together(self, topic: str, messages: Sequence[NewMessage], key: str | None) -> Response:
        published = await self._engine.publish(topic, messages, key=key)
        return json_response(
            {
                "first_seq": published.first_seq,
                "last_seq": published.last_seq,
                "count": published.count,
                "duplicates": published.count if published.duplicate else 0,
            }
        )

    async def _each(self, topic: str, config: TopicConfig, lines: Sequence[tuple[int, bytes]]) -> Response:
        outcomes = [_tried(config, *line) for line in lines]
        messages = [outcome for outcome in outcomes if isinstance(outcome, NewMessage)]
        published = iter(await self._engine.publish_each(topic, messages) if messages else ())
        results = [_result(next(published) if isinstance(o, NewMessage) else o) for o in outcomes]
        return json_response({"results": results})


def _own_key(scope: Scope) -> str | None:
    """The idempotency key of a request whose head, but for that, has been read before."""
    key: bytes | None = scope.get("state", _NO_STATE).get("idempotency_key")
    return None if key is None else key.decode()


def whole_key(messages: Sequence[NewMessage], key: str | None) -> str | None:
    """The idempotency key of envelopes that are taken all or none. Raises BadValue.

    What is taken together can't be a duplicate in part, so the envelopes of such a batch have no keys of their own.
    """
    if key is None and len(messages) == 1:
        return messages[0].id
    if any(message.id is not None for message in messages):
        raise BadValue("id", "for a single envelope, or handling=lenient; a batch taken whole has its Idempotency-Key")
    return key


def batch_lines(body: bytes) -> list[tuple[int, bytes]]:
    """The lines of a batch that aren't empty, numbered from 1. Raises BadRequest, MessageTooLarge."""
    lines = [line for given in body.split(b"\n") if (line := given.strip())]
    if not lines:
        raise BadRequest("the body has no lines; a batch is one JSON value a line")
    if len(lines) > BATCH_MAX_MESSAGES:
        raise MessageTooLarge(f"the batch has {len(lines)} messages; at most {BATCH_MAX_MESSAGES} are taken")
    return list(enumerate(lines, 1))


def _messages(config: TopicConfig, lines: Sequence[tuple[int, bytes]], key: str | None) -> list[NewMessage]:
    if config.schema in ("json", "any"):
        bodies = [line for _, line in lines]
        if max(map(len, bodies)) <= max_message_bytes(config) and schemas.are_json(bodies):
            return list(many(NewMessage, bodies, *map(repeat, NOTHING_SAID)))
    # One by one, so that the first line that is wrong is named.
    return [_message(config, *line, key) for line in lines]


def _message(config: TopicConfig, number: int, line: bytes, key: str | None) -> NewMessage:
    most = max_message_bytes(config)
    check_size(most, f"line {number}", line)
    try:
        message = schemas.json_line(config.schema, line, None if key is None else f"{key}:{number}")
    except (InvalidMessage, BadRequest) as error:
        raise _at_line(number, error) from None
    check_size(most, f"line {number}, completed,", message.body)
    return message


def _enveloped(config: TopicConfig, number: int, line: bytes) -> NewMessage:
    try:
        message = envelopes.message(config, line)
    except (InvalidMessage, BadRequest) as error:
        raise _at_line(number, error) from None
    check_size(max_message_bytes(config), f"line {number}", message.body)
    return message


def _at_line(number: int, error: InvalidMessage | BadRequest) -> InvalidMessage | BadRequest:
    detail = f"line {number}: {error.detail}"
    if isinstance(error, BadRequest):
        return BadRequest(detail)
    return InvalidMessage(detail, [{**e, "line": number} for e in error.errors])


def _tried(config: TopicConfig, number: int, line: bytes) -> NewMessage | QueueError:
    try:
        return _enveloped(config, number, line)
    except QueueError as error:
        return error


def _result(outcome: Published | QueueError) -> dict[str, object]:
    if isinstance(outcome, QueueError):
        told: dict[str, object] = {"code": outcome.code, "detail": outcome.detail}
        return told if outcome.retry_after_s is None else told | {"retry_after_s": outcome.retry_after_s}
    return {"seq": outcome.first_seq, "duplicate": outcome.duplicate}


def check_size(most: int, what: str, body: bytes) -> None:
    """Raises MessageTooLarge."""
    if len(body) > most:
        raise MessageTooLarge(f"{what} has {len(body)} bytes; this topic takes {most}")


def max_message_bytes(config: TopicConfig) -> int:
    """Largest body that a topic takes."""
    if config.max_message_bytes is not None:
        return config.max_message_bytes
    return QUEUE_MESSAGE_MAX_BYTES if config.schema == "queue_message" else MESSAGE_MAX_BYTES
