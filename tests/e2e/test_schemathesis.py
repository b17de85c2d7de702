"""The server against its own description: whatever is asked, right or wrong, the answer is one that openapi.yaml names.

Examples are generated from the document, the same ones each time. They are about topics that exist, or may not.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from schemathesis import GenerationMode, SerializationContext, checks
from schemathesis.openapi import from_dict

from tests.support.server import start_server
from wakeq_server.http.service import openapi_document
from wakeq_server.settings import WAIT_MAX_S

EXAMPLES = 25
FAIL_S = 20.0
TOPICS: dict[str, dict[str, Any]] = {
    "queue-message": {"schema": "queue_message"},
    "json": {"schema": "json", "max_deliveries": 1},
    "any": {"schema": "any"},
    "json-schema": {"schema": {"type": "object", "required": ["a"]}},
    "full": {"max_messages": 1},
}
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


def narrowed() -> dict[str, Any]:
    """The document without endless answers, its requests about the topics and groups that this test makes, or none."""
    document: dict[str, Any] = openapi_document()
    named: dict[str, list[str]] = {"topic": [*TOPICS, "missing"], "group": ["default", "g", "missing"]}
    items = [document["components"]["parameters"], *document["paths"].values()]
    for parameter in [one for item in items for one in (item.get("parameters") or item.values())]:
        if isinstance(parameter, dict) and parameter.get("name") in named:
            parameter["schema"] = {"enum": named[parameter["name"]]}
    for path, item in list(document["paths"].items()):
        if list(item.get("get", {}).get("responses", {}).get("200", {}).get("content", ())) == ["text/event-stream"]:
            del document["paths"][path]
    return document


@schemathesis.serializer("application/x-ndjson", "application/vnd.wakeq.envelopes+x-ndjson")
def one_line(_: SerializationContext, value: Any) -> bytes:
    return json.dumps(value).encode()


class Asked(NamedTuple):
    operation: Any
    mode: GenerationMode

    def __str__(self) -> str:
        return f"{self.operation.label} {self.mode.value}"


def all_asked() -> list[Asked]:
    described: Any = from_dict(narrowed())
    operations = [result.ok() for result in described.get_all_operations()]
    negatable = [operation for operation in operations if operation.body or any(operation.iter_parameters())]
    return [Asked(one, GenerationMode.POSITIVE) for one in operations] + [
        Asked(one, GenerationMode.NEGATIVE) for one in negatable
    ]


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    arguments = ("--legacy-wait", "0", "--drain", "0")
    with start_server(tmp_path_factory.mktemp("data"), *arguments, durability="os") as server:
        with httpx.Client(base_url=server.url, timeout=FAIL_S) as client:
            yield client
        assert server.terminate() == 0
        assert not server.events("raw"), "something was written past the log, a traceback perhaps"


@pytest.fixture
def base_url(http: httpx.Client) -> str:
    """Of a server whose topics are as ever, each with a message, in two groups."""
    for name, config in TOPICS.items():
        http.delete(f"/topics/{name}")
        assert http.put(f"/topics/{name}", json=config).status_code == 201
        assert http.put(f"/topics/{name}/groups/g").status_code == 201
        assert http.post(f"/messages/{name}", json={"a": 1}).status_code == 200
    return str(http.base_url)


def hurry(case: Any) -> None:
    """Waits that the server would take are cut short."""
    for values, name in ((case.query, "wait"), (case.body, "wait_s")):
        wait = values.get(name) if isinstance(values, dict) else None
        if isinstance(wait, int | float) and 0 < wait <= WAIT_MAX_S:
            values[name] = 0.01


@pytest.mark.parametrize("asked", all_asked(), ids=str)
def test_every_answer_is_described(base_url: str, asked: Asked) -> None:
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(case=asked.operation.as_strategy(generation_mode=asked.mode))
    def ask(case: Any) -> None:
        # Not quoted, this ends the path, and another call is made than the one that is looked up.
        assume("#" not in case.formatted_path)
        hurry(case)
        case.validate_response(case.call(base_url=base_url, timeout=FAIL_S), checks=CHECKS)

    ask()
