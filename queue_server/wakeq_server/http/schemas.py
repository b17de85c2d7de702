"""What a message's body must be, by its topic's schema.

`queue_message` is llama_deploy's `QueueMessage`, checked and completed as its server did: errors are FastAPI's,
in FastAPI's words, since its clients and its users' tests know them. Unlike it we keep unknown fields.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from os import urandom
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wakeq_server.core.model import NewMessage, Schema
from wakeq_server.errors import BadRequest, InvalidMessage, UnsupportedMediaType
from wakeq_server.http import validation


def _ids() -> Iterator[str]:
    """UUIDs (version 4). The kernel is asked for chance once for many."""
    while True:
        chance = urandom(_CHANCE_BYTES)
        for start in range(0, _CHANCE_BYTES, 16):
            digits = chance[start : start + 16].hex()
            variant = "89ab"[chance[start + 8] & 3]
            yield f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


_CHANCE_BYTES = 4_096
_new_id = _ids().__next__


class ActionTypes(StrEnum):
    """llama_deploy's actions."""

    NEW_TASK = "new_task"
    COMPLETED_TASK = "completed_task"
    REQUEST_FOR_HELP = "request_for_help"
    NEW_TOOL_CALL = "new_tool_call"
    COMPLETED_TOOL_CALL = "completed_tool_call"
    TASK_STREAM = "task_stream"
    SEND_EVENT = "send_event"


class QueueMessageStats(BaseModel):
    """llama_deploy's times of a message."""

    model_config = ConfigDict(extra="allow")

    publish_time: str | None = None
    process_start_time: str | None = None
    process_end_time: str | None = None


class QueueMessage(BaseModel):
    """llama_deploy's message (0.4.0 - 0.8.1)."""

    model_config = ConfigDict(extra="allow")

    id_: str = Field(default_factory=_new_id)
    publisher_id: str = "default"
    data: dict[str, Any] = Field(default_factory=dict)
    action: ActionTypes | None = None
    stats: QueueMessageStats = Field(default_factory=QueueMessageStats)
    type: str = "default"


_validate_json = QueueMessage.__pydantic_validator__.validate_json
_to_json = QueueMessage.__pydantic_serializer__.to_json


def new_message(schema: Schema, body: bytes, content_type: bytes | None, key: str | None = None) -> NewMessage:
    """A published body as a message, completed where the schema says so; ``key`` is its idempotency key.

    Raises InvalidMessage, UnsupportedMediaType (a type that says it's not JSON, on a ``json`` topic), and
    BadRequest (bytes that aren't UTF-8 where the original says so).
    """
    if schema == "queue_message":
        return NewMessage(_queue_message(body, content_type, key))
    if content_type is None:
        raise InvalidMessage("the request has no content type", [_missing("header", "content-type")])
    if schema == "any":
        return NewMessage(body, content_type.decode("latin-1"))
    if not is_json(content_type):
        raise UnsupportedMediaType(f"this topic takes application/json, not {content_type.decode('latin-1')}")
    return json_line(schema, body)


def json_line(schema: Schema, body: bytes, key: str | None = None) -> NewMessage:
    """JSON as a message, completed where the schema says so; ``key`` is its idempotency key. Raises InvalidMessage."""
    if schema == "queue_message":
        return NewMessage(_queue_message(body, b"application/json", key))
    value = check_json(body)
    # A mapping is one by an abstract class, which takes longer to find than to see that it isn't this.
    if schema != "json" and isinstance(schema, Mapping):
        validation.check(schema, value)
    return NewMessage(body)


def is_json(content_type: bytes) -> bool:
    """Whether a content type is JSON's, as FastAPI sees it."""
    if content_type == b"application/json":
        return True
    kind = content_type.partition(b";")[0].strip().lower()
    return kind == b"application/json" or (kind.startswith(b"application/") and kind.endswith(b"+json"))


def check_json(body: bytes) -> object:
    """The value. Raises InvalidMessage unless the body is one JSON value in UTF-8."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidMessage(f"the body is not JSON: {error}", [_json_invalid(error.pos, str(error))]) from None


def are_json(bodies: Sequence[bytes]) -> bool:
    """Whether each of them is one JSON value in UTF-8."""
    try:
        for body in bodies:
            orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return True


def _queue_message(body: bytes, content_type: bytes | None, key: str | None) -> bytes:
    if content_type is not None and is_json(content_type):
        try:
            return _completed(body, key) or _to_json(_identified(_validate_json(body), key))
        except (ValidationError, ValueError):
            # Either it's wrong, and Python's parser finds FastAPI's words for it, or it's a rarity that
            # pydantic's own parser refuses and Python's takes: a lone surrogate.
            return _dump(_identified(_validate(_parse(body)), key))
    if not body:
        raise InvalidMessage("the body is empty", [_missing("body")])
    return _dump(_identified(_validate(body.decode(errors="replace")), key))


_COMPLETED_MAX_BYTES = 65_536
_WITHOUT: dict[str, Any] = {
    "id_": None, "publisher_id": "default", "data": None, "action": None, "stats": None, "type": "default"
}  # fmt: skip
_NO_TIMES = dict.fromkeys(QueueMessageStats.model_fields)
_ACTIONS = frozenset(ActionTypes)
_DIGITS = bytes.maketrans(b"123456789", b"000000000")


def _completed(body: bytes, key: str | None) -> bytes | None:
    """What the model makes of a body, for bodies of which that is plain; None where it takes the model to tell.

    This is most of them, in a third of the time.
    """
    # orjson rounds integers of more digits than this.
    if len(body) > _COMPLETED_MAX_BYTES or b"0" * 19 in body.translate(_DIGITS):
        return None
    try:
        said = orjson.loads(body)
        if type(said) is not dict:
            return None
        whole = {**_WITHOUT, **said}
        if not (type(whole["publisher_id"]) is str and type(whole["type"]) is str):
            return None
        if whole["action"] is not None and whole["action"] not in _ACTIONS:
            return None
        if "id_" not in said:
            whole["id_"] = _new_id() if key is None else _id_of(key)
        if "data" not in said:
            whole["data"] = {}
        if "stats" not in said:
            whole["stats"] = _NO_TIMES
        elif not _complete_stats(whole):
            return None
        if not (type(whole["id_"]) is str and type(whole["data"]) is dict):
            return None
        return orjson.dumps(whole)
    except (TypeError, ValueError):
        return None


def _complete_stats(message: dict[str, Any]) -> bool:
    stats = message["stats"]
    if type(stats) is not dict:
        return False
    stats = message["stats"] = {**_NO_TIMES, **stats}
    return all(stats[name] is None or type(stats[name]) is str for name in _NO_TIMES)


def _identified(message: QueueMessage, key: str | None) -> QueueMessage:
    # A publish that comes again must be the same message, so what it leaves out is completed in the same way.
    if key is not None and "id_" not in message.model_fields_set:
        message.id_ = _id_of(key)
    return message


def _id_of(key: str) -> str:
    return str(uuid5(NAMESPACE_URL, f"urn:wakeq:{key}"))


def _parse(body: bytes) -> object:
    if not body:
        raise InvalidMessage("the body is empty", [_missing("body")])
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        raise InvalidMessage(f"the body is not JSON: {error}", [_json_invalid(error.pos, error.msg)]) from None
    except (ValueError, RecursionError):
        # Not UTF-8, nested too deeply, or an integer of more digits than Python takes.
        raise BadRequest("There was an error parsing the body") from None


def _validate(value: object) -> QueueMessage:
    try:
        return QueueMessage.model_validate(value, from_attributes=True)
    except ValidationError as error:
        errors = [{**e, "loc": ["body", *e["loc"]]} for e in error.errors(include_url=False)]
        raise InvalidMessage("the body is not a QueueMessage", errors) from None


def _dump(message: QueueMessage) -> bytes:
    try:
        return _to_json(message)
    except ValueError:
        # UTF-8 has no bytes for a lone surrogate; JSON has an escape.
        return json.dumps(_finite(message.model_dump(mode="python")), separators=(",", ":")).encode()


def _finite(value: Any) -> Any:
    """NaN and infinities become null, as the original's serializer has it."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _missing(*loc: str) -> dict[str, object]:
    return {"type": "missing", "loc": list(loc), "msg": "Field required", "input": None}


def _json_invalid(position: int, reason: str) -> dict[str, object]:
    return {
        "type": "json_invalid",
        "loc": ["body", position],
        "msg": "JSON decode error",
        "input": {},
        "ctx": {"error": reason},
    }
