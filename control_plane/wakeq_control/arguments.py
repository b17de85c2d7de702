"""Whether a task's arguments are what its service takes, in words that say what it takes.

A schema is a JSON Schema of an object whose properties are the arguments. It is the service's, so nothing that it
refers to is fetched.
"""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator, SchemaError  # type: ignore[import-untyped]
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, EMPTY_REGISTRY

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


_KEPT_MAX = 256
_validators: dict[int, tuple[Mapping[str, Any], Any]] = {}
"""Those that were made, which takes as long as to use one, by the numbers of their schemas."""
_REFERENCES = ("$ref", "$dynamicRef")


def check_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema. Raises ValueError where it is none of an object, or refers to what isn't in it."""
    try:
        Draft202012Validator.check_schema(schema)
        _check_references(schema)
    except SchemaError as error:
        raise ValueError(f"is no JSON Schema: {error.message}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if schema.get("type") != "object":
        raise ValueError("must be of type object: its properties are the arguments")
    return schema


def _check_references(schema: dict[str, Any]) -> None:
    """Raises ValueError."""
    places = {id(part): place for place, part in _parts("", schema)}
    root = DRAFT202012.create_resource(schema)
    left = [(root, EMPTY_REGISTRY.resolver_with_root(root))]
    while left:
        part, resolver = left.pop()
        # A schema may be `true`, too.
        contents = part.contents if isinstance(part.contents, Mapping) else {}
        for reference in (contents[name] for name in _REFERENCES if name in contents):
            if not _leads_to_schema(resolver, reference):
                where = places[id(contents)] or "its root"
                raise ValueError(f"{where} refers to {reference!r}, which is no schema in it")
        left += [(sub, resolver.in_subresource(sub)) for sub in part.subresources()]


def _leads_to_schema(resolver: Any, reference: str) -> bool:
    try:
        return isinstance(resolver.lookup(reference).contents, Mapping | bool)
    except Unresolvable:
        return False


def _parts(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    """All values of a JSON value, with where they are."""
    yield place, value
    named = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in named:
        yield from _parts(f"{place}.{name}" if place else str(name), one)


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
    for problem in _wrong(schema, values):
        raise InvalidArguments(f"{problem}; {_takes(schema)}")


def _named(kind: str, names: list[str]) -> str:
    return f"{kind} argument{'s' * (len(names) > 1)} {', '.join(map(repr, names))}"


def _meant(unknown: list[str], missing: list[str], free: list[str]) -> str:
    close = difflib.get_close_matches(unknown[0], free, n=1)
    # One is missing and one is too much: it may have been renamed altogether.
    meant = close or (missing if len(missing) == len(unknown) == 1 else [])
    return f". Did you mean {meant[0]!r}?" if meant else ""


def _wrong(schema: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
    try:
        error = next(iter(_validator(schema).iter_errors(values)), None)
    except Unresolvable as unresolvable:
        return [f"the service's schema refers to what isn't in it: {unresolvable.ref}"]
    except RecursionError:
        return ["the service's schema refers to itself without end, or the values are nested too deeply"]
    if error is None:
        return []
    where = ".".join(map(str, error.absolute_path))
    return [f"{where}: {error.message}" if where else error.message]


def _validator(schema: Mapping[str, Any]) -> Any:
    kept = _validators.get(id(schema))
    if kept is None:
        if len(_validators) >= _KEPT_MAX:
            _validators.clear()
        # Together with its schema: the number is nobody else's as long as that is there.
        kept = _validators[id(schema)] = (schema, Draft202012Validator(schema, registry=EMPTY_REGISTRY))
    return kept[1]


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
