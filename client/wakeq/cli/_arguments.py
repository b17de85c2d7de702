"""A task's arguments, and events for it, as people type them."""

from typing import Any

import orjson

from wakeq.cli import _values
from wakeq.cli._talk import fail

_HOW = "write NAME=TEXT, NAME:=JSON, or one JSON object with all of them"


def arguments_of(words: list[str]) -> dict[str, Any]:
    """What `NAME=TEXT`, `NAME:=JSON` or one JSON object say. What is none of this ends with exit code 2."""
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        found = value_of(words[0], "the arguments are", _HOW)
        assert isinstance(found, dict)
        return found
    found = {}
    for word in words:
        name, equals, text = _values.utf8(word).partition("=")
        is_json = name.endswith(":")
        name = name.removesuffix(":")
        if not equals or not name:
            fail(f"{word!r} is no argument", _HOW, code=2)
        if name in found:
            fail(f"there are two arguments {name!r}", "give one of them", code=2)
        found[name] = value_of(text, f"argument {name!r} is", _HOW) if is_json else text
    return found


def value_of(text: str, what: str, hint: str) -> Any:
    """A JSON value. What is none ends with exit code 2."""
    try:
        return orjson.loads(_values.utf8(text))
    except orjson.JSONDecodeError as error:
        fail(f"{what} not JSON: {error.msg}, line {error.lineno}, column {error.colno}", hint, code=2)
