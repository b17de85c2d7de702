"""Arguments that come as text, because a command line has nothing else, as the values that a service takes."""

import json
from collections.abc import Mapping
from typing import Any

_TEXT = ("string", None)


def typed(schema: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, with texts read as JSON where the schema has a parameter that takes no text."""
    known = schema.get("properties", {})
    return {name: _read(value) if _takes_no_text(known.get(name)) else value for name, value in values.items()}


def _takes_no_text(about: Any) -> bool:
    if not isinstance(about, Mapping):
        return False
    for several in ("anyOf", "oneOf"):
        if several in about:
            return all(_takes_no_text(one) for one in about[several])
    said = about.get("type")
    kinds = said if isinstance(said, list) else [said]
    return "$ref" not in about and not any(kind in _TEXT for kind in kinds)


def _read(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
