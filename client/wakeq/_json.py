"""JSON as it comes from a server, whatever a publisher has put in."""

import json
from typing import Any

import orjson


def loads(text: bytes | str) -> Any:
    """The value. Raises ValueError.

    A lone surrogate, which JSON can escape and the fast parser refuses, must not stop a consumer: the message would
    come again and again.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)
