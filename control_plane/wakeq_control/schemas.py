"""JSON Schemas of services' arguments. They are the services', so nothing that they refer to is fetched."""

from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator, SchemaError  # type: ignore[import-untyped]
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, EMPTY_REGISTRY

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


def problem_with(schema: Mapping[str, Any], values: Mapping[str, Any]) -> str | None:
    """Why a schema doesn't allow these values; None: it does."""
    try:
        error = next(iter(_validator(schema).iter_errors(values)), None)
    except Unresolvable as unresolvable:
        return f"the service's schema refers to what isn't in it: {unresolvable.ref}"
    except RecursionError:
        return "the service's schema refers to itself without end, or the values are nested too deeply"
    if error is None:
        return None
    where = ".".join(map(str, error.absolute_path))
    return f"{where}: {error.message}" if where else str(error.message)


def _validator(schema: Mapping[str, Any]) -> Any:
    kept = _validators.get(id(schema))
    if kept is None:
        if len(_validators) >= _KEPT_MAX:
            _validators.clear()
        # Together with its schema: the number is nobody else's as long as that is there.
        kept = _validators[id(schema)] = (schema, Draft202012Validator(schema, registry=EMPTY_REGISTRY))
    return kept[1]


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
