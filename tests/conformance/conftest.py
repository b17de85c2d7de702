"""The servers under test: two of our own, or any other by `--base-url`."""

from collections.abc import Iterator
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
import pytest

from tests.conformance.api import Queue
from tests.support.server import start_server

_OWN = ("memory", "fsync")


class Server(NamedTuple):
    """A server under test."""

    base_url: str
    auto_creates: bool
    about: dict[str, Any]


def pytest_addoption(parser: pytest.Parser) -> None:
    """A server that runs already, of any engine."""
    parser.addoption("--base-url", default=None, help="run tests/conformance on the queue server at this URL")


def pytest_configure(config: pytest.Config) -> None:
    """Names of capabilities of `GET /v1`."""
    config.addinivalue_line("markers", "capability(name): only for servers that have it")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each case runs on each server."""
    if "server" in metafunc.fixturenames:
        url = metafunc.config.getoption("base_url", default=None)
        metafunc.parametrize("server", [url] if url else _OWN, indirect=True, scope="session")


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One of our own is started once; what is known of it needs no probing."""
    if request.param not in _OWN:
        with httpx.Client(base_url=request.param) as http:
            probe = http.post(f"/messages/{uuid4().hex}/claim", json={})
            yield Server(request.param, probe.status_code == 200, http.get("/v1").json())
        return
    heartbeat = ("--legacy-heartbeat", "0.05")
    with start_server(tmp_path_factory.mktemp("data"), *heartbeat, durability=request.param) as process:
        about = httpx.get(f"{process.url}/v1").json()
        yield Server(process.url, request.param == "memory", about)
        assert process.terminate() == 0
        assert not process.events("raw"), "something was written past the log, a traceback perhaps"


@pytest.fixture
def base_url(server: Server) -> str:
    """All that a case needs to know."""
    return server.base_url


@pytest.fixture
def about(server: Server) -> dict[str, Any]:
    """`GET /v1`."""
    return server.about


@pytest.fixture(scope="session")
def http(server: Server) -> Iterator[httpx.Client]:
    """For whatever is answered at once."""
    with httpx.Client(base_url=server.base_url, timeout=30.0, verify=False) as client:
        yield client


@pytest.fixture
def queue(server: Server, http: httpx.Client, request: pytest.FixtureRequest) -> Iterator[Queue]:
    """The server, with topics of the test's own."""
    for mark in request.node.iter_markers("capability"):
        if mark.args[0] not in server.about["capabilities"]:
            pytest.skip(f"this engine has no {mark.args[0]}")
    queue = Queue(server.base_url, http, auto_creates=server.auto_creates)
    yield queue
    queue.close()
