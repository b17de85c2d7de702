"""What is said of arguments that a service doesn't take."""

from typing import Any

import pytest

from wakeq_control.arguments import check_input
from wakeq_control.errors import InvalidArguments
from wakeq_control.schemas import check_schema

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "user_msg": {"type": "string"},
        "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "who": {"$ref": "#/$defs/Person"},
    },
    "required": ["user_msg"],
    "additionalProperties": False,
    "$defs": {"Person": {"type": "object", "required": ["name"]}},
}
TAKES = "this service takes: user_msg (required, str), limit (optional, int | None), who (optional, Person)"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ('{"resume": "x"}', f"unknown argument 'resume'; {TAKES}. Did you mean 'user_msg'?"),
        ('{"user_msg": "x", "limits": 1}', f"unknown argument 'limits'; {TAKES}. Did you mean 'limit'?"),
        ('{"user_msg": "x", "a": 1, "b": 2}', f"unknown arguments 'a', 'b'; {TAKES}"),
        ("{}", f"missing argument 'user_msg'; {TAKES}"),
        ('{"user_msg": 1}', f"user_msg: 1 is not of type 'string'; {TAKES}"),
        ('{"user_msg": "x", "who": {}}', f"who: 'name' is a required property; {TAKES}"),
        ("[]", f"the input must be a JSON object with an argument for each key; {TAKES}"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_what_is_taken(given: str, said: str) -> None:
    with pytest.raises(InvalidArguments) as refused:
        check_input(SCHEMA, given)
    assert refused.value.detail == said


@pytest.mark.parametrize(
    "given", ['{"user_msg": "x"}', '{"user_msg": "x", "limit": null, "who": {"name": "Ann", "age": 3}}']
)
def test_what_is_taken_passes(given: str) -> None:
    check_input(SCHEMA, given)


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(InvalidArguments, match=r"the input is not JSON: .*; this service takes: user_msg"):
        check_input(SCHEMA, "{")


def test_without_a_schema_anything_passes() -> None:
    check_input(None, "no JSON")


def test_a_schema_is_never_fetched() -> None:
    schema = {"type": "object", "properties": {"n": {"$ref": "http://127.0.0.1:9/schema"}}}
    with pytest.raises(InvalidArguments, match="the service's schema refers to what isn't in it"):
        check_input(schema, '{"n": 1}')


@pytest.mark.parametrize(
    ("schema", "said"),
    [({"type": "object", "properties": 3}, "is no JSON Schema"), ({"type": "array"}, "of type object")],
)
def test_a_schema_that_is_none_is_refused(schema: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_schema(schema)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"properties": {"who": {"$ref": "#/$defs/Ann"}}}, "properties.who refers to '#/$defs/Ann'"),
        ({"properties": {"n": {"$ref": "http://127.0.0.1:9/n"}}}, "properties.n refers to 'http://127.0.0.1:9/n'"),
        ({"$defs": {"A": {"anyOf": [{}, {"$ref": "#b"}]}}}, r"$defs.A.anyOf.1 refers to '#b'"),
        ({"$dynamicRef": "#nobody"}, "its root refers to '#nobody'"),
        ({"$defs": {"A": {"enum": [1]}}, "$ref": "#/$defs/A/enum"}, "its root refers to '#/$defs/A/enum'"),
    ],
)
def test_a_schema_that_refers_to_what_is_not_in_it_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match="which is no schema in it") as refused:
        check_schema({"type": "object", **more})
    assert str(refused.value).startswith(said)


def test_what_only_looks_like_a_reference_is_none() -> None:
    check_schema({"type": "object", "properties": {"$ref": {"const": {"$ref": "#/nowhere"}}}})
    check_schema({"type": "object", "$defs": {"A": {"$anchor": "a"}}, "properties": {"n": {"$ref": "#a"}, "m": True}})
    check_schema(SCHEMA)


def test_a_schema_that_is_nested_too_deeply_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(5_000):
        schema = {"not": schema}
    with pytest.raises(ValueError, match="nested too deeply"):
        check_schema({"type": "object", "properties": {"n": schema}})


def test_a_schema_that_refers_to_itself_without_end_takes_nothing() -> None:
    schema = check_schema({"type": "object", "properties": {"n": {"$ref": "#/properties/n"}}})
    with pytest.raises(InvalidArguments, match="refers to itself without end"):
        check_input(schema, '{"n": 1}')
