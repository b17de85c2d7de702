"""A delivery as other programs are given it: by their environment and stdin, or as a line."""

import base64
import re
from typing import Any

import orjson

import wakeq


def attributes(delivery: wakeq.Delivery) -> dict[str, str]:
    """What a message says of itself, as a command's environment has it."""
    said = {
        "TOPIC": delivery.topic,
        "SEQ": str(delivery.seq),
        "ATTEMPT": str(delivery.attempt),
        "PUBLISHED_AT": delivery.published_at.isoformat(),
        "ID": delivery.id,
        "KEY": delivery.key,
        "CONTENT_TYPE": delivery.content_type,
    }
    said |= {f"HEADER_{re.sub('[^A-Z0-9]', '_', name.upper())}": value for name, value in delivery.headers.items()}
    # An environment has no form for a NUL.
    return {f"WAKEQ_{name}": value for name, value in said.items() if value is not None and "\0" not in value}


def body_of(delivery: wakeq.Delivery) -> bytes:
    """A message's body as it was published, or as JSON on one line."""
    body: bytes = delivery.body if delivery.content_type is not None else orjson.dumps(delivery.body)
    return body


def whole(delivery: wakeq.Delivery) -> bytes:
    """A delivery as a line of JSON, its fields named as in the protocol."""
    said: dict[str, Any] = {
        "topic": delivery.topic,
        "seq": delivery.seq,
        "id": delivery.id,
        "lease_id": delivery.lease_id,
        "lease_expires_at": delivery.lease_expires_at,
        "attempt": delivery.attempt,
        "published_at": delivery.published_at,
        "key": delivery.key,
        "headers": delivery.headers,
    }
    if delivery.content_type is None:
        said["body"] = delivery.body
    else:
        said |= {"body_b64": base64.b64encode(delivery.body).decode(), "content_type": delivery.content_type}
    return orjson.dumps(said, option=orjson.OPT_UTC_Z)
