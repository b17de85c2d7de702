"""The OpenAPI document is valid, complete, and says what the server does."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from tests.support.asgi import ask
from wakeq_server import settings
from wakeq_server.app import build_app
from wakeq_server.core.model import ConsumerInfo, PresenceEvent, Push, PushConfig, PushStanding, TopicConfig
from wakeq_server.engine.clocks import Clocks
from wakeq_server.engine.embedded import open_engine
from wakeq_server.http import envelopes, params
from wakeq_server.http.routes import App
from wakeq_server.http.service import openapi_document
from wakeq_server.http.wire import STATUS, push_json
from wakeq_server.settings import Settings
from wakeq_server.store.memory import MemoryStore

pytestmark = pytest.mark.anyio
DOCUMENT: dict[str, Any] = openapi_document()
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def an_app(*, draining: bool = False) -> AsyncIterator[App]:
    """A draining one refuses the streams, which would have no end."""
    async with open_engine(MemoryStore(1), Clocks(lambda: 0.0, lambda: 0.0)) as engine:
        if draining:
            engine.drain()
        yield build_app(engine, Settings(durability="memory", legacy_wait=0), "0")


def calls() -> set[tuple[str, str]]:
    return {(method, path) for path, item in DOCUMENT["paths"].items() for method in METHODS if method.lower() in item}


def test_document_is_valid() -> None:
    validate(DOCUMENT)


async def test_every_documented_call_exists_and_no_other() -> None:
    async with an_app(draining=True) as app:
        for path in {path for _, path in calls()}:
            answers = {
                method: await ask(app, method, path.format(topic="t", group="g", name="n")) for method in METHODS
            }
            exist = {method for method, answer in answers.items() if answer.status != 405}
            assert exist == {method for method, other in calls() if other == path}, path


async def test_document_is_served_with_nothing_fetched_from_elsewhere() -> None:
    async with an_app() as app:
        answer = await ask(app, "GET", "/openapi.json")
        assert json.loads(answer.body) == DOCUMENT
        for path in ("/docs", "/redoc"):
            page = (await ask(app, "GET", path)).body.decode()
            assert "/messages/{topic}/claim" in page
            assert "src=" not in page
            assert "http" not in page.replace("http-equiv", "")


def test_limits_are_those_of_the_settings() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    claim = schemas["Claim"]["properties"]
    assert (claim["max"]["maximum"], claim["wait_s"]["maximum"]) == (settings.CLAIM_MAX, settings.WAIT_MAX_S)
    lease = schemas["TopicConfig"]["properties"]["lease_s"]
    assert (lease["minimum"], lease["maximum"]) == (settings.LEASE_MIN_S, settings.LEASE_MAX_S)
    names = {field.alias or name for name, field in params.TopicBody.model_fields.items()}
    assert set(schemas["TopicConfig"]["properties"]) == names
    assert set(claim) == set(params.ClaimBody.model_fields)
    assert set(schemas["Settle"]["properties"]) == set(params.SettleBody.model_fields)
    assert set(schemas["Envelope"]["properties"]) == set(envelopes.Envelope.model_fields)
    assert set(schemas["Redrive"]["properties"]) == set(params.RedriveBody.model_fields)


def test_limits_and_defaults_of_pushes_are_those_of_the_settings() -> None:
    push, fields = DOCUMENT["components"]["schemas"]["Push"]["properties"], params.PushBody.model_fields
    assert set(push) == set(fields)
    assert push["url"]["maxLength"] == settings.PUSH_URL_MAX
    in_flight, timeout = push["max_in_flight"], push["timeout_s"]
    assert (in_flight["minimum"], in_flight["maximum"]) == (1, settings.PUSH_IN_FLIGHT_MAX)
    assert (timeout["minimum"], timeout["maximum"]) == (settings.PUSH_TIMEOUT_MIN_S, settings.PUSH_TIMEOUT_MAX_S)
    assert {name: field["default"] for name, field in push.items() if name != "url"} == {
        name: field.default for name, field in fields.items() if name != "url"
    }
    shown = push_json(Push("t", "p", 1, PushConfig("http://x")), PushStanding())
    assert list(DOCUMENT["components"]["schemas"]["PushInfo"]["properties"]) == list(shown)


def test_limits_of_publishes_and_looks_are_those_of_the_settings() -> None:
    schemas, paths = DOCUMENT["components"]["schemas"], DOCUMENT["paths"]
    envelope, config = schemas["Envelope"]["properties"], schemas["TopicConfig"]["properties"]
    publish = {parameter["name"]: parameter["schema"] for parameter in paths["/messages/{topic}"]["post"]["parameters"]}
    for delay in (envelope["delay_s"], publish["Wakeq-Delay"]):
        assert (delay["minimum"], delay["maximum"]) == (0, settings.DELAY_MAX_S)
    for ttl in (envelope["ttl_s"], publish["Wakeq-TTL"], config["ttl_s"], config["dead_ttl_s"]):
        assert (ttl["minimum"], ttl["maximum"]) == (settings.TTL_MIN_S, settings.TTL_MAX_S)
    assert schemas["Key"]["maxLength"] == settings.KEY_MAX
    window = config["dedup_window_s"]
    assert (window["minimum"], window["maximum"]) == (settings.DEDUP_WINDOW_MIN_S, settings.DEDUP_WINDOW_MAX_S)
    assert config["max_deliveries"]["maximum"] == settings.DELIVERIES_MAX
    for room in (config["max_messages"], config["max_bytes"]):
        assert (room["minimum"], room["maximum"]) == (1, settings.ROOM_MAX)
    peek = {p["name"]: p["schema"] for p in paths["/topics/{topic}/messages"]["get"]["parameters"] if "name" in p}
    assert (peek["limit"]["maximum"], peek["limit"]["default"]) == (settings.PEEK_MAX, settings.PEEK)


def test_limits_of_consumers_are_those_of_the_settings() -> None:
    assert DOCUMENT["components"]["parameters"]["consumer"]["schema"]["maxLength"] == settings.CONSUMER_MAX
    schemas = DOCUMENT["components"]["schemas"]
    assert tuple(schemas["Consumer"]["properties"]) == ConsumerInfo._fields
    assert {*schemas["PresenceEvent"]["properties"]} == {*PresenceEvent._fields} - {"number", "kind"}


def test_defaults_of_topics_are_those_of_the_model() -> None:
    for name, field in DOCUMENT["components"]["schemas"]["TopicConfig"]["properties"].items():
        if "default" in field and name != "kind":
            assert field["default"] == getattr(TopicConfig(), name)


def test_every_call_says_that_it_may_ask_for_a_token_and_be_too_slow() -> None:
    for method, path in calls():
        call = DOCUMENT["paths"][path][method.lower()]
        is_open = path in ("/healthz", "/readyz")
        assert ("401" in call["responses"]) is not is_open, (method, path)
        assert (call.get("security") == []) is is_open, (method, path)
        assert ("408" in call["responses"]) is ("requestBody" in call), (method, path)


def test_every_error_code_is_in_the_protocol() -> None:
    protocol = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
    assert [code for code in STATUS if f"`{code}`" not in protocol] == []
