"""Whether a task's arguments are what its service takes, in words that say what it takes.

A schema is a JSON Schema of an object whose properties are the arguments.
"""

import difflib
from collections.abc import Mapping
from typing import Any

from wakeq_control.codec import load
from wakeq_control.errors import InvalidArguments

_PYTHON = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "array": "list",
    "object": "dict",
    "null": "None",
}


def check_input(schema: Mapping[str, Any] | None, text: str) -> None:
    """A task's input, which is JSON; without a schema anything passes. Raises InvalidArguments."""
    if schema is None:
        return
    try:
        values = load(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArguments(f"the input is not JSON: {error}; {_takes(schema)}") from None
    if not isinstance(values, dict):
        raise InvalidArguments(f"the input must be a JSON object with an argument for each key; {_takes(schema)}")
    check(schema, values)


def check(schema: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Raises InvalidArguments."""
    known = schema.get("properties", {})
    unknown = [] if schema.get("additionalProperties", True) else [name for name in values if name not in known]
    missing = [name for name in schema.get("required", ()) if name not in values]
    if unknown:
        # What is missing shows by what is taken.
        hint = _meant(unknown, missing, [name for name in known if name not in values])
        raise InvalidArguments(f"{_named('unknown', unknown)}; {_takes(schema)}{hint}")
    if missing:
        raise InvalidArguments(f"{_named('missing', missing)}; {_takes(schema)}")
    # Takes long to load, and services that take any arguments don't need it.
    from wakeq_control.schemas import problem_with  # noqa: PLC0415

    problem = problem_with(schema, values)
    if problem is not None:
        raise InvalidArguments(f"{problem}; {_takes(schema)}")


def _named(kind: str, names: list[str]) -> str:
    return f"{kind} argument{'s' * (len(names) > 1)} {', '.join(map(repr, names))}"


def _meant(unknown: list[str], missing: list[str], free: list[str]) -> str:
    close = difflib.get_close_matches(unknown[0], free, n=1)
    # One is missing and one is too much: it may have been renamed altogether.
    meant = close or (missing if len(missing) == len(unknown) == 1 else [])
    return f". Did you mean {meant[0]!r}?" if meant else ""


def _takes(schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    shown = [
        f"{name} ({'required' if name in required else 'optional'}, {_type(about)})"
        for name, about in schema.get("properties", {}).items()
    ]
    return f"this service takes: {', '.join(shown) or 'no arguments'}"


def _type(about: Any) -> str:
    if not isinstance(about, Mapping):
        return "Any"
    for several in ("anyOf", "oneOf"):
        if several in about:
            return " | ".join(dict.fromkeys(_type(one) for one in about[several]))
    if "$ref" in about:
        return str(about["$ref"]).rpartition("/")[2]
    said = about.get("type")
    kinds = said if isinstance(said, list) else [said]
    return " | ".join(_PYTHON.get(str(kind), "Any") for kind in kinds)
