"""Envelopes: a message with its attributes, one a line, so that a batch can say of each what headers say of one."""

import base64
import binascii
import json
import re
from typing import Any

from pydantic import ValidationError

from wakeq_server.core.model import NewMessage, TopicConfig
from wakeq_server.errors import BadValue, InvalidMessage
from wakeq_server.http import attributes, params, schemas

OCTETS = "application/octet-stream"

_value_at = json.JSONDecoder().raw_decode
_blank = re.compile(r"[ \t\r\n]*").match


class Envelope(params.Body):
    """One line; its body apart, when that is JSON."""

    body: Any = None
    body_b64: str | None = None
    content_type: str | None = None
    id: attributes.Key | None = None
    key: attributes.Key | None = None
    delay_s: params.DelaySeconds = 0.0
    ttl_s: params.TtlSeconds | None = None
    headers: attributes.MessageHeaders | None = None


def message(config: TopicConfig, line: bytes) -> NewMessage:
    """The message in a line, as the topic's schema has it. Raises BadValue naming the field, InvalidMessage."""
    value = schemas.check_json(line)
    envelope = _envelope(value)
    said = attributes.Attributes(envelope.id, envelope.key, envelope.delay_s, envelope.ttl_s, envelope.headers or None)
    said.check(config, delay="delay_s", ttl="ttl_s")
    if "body" in envelope.model_fields_set:
        body, content_type = raw_member(line.decode(), "body").encode(), None
    else:
        body, content_type = _decoded(envelope.body_b64 or ""), _content_type(config, envelope)
    return said.given_to(_valid(config, body, content_type, envelope.id))


def _envelope(value: object) -> Envelope:
    try:
        envelope = Envelope.model_validate(value)
    except ValidationError as error:
        raise params.refused(error) from None
    given = envelope.model_fields_set
    if ("body" in given) == (envelope.body_b64 is not None):
        raise BadValue("body", "an envelope has either body or body_b64")
    if "body" in given and envelope.content_type is not None:
        raise BadValue("content_type", "goes with body_b64; what is in body is JSON")
    return envelope


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadValue("body_b64", "must be base64") from None


def _content_type(config: TopicConfig, envelope: Envelope) -> str | None:
    if config.schema == "any":
        return _header_text(envelope.content_type or OCTETS)
    if envelope.content_type is not None:
        raise BadValue("content_type", "for topics whose schema is any; this one takes JSON")
    return None


def _header_text(value: str) -> str:
    # It becomes the header of an answer.
    if not value.isascii() or not value.isprintable():
        raise BadValue("content_type", "must be printable ASCII")
    return value


def _valid(config: TopicConfig, body: bytes, content_type: str | None, key: str | None) -> NewMessage:
    if content_type is not None:
        return NewMessage(body, content_type)
    return schemas.json_line(config.schema, body, key)


def raw_member(text: str, wanted: str) -> str:
    """A member of a JSON object as it is written there: digits and order that parsing would lose stay.

    The text is known to be an object with such a member. Raises InvalidMessage where it's nested too deeply.
    """
    found, at = "", text.index("{") + 1
    while True:
        name, at = _value_at(text, _skip(text, at))
        start = _skip(text, _skip(text, at) + 1)
        try:
            _, end = _value_at(text, start)
        except RecursionError:
            errors: list[dict[str, object]] = [{"type": "json_invalid", "loc": ["body"], "msg": "nested too deeply"}]
            raise InvalidMessage("the body is nested too deeply", errors) from None
        if name == wanted:
            found = text[start:end]
        at = _skip(text, end)
        if text[at] == "}":
            return found
        at += 1


def _skip(text: str, at: int) -> int:
    blank = _blank(text, at)
    assert blank is not None
    return blank.end()
