"""JSON as it goes to a server, and as it comes, whatever a publisher has put in."""

import json
from collections.abc import Mapping
from typing import Any

import orjson


def without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """What is said: a field of the protocol that is left out has its default."""
    return {name: value for name, value in values.items() if value is not None}


def loads(text: bytes | str) -> Any:
    """The value. Raises ValueError.

    A lone surrogate, which JSON can escape and the fast parser refuses, must not stop a consumer: the message would
    come again and again.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)
