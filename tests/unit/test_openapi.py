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
from wakeq_server.engine.clocks import Clocks
from wakeq_server.engine.embedded import open_engine
from wakeq_server.http import params
from wakeq_server.http.routes import App
from wakeq_server.http.service import openapi_document
from wakeq_server.http.wire import STATUS
from wakeq_server.settings import Settings
from wakeq_server.store.memory import MemoryStore

pytestmark = pytest.mark.anyio
DOCUMENT: dict[str, Any] = openapi_document()
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def an_app() -> AsyncIterator[App]:
    async with open_engine(MemoryStore(1), Clocks(lambda: 0.0, lambda: 0.0)) as engine:
        yield build_app(engine, Settings(durability="memory", legacy_wait=0), "0")


def calls() -> set[tuple[str, str]]:
    return {(method, path) for path, item in DOCUMENT["paths"].items() for method in METHODS if method.lower() in item}


def test_document_is_valid() -> None:
    validate(DOCUMENT)


async def test_every_documented_call_exists_and_no_other() -> None:
    async with an_app() as app:
        for path in {path for _, path in calls()}:
            answers = {method: await ask(app, method, path.format(topic="t")) for method in METHODS}
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


def test_every_error_code_is_in_the_protocol() -> None:
    protocol = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
    assert [code for code in STATUS if f"`{code}`" not in protocol] == []
