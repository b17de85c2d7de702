"""JSON Schemas of topics (Draft 2020-12), compiled once.

Nothing is ever fetched: what a schema refers to is in it.
"""

from collections import OrderedDict
from collections.abc import Mapping
from itertools import islice
from typing import Any

import orjson
from jsonschema import Draft202012Validator, SchemaError  # type: ignore[import-untyped]
from referencing import Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, EMPTY_REGISTRY

from wakeq_server.errors import InvalidMessage
from wakeq_server.settings import SCHEMA_ERROR_MAX, SCHEMA_ERRORS_MAX

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_KEPT = 1_000

# By identity, which costs a publish nothing; each schema is held here, so no other can have its id.
_compiled: OrderedDict[int, tuple[Mapping[str, Any], Draft202012Validator]] = OrderedDict()


def compiled(schema: Mapping[str, Any]) -> Draft202012Validator:
    """A schema's validator. Raises ValueError saying what is wrong with the schema."""
    found = _compiled.get(id(schema))
    if found is not None:
        return found[1]
    validator = _compile(schema)
    _compiled[id(schema)] = (schema, validator)
    if len(_compiled) > _KEPT:
        _compiled.popitem(last=False)
    return validator


def _compile(schema: Mapping[str, Any]) -> Draft202012Validator:
    if schema.get("$schema", _DIALECT) not in (_DIALECT, _DIALECT + "#"):
        raise ValueError(f"$schema must be {_DIALECT}")
    _check_showable(schema)
    try:
        Draft202012Validator.check_schema(schema)
        resource: Resource[Any] = DRAFT202012.create_resource(schema)
        registry = EMPTY_REGISTRY.with_resource(resource.id() or "", resource)
        _check_references(resource, registry.resolver_with_root(resource))
    except SchemaError as error:
        where = "/".join(map(str, error.absolute_path))
        raise ValueError(f"not a JSON Schema: {where and f'at {where}: '}{error.message[:SCHEMA_ERROR_MAX]}") from None
    except Unresolvable as error:
        raise ValueError(f"refers to {error.ref}, which is not in it; nothing is fetched") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return Draft202012Validator(schema, registry=registry)


def _check_showable(schema: Mapping[str, Any]) -> None:
    """A topic's schema is shown with it, so it has to come out as it went in."""
    try:
        same = orjson.loads(orjson.dumps(schema)) == schema
    except TypeError:
        same = False
    if not same:
        raise ValueError("its numbers must be finite, and its integers must have at most 64 bits")


def _check_references(resource: Resource[Any], resolver: Any) -> None:
    if isinstance(resource.contents, Mapping):
        for word in ("$ref", "$dynamicRef"):
            if word in resource.contents:
                resolver.lookup(resource.contents[word])
    for part in resource.subresources():
        _check_references(part, resolver.in_subresource(part))


def check(schema: Mapping[str, Any], value: object) -> None:
    """Raises InvalidMessage unless the value is what the schema asks for."""
    try:
        errors = list(islice(compiled(schema).iter_errors(value), SCHEMA_ERRORS_MAX))
    except RecursionError:
        raise InvalidMessage("the body is nested too deeply", [_error(["body"], "nested too deeply")]) from None
    if errors:
        listed = [_error(["body", *error.absolute_path], error.message) for error in errors]
        # The sentence alone is what a line of a batch is answered with.
        first = errors[0]
        where = "".join(f" {step}:" for step in first.absolute_path)
        why = f"{where} {first.message}"[:SCHEMA_ERROR_MAX]
        raise InvalidMessage(f"the body is not what the topic's schema asks for:{why}", listed)


def _error(loc: list[str | int], msg: str) -> dict[str, object]:
    return {"type": "json_schema", "loc": loc, "msg": msg[:SCHEMA_ERROR_MAX]}
