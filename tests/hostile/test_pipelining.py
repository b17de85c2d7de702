"""Requests that come before the answers to those in front of them."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.hostile.servers import assert_refused, attacked
from tests.support.inside import InsideServer, start_inside
from tests.support.raw import JSON, Client, call, metric, request, wait_parked
from tests.support.server import ServerProcess
from wakeq_server.settings import PIPELINED_MAX

READING = 256 << 10
"""What uvloop reads at a time."""
STUCK_S = 0.5
HEALTH = request("localhost", "GET", "/healthz")
PARKED = request("localhost", "GET", "/messages/json?wait=60")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with attacked(tmp_path_factory.mktemp("data"), "--legacy-wait", "60", "--legacy-heartbeat", "0.02") as running:
        yield running


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server) as client:
        yield client


@pytest.fixture
def monitor(server: ServerProcess) -> Iterator[Client]:
    with Client(server) as client:
        yield client


@pytest.fixture
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InsideServer]:
    with start_inside(tmp_path_factory.mktemp("data")) as running:
        yield running


def publish(body: bytes) -> bytes:
    return request("localhost", "POST", "/messages/json", body)


def send_until_stuck(client: Client) -> None:
    """Send requests until the server hasn't read on for a while."""
    many = HEALTH * (READING // len(HEALTH))
    with suppress(TimeoutError):
        while True:
            client.socket.sendall(many)


def test_answers_come_in_order(client: Client) -> None:
    number = iter(range(10_000))
    kinds: list[Callable[[int], tuple[bytes, bytes]]] = [
        lambda n: (publish(b"%d" % n), b"null"),
        lambda n: (request("localhost", "GET", "/messages/json"), b"%d" % (n - 1)),
        lambda n: (HEALTH, b'{"status":"ok"}'),
        lambda n: (request("localhost", "POST", "/messages/json/claim", b"{}"), b'{"messages":[]}'),
    ]
    asked = [kinds[n % len(kinds)](n) for n in (next(number) for _ in range(400))]
    client.socket.sendall(b"".join(sent for sent, _ in asked))
    assert [client.answer().body for _ in asked] == [answer for _, answer in asked]


def test_a_request_behind_a_parked_one_waits_for_it(client: Client, monitor: Client) -> None:
    client.socket.sendall(PARKED + HEALTH + publish(b"2"))
    wait_parked(monitor, 1)
    assert client.silent()
    assert monitor.call("POST", "/messages/json", b"1").status == 200
    assert [client.answer().body for _ in range(3)] == [b"1", b'{"status":"ok"}', b"null"]
    assert monitor.call("GET", "/messages/json").body == b"2"


@pytest.mark.parametrize("behind", [b"", HEALTH, HEALTH * (PIPELINED_MAX - 1), publish(b"1")[:-1]])
@pytest.mark.parametrize("hang_up", [Client.close, Client.reset])
def test_a_hang_up_is_seen_whatever_waits_behind(
    server: ServerProcess, monitor: Client, behind: bytes, hang_up: Callable[[Client], None]
) -> None:
    with Client(server) as client:
        client.socket.sendall(request("localhost", "POST", "/messages/json/claim", b'{"wait_s": 60}') + behind)
        wait_parked(monitor, 1)
        hang_up(client)
    wait_parked(monitor, 0)


def test_what_is_no_request_is_refused_behind_the_answers(client: Client) -> None:
    client.socket.sendall(publish(b"1") + request("localhost", "GET", "/messages/json") + b"nonsense\r\n\r\n" + HEALTH)
    published, taken, refused = client.answers()
    assert (published.status, taken.body) == (200, b"1")
    assert_refused(refused)


def test_what_is_no_request_does_not_disturb_a_parked_one(client: Client, monitor: Client) -> None:
    client.socket.sendall(PARKED)
    wait_parked(monitor, 1)
    client.socket.sendall(b"nonsense\r\n\r\n" + publish(b"9") * 100)
    assert client.silent()
    assert monitor.call("POST", "/messages/json", b"1").status == 200
    taken, refused = client.answers()
    assert taken.body == b"1"
    assert_refused(refused)
    assert monitor.call("GET", "/messages/json").status == 204


def test_what_is_no_request_comes_behind_a_started_answer(client: Client, monitor: Client) -> None:
    client.ask("GET", "/messages/started")
    assert client.head().status == 200
    client.socket.sendall(b"nonsense\r\n\r\n")
    assert client.chunk() == b" "
    assert monitor.call("POST", "/messages/started", b'{"type":"x"}').status == 200
    assert json.loads(client.rest())["type"] == "x"
    assert_refused(client.answer())
    assert client.ended()


@pytest.mark.parametrize("hang_up", [Client.close, Client.reset])
def test_a_hang_up_is_seen_behind_nonsense(
    server: ServerProcess, monitor: Client, hang_up: Callable[[Client], None]
) -> None:
    with Client(server) as client:
        client.socket.sendall(PARKED + b"nonsense\r\n\r\n")
        wait_parked(monitor, 1)
        hang_up(client)
    wait_parked(monitor, 0)


def test_a_lying_body_behind_a_parked_request_is_refused_in_its_turn(client: Client, monitor: Client) -> None:
    client.socket.sendall(PARKED)
    wait_parked(monitor, 1)
    client.ask("POST", "/messages/json", None, {**JSON, "Transfer-Encoding": "chunked"})
    client.socket.sendall(b"zz\r\n")
    assert client.silent()
    assert monitor.call("POST", "/messages/json", b"1").status == 200
    taken, refused = client.answers()
    assert taken.body == b"1"
    assert (refused.status, refused.json()["code"], refused.head.get("connection")) == (400, "BAD_REQUEST", "close")


def test_nothing_is_done_behind_a_last_request(client: Client, monitor: Client) -> None:
    before = metric(monitor, "wakeq_requests_total")
    client.socket.sendall(request("localhost", "GET", "/healthz", headers={"Connection": "close"}) + publish(b"1") * 10)
    assert [answer.body for answer in client.answers()] == [b'{"status":"ok"}']
    assert metric(monitor, "wakeq_requests_total") - before == 2
    assert monitor.call("GET", "/messages/json").status == 204


def test_requests_behind_a_parked_one_are_not_read_without_end(inside: InsideServer) -> None:
    """They stay with their client, which the full socket tells."""
    call(inside, "PUT", "/topics/json", b"{}", JSON)
    with Client(inside, timeout_s=STUCK_S) as client:
        client.socket.sendall(PARKED)
        send_until_stuck(client)
        (waiting,) = inside.of_each(lambda connection: len(connection.pipeline))
        assert waiting <= PIPELINED_MAX + READING // len(HEALTH) + 1
    # Where nothing more is read, a hang-up shows at the next delivery.
    call(inside, "POST", "/messages/json", b"1", JSON)
    inside.wait_quiet()
    assert call(inside, "GET", "/messages/json").body == b"1"


def test_requests_are_not_read_while_their_answers_are_not(inside: InsideServer) -> None:
    with Client(inside, timeout_s=STUCK_S, receive_buffer=4096) as client:
        send_until_stuck(client)
        (waiting,) = inside.of_each(lambda connection: len(connection.pipeline))
        assert waiting <= PIPELINED_MAX + READING // len(HEALTH) + 1
    inside.wait_quiet()


def test_a_body_behind_a_parked_request_is_not_read_without_end(inside: InsideServer) -> None:
    call(inside, "PUT", "/topics/json", b"{}", JSON)
    with Client(inside, timeout_s=STUCK_S) as client:
        client.socket.sendall(PARKED + publish(b"1" * (32 << 20))[: -(32 << 20)])
        with pytest.raises(TimeoutError):
            client.socket.sendall(b"1" * (32 << 20))
        (held,) = inside.of_each(lambda connection: len(connection.cycle.body))
        assert held <= 2 * READING
    call(inside, "POST", "/messages/json", b"1", JSON)
    inside.wait_quiet()


def test_very_many_requests_at_once_are_all_answered(inside: InsideServer) -> None:
    count = 20_000
    with Client(inside) as client:
        client.socket.setblocking(False)
        unsent, answered = memoryview(HEALTH * count), 0
        while unsent:
            try:
                unsent = unsent[client.socket.send(unsent) :]
            except BlockingIOError:
                client.socket.settimeout(20)
                assert client.answer().status == 200
                answered += 1
                client.socket.setblocking(False)
        client.socket.settimeout(20)
        assert {client.answer().status for _ in range(count - answered)} == {200}
        assert client.silent()
