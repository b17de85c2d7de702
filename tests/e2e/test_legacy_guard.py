"""Who may talk to the server: foreign pages, foreign host names, and those that are let in by name."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.raw import JSON, Client, call
from tests.support.server import ServerProcess, start_server

PAGE = "https://app.example"


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with start_server(tmp_path_factory.mktemp("closed"), "--legacy-wait", "0") as running:
        yield running


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """With two more names, and with a page that may use it."""
    arguments = ("--legacy-wait", "0", "--allowed-hosts", "queue, Queue.Internal", "--cors-origin", PAGE)
    with start_server(tmp_path_factory.mktemp("opened"), *arguments) as running:
        yield running


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:1234", "localhost.", "127.0.0.1", "127.9.9.9:80", "[::1]", "[::1]:8001", "a.localhost"],
)
def test_any_name_of_this_machine_is_answered(closed: ServerProcess, host: str) -> None:
    assert call(closed, "GET", "/", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "host",
    ["example.org", "127.0.0.1.example.org", "localhost.example.org", "10.0.0.1:8001", "queue", "[::2]", "0.0.0.0"],
)
def test_any_other_name_is_refused_while_bound_to_loopback(closed: ServerProcess, host: str) -> None:
    answer = call(closed, "GET", "/messages/x", headers={"Host": host})
    assert (answer.status, answer.json()["code"]) == (403, "ORIGIN_REFUSED")
    assert answer.head.get("content-type") == "application/json"
    assert answer.json()["detail"].endswith("see --allowed-hosts")


def test_no_name_at_all_is_answered_where_http_knows_none(closed: ServerProcess) -> None:
    assert call(closed, "GET", "/messages/x", headers={"Host": None}, version="1.0").body == b"null"
    assert call(closed, "GET", "/messages/x", headers={"Host": None}, version="1.1").status == 400


@pytest.mark.parametrize("host", ["queue", "QUEUE:8001", "queue.internal"])
def test_an_allowed_name_is_answered(opened: ServerProcess, host: str) -> None:
    assert call(opened, "GET", "/", headers={"Host": host}).status == 200
    assert call(opened, "GET", f"http://{host}/messages/x", headers={"Host": host}).body == b"null"


def test_a_name_below_an_allowed_one_is_another(opened: ServerProcess) -> None:
    assert call(opened, "GET", "/", headers={"Host": "evil.queue"}).status == 403


def test_bound_wider_any_name_is_answered_and_the_log_says_so(tmp_path: Path) -> None:
    with start_server(tmp_path, "--legacy-wait", "0", "--host", "0.0.0.0") as server:
        assert call(server, "GET", "/messages/x", headers={"Host": "queue:8001"}).body == b"null"
        assert server.wait_for("listening beyond this machine")["address"] == "0.0.0.0"


@pytest.mark.parametrize("origin", ["http://example.org", "null", "http://127.0.0.1:1", "https://app.example.org", ""])
@pytest.mark.parametrize("kind", ["closed", "opened"])
def test_a_foreign_page_does_nothing(request: pytest.FixtureRequest, kind: str, origin: str) -> None:
    server: ServerProcess = request.getfixturevalue(kind)
    foreign = {"Origin": origin or PAGE + ":8443"}
    with Client(server) as client:
        refused = client.call("POST", "/messages/foreign", b"{}", foreign)
        assert (refused.status, refused.json()["code"]) == (403, "ORIGIN_REFUSED")
        assert refused.head.get("access-control-allow-origin") is None
        assert client.call("GET", "/messages/foreign", headers=foreign).status == 403
        assert client.call("GET", "/messages/foreign").body == b"null"


def test_its_own_pages_may_use_the_server(closed: ServerProcess) -> None:
    answer = call(closed, "GET", "/messages/x", headers={"Origin": closed.url})
    assert (answer.status, answer.head.get("access-control-allow-origin")) == (200, None)


@pytest.mark.parametrize(
    ("target", "status"), [("/messages/x", 200), ("/messages/x?wait=soon", 400), ("/nowhere", 404)]
)
def test_an_allowed_page_reads_answers_and_errors(opened: ServerProcess, target: str, status: int) -> None:
    answer = call(opened, "GET", target, headers={"Origin": PAGE})
    assert answer.status == status
    assert answer.head.get("access-control-allow-origin") == PAGE
    assert answer.head.get("vary") == "origin"


def test_an_allowed_page_asks_before_it_publishes(opened: ServerProcess) -> None:
    asks = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    with Client(opened) as client:
        allowed = client.call("OPTIONS", "/messages/page", headers=asks)
        assert (allowed.status, allowed.body) == (204, b"")
        assert allowed.head.get("access-control-allow-origin") == PAGE
        assert "POST" in (allowed.head.get("access-control-allow-methods") or "").split(", ")
        assert allowed.head.get("access-control-allow-headers") == "content-type"
        assert client.call("POST", "/messages/page", b"{}", {**JSON, "Origin": PAGE}).status == 200
        assert client.call("GET", "/messages/page", headers={"Origin": PAGE}).json()["type"] == "default"


def test_a_foreign_page_is_not_answered_before_it_publishes(opened: ServerProcess) -> None:
    asks = {"Origin": "http://example.org", "Access-Control-Request-Method": "POST"}
    answer = call(opened, "OPTIONS", "/messages/page", headers=asks)
    assert answer.status == 403
    assert not [name for name, _ in answer.head.fields if name.startswith("access-control-")]


def test_an_options_that_asks_for_nothing_is_a_wrong_method(opened: ServerProcess) -> None:
    answer = call(opened, "OPTIONS", "/messages/page", headers={"Origin": PAGE})
    assert (answer.status, answer.head.get("allow")) == (405, "GET, POST")
