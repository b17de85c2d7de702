"""Requests that come too slowly are ended, and change nothing; those that come whole, wait, or are idle, are not."""

import socket
from collections.abc import Iterator

import pytest

from tests.support.raw import JSON, Answer, Client, call, request, wait_parked
from tests.support.server import ServerProcess, start_server

TIMEOUT_S = 0.5


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    times = (
        "--drain",
        "0",
        "--head-timeout",
        str(TIMEOUT_S),
        "--body-timeout",
        str(TIMEOUT_S),
        "--legacy-heartbeat",
        "0.2",
    )
    with start_server(tmp_path_factory.mktemp("data"), *times) as running:
        call(running, "PUT", "/topics/json", b"{}", JSON)
        yield running
        assert running.terminate() == 0
        assert not running.events("raw"), "something was written past the log, a traceback perhaps"


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server) as client:
        yield client


@pytest.fixture
def monitor(server: ServerProcess) -> Iterator[Client]:
    with Client(server) as client:
        yield client


def assert_timed_out(client: Client, answer: Answer, kind: str = "application/problem+json") -> None:
    assert (answer.status, answer.json()["code"]) == (408, "REQUEST_TIMEOUT")
    assert answer.head.get("content-type") == kind
    assert answer.head.get("connection") == "close"
    assert client.ended()


def messages(monitor: Client, topic: str) -> int:
    count: int = monitor.call("GET", f"/topics/{topic}").json()["messages"]
    return count


def drip(client: Client, piece: bytes) -> None:
    """Send a piece again and again, each when a tenth of the time-out has gone by, until the server says something."""
    client.socket.settimeout(TIMEOUT_S / 10)
    for _ in range(200):
        client.socket.sendall(piece)
        try:
            client.socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            continue
        break
    else:
        raise AssertionError("the server goes on for ever")
    client.socket.settimeout(20)


def closes_while_sending(client: Client, piece: bytes) -> bool:
    """Whether the server closes the connection while pieces are sent, each when a tenth of the time-out has gone by."""
    client.socket.settimeout(TIMEOUT_S / 10)
    for _ in range(200):
        try:
            client.socket.sendall(piece)
            return not client.socket.recv(1)
        except TimeoutError:
            continue
        except ConnectionError:
            return True
    return False


# Heads


@pytest.mark.parametrize("begun", [b"G", b"GET /messages/json HTTP/1.1\r\n", b"POST /x HTTP/1.1\r\nHost: a\r\nX: "])
def test_a_head_that_stops_is_a_timeout(client: Client, begun: bytes) -> None:
    client.socket.sendall(begun)
    assert_timed_out(client, client.answer())


def test_a_head_that_drips_has_no_more_time_than_another(client: Client) -> None:
    client.socket.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ")
    drip(client, b"x")
    assert_timed_out(client, client.answer())


def test_a_second_head_on_a_connection_has_its_time_too(client: Client) -> None:
    assert client.call("GET", "/healthz").status == 200
    client.socket.sendall(b"GET /health")
    assert_timed_out(client, client.answer())


def test_a_head_in_two_parts_is_answered(client: Client) -> None:
    whole = request("localhost", "GET", "/healthz")
    client.socket.sendall(whole[:20])
    client.socket.sendall(whole[20:])
    assert client.answer().status == 200
    assert client.call("GET", "/healthz").status == 200


# Bodies


def begin(client: Client, target: str, body: bytes, size: int, method: str = "POST") -> None:
    client.socket.sendall(request("localhost", method, target, body, {**JSON, "Content-Length": str(size)}))


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("/messages/json", "application/json"),
        ("/messages/json/claim", "application/problem+json"),
        ("/messages/json/settle", "application/problem+json"),
    ],
)
def test_a_body_that_stops_is_a_timeout(client: Client, monitor: Client, target: str, kind: str) -> None:
    begin(client, target, b'{"a":', 1_000)
    assert_timed_out(client, client.answer(), kind)
    assert messages(monitor, "json") == 0


def test_a_topic_whose_configuration_stops_is_not_made(client: Client, monitor: Client) -> None:
    begin(client, "/topics/half", b'{"schema": "json"', 18, "PUT")
    assert_timed_out(client, client.answer())
    assert monitor.call("GET", "/topics/half").status == 404


def test_a_body_that_drips_is_a_timeout(client: Client, monitor: Client) -> None:
    begin(client, "/messages/json", b'"', 60_000)
    drip(client, b"x")
    assert_timed_out(client, client.answer(), "application/json")
    assert messages(monitor, "json") == 0


def test_what_has_come_does_not_count_for_what_has_not(client: Client) -> None:
    begin(client, "/messages/json", b'"' + b"x" * 500_000, 1_000_000)
    drip(client, b"x")
    assert_timed_out(client, client.answer(), "application/json")


def test_chunks_that_never_end_are_a_timeout(client: Client) -> None:
    headers = {**JSON, "Transfer-Encoding": "chunked"}
    client.socket.sendall(request("localhost", "POST", "/messages/json", None, headers) + b'1\r\n"\r\n')
    drip(client, b"1\r\nx\r\n")
    assert_timed_out(client, client.answer(), "application/json")


def test_chunks_that_never_end_are_too_large_in_the_end(client: Client) -> None:
    headers = {**JSON, "Transfer-Encoding": "chunked"}
    client.socket.sendall(request("localhost", "POST", "/messages/json", None, headers))
    # As much as is taken, and one more.
    for _ in range(17):
        client.socket.sendall(b"10000\r\n" + b"1" * 0x10000 + b"\r\n")
    answer = client.answer()
    assert (answer.status, answer.json()["code"]) == (413, "MESSAGE_TOO_LARGE")
    # It was told; what it goes on sending is read for a while, and then no longer.
    assert closes_while_sending(client, b"1000\r\n" + b"1" * 0x1000 + b"\r\n")


def test_a_large_body_is_taken(client: Client, monitor: Client) -> None:
    body = b'"' + b"x" * 1_000_000 + b'"'
    begin(client, "/messages/json", body, len(body))
    assert client.answer().status == 200
    assert monitor.call("GET", "/messages/json").body == body


def test_a_body_that_nobody_reads_is_waited_for_no_longer(client: Client) -> None:
    begin(client, "/topics/ignores-its-body", b"{", 100)
    assert client.answer().body == b"null"
    assert client.ended()


def test_a_parked_request_whose_body_stops_is_ended(client: Client, monitor: Client) -> None:
    begin(client, "/messages/json?wait=30", b"{", 100, "GET")
    wait_parked(monitor, 1)
    assert_timed_out(client, client.answer(), "application/json")
    wait_parked(monitor, 0)


def test_a_started_answer_whose_body_stops_ends_with_its_connection(client: Client, monitor: Client) -> None:
    begin(client, "/messages/started", b"{", 100, "GET")
    assert client.head().status == 200
    with pytest.raises(AssertionError, match="closed the connection"):
        client.rest()
    wait_parked(monitor, 0)


# What is not slow


def test_an_idle_connection_and_a_parked_request_have_no_such_time(server: ServerProcess, client: Client) -> None:
    assert client.call("GET", "/healthz").status == 200
    with Client(server) as silent, Client(server) as parked:
        parked.ask("POST", "/messages/json/claim", b'{"wait_s": 60}')
        # The time that they would have, twice.
        for _ in range(2):
            with Client(server) as slow:
                slow.socket.sendall(b"GET ")
                assert slow.answer().status == 408
        assert parked.silent()
        assert silent.call("GET", "/healthz").status == 200
        assert client.call("GET", "/healthz").status == 200
        assert client.call("POST", "/messages/json", b"7", JSON).status == 200
        assert [message["body"] for message in parked.answer().json()["messages"]] == [7]


def test_half_a_request_behind_a_parked_one_ends_both(client: Client, monitor: Client) -> None:
    client.ask("GET", "/messages/json?wait=30")
    wait_parked(monitor, 1)
    client.socket.sendall(b"GET /healt")
    assert client.ended()
    wait_parked(monitor, 0)


def test_a_body_behind_a_parked_request_is_waited_for(server: ServerProcess, client: Client, monitor: Client) -> None:
    client.ask("GET", "/messages/json?wait=30")
    wait_parked(monitor, 1)
    begin(client, "/messages/json/claim", b"{", 2)
    # Nobody reads it yet; a time-out of another goes by.
    with Client(server) as other:
        begin(other, "/messages/json", b"{", 2)
        assert other.answer().status == 408
    assert client.silent()
    assert monitor.call("POST", "/messages/json", b"1", JSON).status == 200
    assert client.answer().body == b"1"
    client.socket.sendall(b"}")
    assert client.answer().json() == {"messages": []}
