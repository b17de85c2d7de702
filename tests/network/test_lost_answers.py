"""A line that breaks at every byte of every call: publishes count once, settles hold, and no message is lost."""

import json
from collections.abc import Iterator
from itertools import count
from typing import Any, get_args

import pytest

from tests.support.line import Break, How, Line, line_to
from tests.support.raw import JSON, Client, metric, request, wait_parked, wait_until
from tests.support.server import ServerProcess, start_server

NUMBERS = count()
ENDS: tuple[How, ...] = ("reset", "cut")
"""What the server can see."""
LOOK_S = 1.0
"""How long the server looks for a hang-up before it acks for a consumer; 2 ms where it isn't tested at each byte."""


@pytest.fixture(scope="module", params=["memory", pytest.param("fsync", marks=pytest.mark.slow)])
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    look = f"import wakeq_server.settings; wakeq_server.settings.LOOK_S = {LOOK_S}"
    data = tmp_path_factory.mktemp("data")
    with start_server(data, "--drain", "0", durability=request.param, before=look) as running:
        yield running
        assert running.terminate() == 0
        assert not running.events("raw"), "something was written past the log, a traceback perhaps"
        assert not [entry for entry in running.log if entry["level"] not in ("info", "warning")]


@pytest.fixture
def direct(server: ServerProcess) -> Iterator[Client]:
    with Client(server) as client:
        yield client


@pytest.fixture
def line(server: ServerProcess) -> Iterator[Line]:
    with line_to(server) as line:
        yield line


@pytest.fixture
def topic(direct: Client) -> str:
    # Those whose lines ended with the test before are on their way out.
    wait_parked(direct, 0)
    name = f"topic-{next(NUMBERS)}"
    config = b'{"max_deliveries": 0, "retry_backoff_s": {"min": 0, "max": 0}}'
    assert direct.call("PUT", f"/topics/{name}", config, JSON).status == 201
    return name


def ask_and_lose(line: Line, sent: bytes, fault: Break) -> None:
    """Ask, and hang up when the line has broken."""
    line.breaks.append(fault)
    with Client(line) as client:
        client.socket.sendall(sent)
        line.wait_broken()


def ask_all_and_lose(line: Line, sent: bytes, faults: list[Break]) -> None:
    """Ask once for each, all at a time, and hang up when all lines have broken."""
    clients = []
    try:
        for fault in faults:
            line.breaks.append(fault)
            clients.append(Client(line))
            clients[-1].socket.sendall(sent)
        line.wait_broken(len(faults))
    finally:
        for client in clients:
            client.close()


def wire_size(server: ServerProcess, sent: bytes) -> int:
    """How many bytes the answer has."""
    with Client(server) as client:
        client.socket.sendall(sent)
        answer = client.answer()
        lines = [f"{name}: {value}" for name, value in answer.head.fields]
        return len("\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""])) + len(answer.body)


def publish(direct: Client, topic: str, *bodies: object) -> None:
    lines = b"\n".join(json.dumps(body).encode() for body in bodies)
    headers = {"Content-Type": "application/x-ndjson"}
    assert direct.call("POST", f"/messages/{topic}", lines, headers).json()["count"] == len(bodies)


def claim(direct: Client, topic: str, wait_s: float = 10, **ask: object) -> list[dict[str, Any]]:
    body = json.dumps({"max": 1000, "wait_s": wait_s, **ask}).encode()
    messages: list[dict[str, Any]] = direct.call("POST", f"/messages/{topic}/claim", body).json()["messages"]
    return messages


def settle(direct: Client, topic: str, **lines: object) -> list[str]:
    answer = direct.call("POST", f"/messages/{topic}/settle", json.dumps(lines).encode())
    return [result["status"] for result in answer.json()["results"]]


def take_all(direct: Client, topic: str, number: int, wait_s: float = 10) -> list[dict[str, Any]]:
    """Claim and ack so many messages, which wait at most until they come back."""
    taken: list[dict[str, Any]] = []
    while len(taken) < number:
        deliveries = claim(direct, topic, wait_s)
        assert deliveries, f"{number - len(taken)} of {number} messages are lost"
        assert set(settle(direct, topic, ack=[one["lease_id"] for one in deliveries])) == {"ok"}
        taken += deliveries
    assert claim(direct, topic, 0) == []
    return taken


def left(direct: Client, topic: str) -> int:
    messages: int = direct.call("GET", f"/topics/{topic}").json()["messages"]
    return messages


# Publish


def keyed(topic: str, key: str) -> bytes:
    return request("localhost", "POST", f"/messages/{topic}", b'{"a": 1}', {"Idempotency-Key": key})


@pytest.mark.parametrize("how", get_args(How))
def test_a_publish_whose_answer_is_lost_counts_once(
    server: ServerProcess, direct: Client, line: Line, topic: str, how: How
) -> None:
    size = wire_size(server, keyed(topic, "first"))
    for place in range(size + 1):
        ask_and_lose(line, keyed(topic, f"key {place}"), Break(how, answered=place))
        direct.socket.sendall(keyed(topic, f"key {place}"))
        again = direct.answer()
        # Its number shows that the lost one was taken.
        assert (again.status, again.head.get("wakeq-seq")) == (200, str(place + 2))
    assert left(direct, topic) == size + 2


@pytest.mark.parametrize("how", get_args(How))
def test_a_publish_that_is_cut_counts_once_or_not_at_all(direct: Client, line: Line, topic: str, how: How) -> None:
    whole = keyed(topic, "key 000")
    for place in range(1, len(whole)):
        sent = keyed(topic, f"key {place:03}")
        ask_and_lose(line, sent, Break(how, asked=place))
        assert left(direct, topic) == place - 1
        direct.socket.sendall(sent)
        assert direct.answer().status == 200


# Settle


@pytest.mark.parametrize("how", get_args(How))
def test_a_settle_whose_answer_is_lost_is_ok_again(
    server: ServerProcess, direct: Client, line: Line, topic: str, how: How
) -> None:
    publish(direct, topic, *range(400))
    leases = iter([one["lease_id"] for one in claim(direct, topic, lease_s=600)])

    def ack(lease_id: str) -> bytes:
        body = json.dumps({"ack": [lease_id]}).encode()
        return request("localhost", "POST", f"/messages/{topic}/settle", body)

    places = range(wire_size(server, ack(next(leases))) + 1)
    for place in places:
        lease_id = next(leases)
        ask_and_lose(line, ack(lease_id), Break(how, answered=place))
        assert settle(direct, topic, ack=[lease_id]) == ["ok"]
        assert settle(direct, topic, nack=[{"lease_id": lease_id}]) == ["stale"]
    assert left(direct, topic) == 400 - 1 - len(places)


# Claim


@pytest.mark.parametrize("how", get_args(How))
def test_messages_of_a_claim_that_is_lost_come_again(
    server: ServerProcess, direct: Client, line: Line, topic: str, how: How
) -> None:
    body = b'{"lease_s": 1, "wait_s": 60}'
    asked = request("localhost", "POST", f"/messages/{topic}/claim", body)
    publish(direct, topic, 1000)
    size = wire_size(server, asked)
    take_all(direct, topic, 1)
    publish(direct, topic, *range(1000, 1001 + size))
    ask_all_and_lose(line, asked, [Break(how, answered=place) for place in range(size + 1)])
    taken = take_all(direct, topic, size + 1)
    assert sorted(one["body"] for one in taken) == list(range(1000, 1001 + size))


@pytest.mark.parametrize("how", ["reset", "cut", "half"])
def test_a_parked_claim_whose_line_breaks_takes_nothing(direct: Client, line: Line, topic: str, how: How) -> None:
    asked = request("localhost", "POST", f"/messages/{topic}/claim", b'{"lease_s": 600, "wait_s": 60}')
    for number in range(20):
        ask_and_lose(line, asked, Break(how, asked=len(asked)))
        wait_parked(direct, 0)
        publish(direct, topic, number)
        (delivery,) = take_all(direct, topic, 1, 0)
        assert (delivery["body"], delivery["attempt"]) == (number, 1)


# Stream


@pytest.mark.parametrize("how", ["reset", "cut", "half"])
def test_messages_of_a_stream_that_breaks_come_back_at_once(
    server: ServerProcess, direct: Client, line: Line, topic: str, how: How
) -> None:
    """Not at the end of their leases, which is ten minutes away."""
    target = f"/messages/{topic}?lease=600&grace=0"
    asked = request("localhost", "GET", target, headers={"Accept": "text/event-stream"})
    publish(direct, topic, 1)
    size = stream_size(server, asked)
    take_all(direct, topic, 1)
    for place in range(size + 1):
        publish(direct, topic, place)
        ask_and_lose(line, asked, Break(how, answered=place))
        (delivery,) = take_all(direct, topic, 1)
        assert (delivery["body"], delivery["attempt"] in (1, 2)) == (place, True)


def stream_size(server: ServerProcess, asked: bytes) -> int:
    """How many bytes a stream has to the end of its first event."""
    with Client(server) as client:
        client.socket.sendall(asked)
        begun = b""
        while b"event: message" not in begun or not begun.endswith(b"\n\n\r\n"):
            begun += client.socket.recv(65_536)
        return len(begun)


def test_messages_of_a_stream_that_stalls_come_back_when_their_leases_end(
    server: ServerProcess, direct: Client, line: Line, topic: str
) -> None:
    """Who waits already is first in line then, not the stream that nobody reads."""
    target = f"/messages/{topic}?lease=1&prefetch=1"
    asked = request("localhost", "GET", target, headers={"Accept": "text/event-stream"})
    publish(direct, topic, 1)
    size = stream_size(server, asked)
    take_all(direct, topic, 1)
    line.breaks.append(Break("stall", answered=size - 1))
    with Client(line) as client:
        publish(direct, topic, 2)
        client.socket.sendall(asked)
        line.wait_broken()
        (delivery,) = take_all(direct, topic, 1)
        assert delivery["body"] == 2
        assert delivery["attempt"] >= 2


# What the server acks for its consumer


def wait_acked(direct: Client, topic: str) -> None:
    """Wait until the server has looked for long enough, and see that it has acked everything."""
    leased = f'wakeq_topic_messages{{group="default",state="leased",topic="{topic}"}}'
    wait_until(lambda: metric(direct, leased) == 0)
    assert left(direct, topic) == 0


def bodies(number: int) -> range:
    """So many, all as long as one another."""
    return range(1000, 1000 + number)


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
def test_a_message_that_a_plain_consumer_has_not_whole_comes_back_at_once(
    server: ServerProcess, direct: Client, line: Line, topic: str, how: How, accept: str
) -> None:
    asked = request("localhost", "GET", f"/messages/{topic}?prefetch=1&wait=60", headers={"Accept": accept})
    publish(direct, topic, 1000)
    size = wire_size(server, asked) if accept == "*/*" else stream_size(server, asked)
    wait_acked(direct, topic)
    publish(direct, topic, *bodies(size))
    ask_all_and_lose(line, asked, [Break(how, answered=place) for place in range(size)])
    taken = take_all(direct, topic, size)
    assert sorted(one["body"] for one in taken) == list(bodies(size))
    assert {one["attempt"] for one in taken} == {1}


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
def test_a_message_that_a_plain_consumer_has_read_to_its_end_is_acked(
    server: ServerProcess, direct: Client, line: Line, topic: str, accept: str
) -> None:
    asked = request("localhost", "GET", f"/messages/{topic}?prefetch=1&wait=60", headers={"Accept": accept})
    publish(direct, topic, 1000)
    size = wire_size(server, asked) if accept == "*/*" else stream_size(server, asked)
    # Their seqs have one digit, as the first has, so that all answers are as long.
    publish(direct, topic, *bodies(8))
    ask_all_and_lose(line, asked, [Break("cut", answered=size)] * 8)
    wait_acked(direct, topic)


@pytest.mark.parametrize("how", ["reset", "cut", "half"])
def test_a_parked_plain_consumer_whose_line_breaks_takes_nothing(
    direct: Client, line: Line, topic: str, how: How
) -> None:
    asked = request("localhost", "GET", f"/messages/{topic}?wait=60")
    for number in range(20):
        ask_and_lose(line, asked, Break(how, asked=len(asked)))
        wait_parked(direct, 0)
        publish(direct, topic, number)
        assert [one["body"] for one in take_all(direct, topic, 1, 0)] == [number]


@pytest.mark.parametrize("how", ["reset", "cut"])
def test_a_consumer_that_is_lost_at_the_moment_of_delivery_is_passed_over(
    server: ServerProcess, direct: Client, line: Line, topic: str, how: How
) -> None:
    """The line breaks with the first byte of its answer, and the next in line has the message."""
    asked = request("localhost", "GET", f"/messages/{topic}?wait=60")
    for number in range(2):
        line.breaks.append(Break(how, answered=0))
        with Client(line) as doomed, Client(server) as live:
            doomed.socket.sendall(asked)
            wait_parked(direct, 1)
            live.socket.sendall(asked)
            wait_parked(direct, 2)
            publish(direct, topic, number)
            assert live.answer().json() == number
        wait_acked(direct, topic)
