"""Connections that come and go in thousands, at any point of a request: afterwards nothing of them is left."""

import socket
from collections.abc import Callable, Iterator

import pytest

from tests.support.inside import InsideServer, start_inside
from tests.support.raw import JSON, Client, call, request, wait_until
from tests.support.server import ServerProcess, start_server

AT_ONCE = 250
ROUNDS = 8
PARKED = request("localhost", "POST", "/messages/json/claim", b'{"wait_s": 60}')
STREAM = request("localhost", "GET", "/messages/json?lease=30", headers={"Accept": "text/event-stream"})
PARKED_AT_GONE = PARKED.replace(b"/messages/json", b"/messages/gone")
STREAM_OF_GONE = STREAM.replace(b"/messages/json", b"/messages/gone")
CHUNKED = request("localhost", "POST", "/messages/json", None, {**JSON, "Transfer-Encoding": "chunked"})

POINTS = {
    "before anything": b"",
    "in the head": b"GET /healthz HTTP/1.1\r\nHost: loc",
    "in the body": request("localhost", "POST", "/messages/json", b"[1, 2, 3]")[:-4],
    "in the chunks": CHUNKED + b"fffff\r\n" + b"1" * 100_000,
    "while parked": PARKED,
    "while parked as a legacy consumer": request("localhost", "GET", "/messages/legacy"),
    "in a stream": STREAM,
    "in the stream of events": request("localhost", "GET", "/events"),
    "with requests behind a parked one": PARKED + request("localhost", "GET", "/healthz") * 5,
    "with half a request behind a parked one": PARKED + b"POST /messages/json HT",
    "after nonsense": b"nonsense\r\n\r\n",
    "after nonsense behind a parked request": PARKED + b"nonsense\r\n\r\n",
    "after chunks that lie": CHUNKED + b"zz\r\n",
    "after a whole request": request("localhost", "GET", "/healthz"),
}


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InsideServer]:
    with start_inside(tmp_path_factory.mktemp("data"), legacy_heartbeat=0.05, legacy_wait=60.0) as running:
        call(running, "PUT", "/topics/json", b"{}", JSON)
        yield running


def half_close(client: Client) -> None:
    """Say that nothing more will come, and wait until the server has closed too."""
    client.socket.shutdown(socket.SHUT_WR)
    while client.socket.recv(65_536):
        pass
    client.close()


@pytest.mark.parametrize("hang_up", [Client.close, Client.reset, half_close])
@pytest.mark.parametrize("sent", POINTS.values(), ids=POINTS)
def test_who_hangs_up_leaves_nothing(inside: InsideServer, sent: bytes, hang_up: Callable[[Client], None]) -> None:
    clients = [Client(inside) for _ in range(AT_ONCE // 5)]
    for client in clients:
        client.socket.sendall(sent)
    for client in clients:
        hang_up(client)
    inside.wait_quiet()
    assert call(inside, "GET", "/healthz").status == 200


@pytest.mark.parametrize("sent", [PARKED_AT_GONE, STREAM_OF_GONE], ids=["parked", "in a stream"])
def test_whose_topic_is_deleted_leaves_nothing(inside: InsideServer, sent: bytes) -> None:
    call(inside, "PUT", "/topics/gone", b"{}", JSON)
    clients = [Client(inside) for _ in range(20)]
    for client in clients:
        client.socket.sendall(sent)
    wait_until(lambda: call(inside, "GET", "/topics/gone").json()["groups"]["default"]["parked"] == 20)
    call(inside, "DELETE", "/topics/gone")
    for client in clients:
        assert client.answer().status in (200, 404)
        client.close()
    inside.wait_quiet()


def test_thousands_of_connections_leave_nothing(inside: InsideServer) -> None:
    for number in range(ROUNDS):
        clients = [Client(inside) for _ in range(AT_ONCE)]
        for place, client in enumerate(clients):
            client.socket.sendall(list(POINTS.values())[place % len(POINTS)])
        for place, client in enumerate(clients):
            (client.reset if (place + number) % 2 else client.close)()
    inside.wait_quiet()


def test_silent_senders_are_let_go(tmp_path_factory: pytest.TempPathFactory) -> None:
    with start_inside(tmp_path_factory.mktemp("data"), head_timeout=0.2, body_timeout=0.2) as inside:
        call(inside, "PUT", "/topics/json", b"{}", JSON)
        clients = [Client(inside) for _ in range(AT_ONCE)]
        halves = [POINTS["in the head"], POINTS["in the body"], POINTS["in the chunks"]]
        for place, client in enumerate(clients):
            client.socket.sendall(halves[place % len(halves)])
        for client in clients:
            assert client.answer().json()["code"] == "REQUEST_TIMEOUT"
            assert client.ended()
            client.close()
        inside.wait_quiet()


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"\r\n\r\n\r"])
def test_a_connection_without_a_request_ends_as_an_idle_one_does(
    tmp_path_factory: pytest.TempPathFactory, sent: bytes
) -> None:
    short = "import wakeq._serving.quiet; wakeq._serving.quiet.KEEP_ALIVE_S = 0.2"
    with (
        start_server(tmp_path_factory.mktemp("data"), before=short) as server,
        Client(server) as silent,
        Client(server) as idle,
    ):
        silent.socket.sendall(sent)
        assert idle.call("GET", "/healthz").status == 200
        assert idle.ended()
        assert silent.ended()


def test_bodies_that_are_given_up_are_not_counted(inside: InsideServer) -> None:
    clients = [Client(inside) for _ in range(20)]
    for client in clients:
        client.socket.sendall(CHUNKED + b"fffff\r\n" + b"1" * 200_000)
    wait_until(lambda: inside.held().get("body bytes", 0) > 0)
    for client in clients:
        client.socket.sendall(b"1" * (0xFFFFF - 200_000) + b"no line break")
        assert client.answer().status in (400, 413)
        client.close()
    inside.wait_quiet()


@pytest.mark.slow
def test_memory_and_files_of_a_process_come_back(tmp_path_factory: pytest.TempPathFactory) -> None:
    import psutil

    def attack(server: ServerProcess) -> None:
        for point in POINTS.values():
            clients = [Client(server) for _ in range(AT_ONCE)]
            for client in clients:
                client.socket.sendall(point)
            for client in clients:
                client.reset()
        call(server, "GET", "/healthz")
        wait_until(lambda: not open_connections())

    with start_server(tmp_path_factory.mktemp("data"), "--legacy-wait", "60") as server:
        process = psutil.Process(server.process.pid)

        def open_connections() -> int:
            return sum(one.status == psutil.CONN_ESTABLISHED for one in process.net_connections("tcp"))

        call(server, "PUT", "/topics/json", b"{}", JSON)
        attack(server)
        memory, files = process.memory_info().rss, process.num_fds()
        for _ in range(3):
            attack(server)
        wait_until(lambda: process.num_fds() <= files)
        # As much again would be 100,000 bytes for each of 10,500 connections.
        assert process.memory_info().rss - memory < 20_000_000
        assert server.terminate() == 0
        assert not server.events("raw")
