"""A real server for the tests of the command line, one a file."""

import re
from collections.abc import Iterator

import httpx
import pytest
from typer.testing import CliRunner, Result

from tests.support.cli import Wakeq
from tests.support.server import ServerProcess, start_server
from wakeq.cli import app


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with start_server(tmp_path_factory.mktemp("data"), durability="os") as server:
        yield server


@pytest.fixture(scope="module")
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, verify=False) as http:
        yield http


@pytest.fixture
def wakeq(server: ServerProcess) -> Wakeq:
    """The command line in this process; its words, where there are only words."""

    def call(*arguments: str, stdin: bytes | str | None = None) -> Result:
        words = arguments[0].split() if len(arguments) == 1 else arguments
        return CliRunner().invoke(app, words, input=stdin, env={"WAKEQ_URL": server.url})

    return call


@pytest.fixture
def topic(http: httpx.Client, request: pytest.FixtureRequest) -> str:
    """A topic whose messages die at their first nack."""
    name = re.sub(r"\W", "-", request.node.name)
    assert http.put(f"/topics/{name}", json={"max_deliveries": 1}).status_code == 201
    return name
