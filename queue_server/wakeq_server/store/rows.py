"""Records as rows of the database, and back.

Every row carries a checksum of its other columns (and a message one of its body too): SQLite finds a damaged page by
its structure, not a flipped bit in a value. Instants are whole microseconds, since a float that has been text may come
back as its neighbour, and the checksum with it.

Rows travel as one JSON array. Each is encoded by itself, so that its checksum is that of the bytes which are sent.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any
from zlib import crc32

import orjson

from wakeq_server.core.model import (
    GroupPut,
    HistorySet,
    KeySeen,
    Message,
    PushPut,
    TopicConfig,
    TopicPut,
)

SEQ_BITS = 39
"""Of a message's number in the database; above them is the slot of its topic."""
SEQ_MASK = (1 << SEQ_BITS) - 1

Row = tuple[Any, ...]


class Damaged(Exception):
    """A row is not what was written; ``str()`` names it."""


def sealed(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as a JSON array, each with its checksum as its last element."""
    return (b"[" + b",".join(map(_sealed, rows)) + b"]").decode()


def _sealed(row: Sequence[Any]) -> bytes:
    text = orjson.dumps(row)
    return b"%b,%d]" % (text[:-1], crc32(text))


def opened(row: Row, what: str) -> Row:
    """A row without its checksum, which is the last element. Raises Damaged."""
    if crc32(orjson.dumps(row[:-1])) != row[-1]:
        raise Damaged(f"a row of {what} is damaged")
    return row[:-1]


def keys(named: Iterable[Any]) -> str:
    """What rows are named by, as a JSON array."""
    return orjson.dumps(list(named), default=list).decode()


def micros(seconds: float) -> int:
    """Seconds as they are kept."""
    return round(seconds * 1e6)


def seconds(kept: int) -> float:
    """And back."""
    return kept / 1e6


def _optional_micros(instant: float | None) -> int | None:
    return None if instant is None else micros(instant)


def _optional_seconds(kept: int | None) -> float | None:
    return None if kept is None else seconds(kept)


# Clients' texts are kept as JSON: SQLite ends one from `json_each` at U+0000, and can't read a lone surrogate back.
def _pack(value: Any) -> str | None:
    return None if value is None else json.dumps(value)


def _unpack(text: str | None) -> Any:
    return None if text is None else json.loads(text)


# By table: the columns in the order of the row, and how a record becomes one.

TOPIC = "id, slot, name, config, created_at, paused, crc"
GROUP = "topic, id, name, start, cursor, crc"
PUSH = "topic, name, id, grp, url, max_in_flight, timeout, crc"
MESSAGE = "id, size, published_at, content_type, headers, message_id, key, due_at, expires_at, body_crc, crc"
PLAIN_MESSAGE = "id, size, published_at, body_crc, crc, body"
"""The rest is NULL."""
HISTORY = "topic, grp, seq, standing, attempt, due_at, span, epoch, number, reason, crc"
SEEN = "topic, digest, fingerprint, first_seq, count, expires_at, crc"


def topic_row(record: TopicPut, slot: int) -> Row:
    """Of a topic."""
    config = {field.name: getattr(record.config, field.name) for field in fields(record.config)}
    if isinstance(record.config.schema, Mapping):
        config["schema"] = dict(record.config.schema)
    paused = int(record.paused)
    return record.topic_id, slot, record.name, json.dumps(config), micros(record.created_at), paused


def topic_of(row: Row) -> TopicPut:
    """And back. Raises Damaged."""
    topic_id, _, name, config, created_at, paused = opened(row, "topics")
    return TopicPut(topic_id, name, TopicConfig(**json.loads(config)), seconds(created_at), bool(paused))


def group_row(record: GroupPut) -> Row:
    """Of a group."""
    return tuple(record)


def group_of(row: Row) -> GroupPut:
    """And back. Raises Damaged."""
    return GroupPut(*opened(row, "groups"))


def push_row(record: PushPut) -> Row:
    """Of a push."""
    return (*record[:-1], micros(record.timeout_s))


def push_of(row: Row) -> PushPut:
    """And back. Raises Damaged."""
    topic, name, push_id, group, url, max_in_flight, timeout = opened(row, "pushes")
    return PushPut(topic, name, push_id, group, url, max_in_flight, seconds(timeout))


def message_row(number: int, message: Message, body: bytes) -> Row:
    """Of a message, but for its body."""
    headers = None if message.headers is None else _pack(dict(message.headers))
    return (
        number,
        message.size,
        micros(message.published_at),
        message.content_type,
        headers,
        _pack(message.id),
        _pack(message.key),
        _optional_micros(message.due_at),
        _optional_micros(message.expires_at),
        crc32(body),
    )


def message_values(numbered: Iterable[tuple[int, Message]]) -> tuple[list[Any], list[Any]]:
    """Of messages with their numbers: value by value, checksums and body included.

    First of those for which `PLAIN_MESSAGE` says all, then of the others by `MESSAGE`, with the body behind it.
    """
    plain: list[Any] = []
    others: list[Any] = []
    published_at, published = 0.0, 0
    for number, message in numbered:
        body, size, at = message.body, message.size, message.published_at
        assert body is not None
        if message[_AFTER_PUBLISHED_AT:] != _NOTHING_SAID:
            row = message_row(number, message, body)
            others += row
            others += (crc32(orjson.dumps(row)), body)
            continue
        # Nearly all are such, and come many at one moment; the same as the above.
        if at != published_at:
            published_at, published = at, micros(at)
        body_crc = crc32(body)
        crc = crc32(b"[%d,%d,%d,null,null,null,null,null,null,%d]" % (number, size, published, body_crc))
        # Python's sqlite3 asks of bytes, but not of a bytearray, whether they are to be adapted.
        plain += (number, size, published, body_crc, crc, bytearray(body))
    return plain, others


_AFTER_PUBLISHED_AT = Message._fields.index("published_at") + 1
_NOTHING_SAID = (None,) * (len(Message._fields) - _AFTER_PUBLISHED_AT)


def message_of(row: Row, body: bytes | None) -> Message:
    """And back, with or without the body. Raises Damaged."""
    number, size, published, kind, headers, message_id, key, due, expires, body_crc = opened(row, "messages")
    if body is not None and crc32(body) != body_crc:
        raise Damaged("the body of a message is damaged")
    return Message(
        number & SEQ_MASK,
        body,
        size,
        seconds(published),
        kind,
        _unpack(headers),
        _unpack(message_id),
        _unpack(key),
        _optional_seconds(due),
        _optional_seconds(expires),
    )


def history_row(record: HistorySet) -> Row:
    """Of a message's history in a group."""
    topic, group, seq, standing, attempt, due_at, span_s, epoch, number, reason = record
    return topic, group, seq, standing, attempt, micros(due_at), micros(span_s), epoch, number, _pack(reason)


def history_of(row: Row) -> HistorySet:
    """And back. Raises Damaged."""
    topic, group, seq, standing, attempt, due, span, epoch, number, reason = opened(row, "histories")
    return HistorySet(topic, group, seq, standing, attempt, seconds(due), seconds(span), epoch, number, _unpack(reason))


def key_row(record: KeySeen) -> Row:
    """Of an idempotency key."""
    digest, fingerprint = record.digest.hex(), record.fingerprint.hex()
    return record.topic_id, digest, fingerprint, record.first_seq, record.count, micros(record.expires_at)


def key_of(row: Row) -> KeySeen:
    """And back. Raises Damaged."""
    topic, digest, fingerprint, first_seq, count, expires = opened(row, "keys")
    return KeySeen(topic, bytes.fromhex(digest), bytes.fromhex(fingerprint), first_seq, count, seconds(expires))
