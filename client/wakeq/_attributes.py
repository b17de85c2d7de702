"""What a publish says about its message, as headers (section 3 of docs/protocol.md)."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from wakeq._errors import BadRequest
from wakeq._json import without_none
from wakeq._wire import Header

# RFC 9110, 5.6.2: what a header's name is made of.
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_TRACE = "traceparent"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def publish_headers(
    delay_s: float | None,
    ttl_s: float | None,
    key: str | None,
    headers: Mapping[str, str],
    idempotency_key: str | None,
) -> Iterator[Header]:
    """The headers of one publish. Raises BadRequest naming what no header can carry."""
    if delay_s is not None:
        yield b"wakeq-delay", str(delay_s).encode()
    if ttl_s is not None:
        yield b"wakeq-ttl", str(ttl_s).encode()
    if key is not None:
        yield b"wakeq-ordering-key", _value("key", key)
    if idempotency_key is not None:
        yield b"idempotency-key", _value("idempotency_key", idempotency_key)
    for name, value in headers.items():
        yield _name(name), _value(f"headers.{name}", value)


def envelope_fields(
    delay_s: float | None,
    ttl_s: float | None,
    key: str | None,
    headers: Mapping[str, str],
    idempotency_key: str | None,
) -> dict[str, Any]:
    """The same in an envelope. Names of headers are in lower case there too."""
    fields: dict[str, Any] = {"delay_s": delay_s, "ttl_s": ttl_s, "key": key, "id": idempotency_key}
    if headers:
        fields["headers"] = {name.lower(): value for name, value in headers.items()}
    return without_none(fields)


def _name(name: str) -> bytes:
    lower = name.lower()
    if not lower or not _TOKEN.issuperset(lower):
        raise BadRequest(f"headers: {name!r} has other characters than letters, digits and !#$%&'*+-.^_`|~")
    # A trace goes by its own name, which others on the way know too.
    return lower.encode() if lower == _TRACE else b"wakeq-h-" + lower.encode()


def _value(name: str, value: str) -> bytes:
    # White space around a header's value is taken off on the way, so another value would arrive.
    if value != value.strip(" \t") or _CONTROL.search(value):
        raise BadRequest(f"{name}: a header can't carry control characters, or white space at either end")
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise BadRequest(f"{name}: must be UTF-8") from None
