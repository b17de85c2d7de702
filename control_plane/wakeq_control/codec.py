"""JSON of whatever clients and services say: kept as it came, whatever is in it.

Python's own parser takes what faster ones refuse and users have: integers of any size, lone surrogates, NaN.
"""

import json
from typing import Any

from pydantic_core import to_json

# What is stored stands in rows, which are nested a little deeper.
_SPARE = 16


def load(text: bytes | str) -> Any:
    """The value. Raises ValueError, RecursionError."""
    return json.loads(text)


def dump(value: object) -> bytes:
    """Compact JSON in UTF-8, NaN as null; in ASCII what UTF-8 has no bytes for."""
    try:
        return to_json(value, inf_nan_mode="null")
    except ValueError:
        return json.dumps(value, separators=(",", ":")).encode()


def dump_line(value: object) -> bytes:
    """JSON as llama_deploy streams it: a line, in ASCII. Raises RecursionError."""
    return json.dumps(value).encode() + b"\n"


def is_storable(value: Any) -> bool:
    """Whether it can be dumped wherever it will stand; what is nested too deeply can't."""
    for _ in range(_SPARE):
        value = [value]
    try:
        json.dumps(value)
    except RecursionError:
        return False
    return True
