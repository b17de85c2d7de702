"""Consumers that hang up: while parked, at the moment of delivery, in the middle of an answer, and after its end.

A message goes to a consumer that lives, once, or it goes back to its place.
"""

import json
import time
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from tests.support.raw import Client, metric, wait_parked, wait_until
from tests.support.server import ServerProcess, start_server

ROUNDS = 120
BEATEN_ROUNDS = 80
LOOK_AT_LEAST_S = 0.001
"""The server looks for a hang-up 2 ms after it has written, by a clock with steps of 1 ms. Until then it is seen."""
NUMBERS = count()

HangUp = Callable[[Client], None]


@pytest.fixture(scope="module", params=["memory", "os"])
def steady(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """Parks for long, without heartbeats: answers have a length and reach their client in one piece."""
    arguments = ("--legacy-wait", "600", "--legacy-heartbeat", "60", "--auto-create-topics")
    with start_server(tmp_path_factory.mktemp("steady"), *arguments, durability=request.param) as running:
        yield running


@pytest.fixture(scope="module")
def beating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Parks for long, with fast heartbeats: answers are in chunks."""
    arguments = ("--legacy-wait", "600", "--legacy-heartbeat", "0.005")
    with start_server(tmp_path_factory.mktemp("beating"), *arguments) as running:
        yield running


@pytest.fixture
def path() -> str:
    return f"/messages/topic-{next(NUMBERS)}"


def message(number: int) -> bytes:
    return json.dumps({"type": str(number)}).encode()


def taken(client: Client, path: str) -> str:
    """The type of the next message, for which one waits only if it is on its way back."""
    answer = client.call("GET", f"{path}?wait=10")
    assert answer.body != b"null", "the message is lost"
    return str(answer.json()["type"])


def wait_unleased(client: Client, path: str) -> None:
    """Wait until every delivery has ended, one way or the other."""
    topic = path.removeprefix("/messages/")
    leased = f'wakeq_topic_messages{{group="default",state="leased",topic="{topic}"}}'
    wait_until(lambda: metric(client, leased) == 0)


def assert_nothing_left(client: Client, path: str) -> None:
    """Nothing is ready, leased or comes twice."""
    wait_unleased(client, path)
    assert client.call("GET", f"{path}?wait=0").body == b"null"


@pytest.mark.parametrize("hang_up", [Client.close, Client.reset])
def test_a_consumer_that_hung_up_while_parked_takes_nothing(steady: ServerProcess, path: str, hang_up: HangUp) -> None:
    with Client(steady) as live:
        for number in range(20):
            consumer = Client(steady)
            consumer.ask("GET", path)
            wait_parked(live, 1)
            hang_up(consumer)
            wait_parked(live, 0)
            assert live.call("POST", path, message(number)).status == 200
            assert taken(live, path) == str(number)
        assert_nothing_left(live, path)


@pytest.mark.parametrize("hang_up", [Client.close, Client.reset])
def test_a_hang_up_just_before_a_delivery_loses_nothing(steady: ServerProcess, path: str, hang_up: HangUp) -> None:
    with Client(steady) as live:
        for number in range(ROUNDS):
            consumer = Client(steady)
            consumer.ask("GET", path)
            wait_parked(live, 1)
            hang_up(consumer)
            assert live.call("POST", path, message(number)).body == b"null"
            assert taken(live, path) == str(number)
        assert_nothing_left(live, path)


@pytest.mark.parametrize("hang_up", [Client.close, Client.reset])
def test_a_hang_up_during_a_delivery_loses_nothing(steady: ServerProcess, path: str, hang_up: HangUp) -> None:
    def park(consumer: Client) -> None:
        consumer.ask("GET", path)
        wait_parked(live, 1)

    with Client(steady) as live:
        race(steady, live, path, park, hang_up, ROUNDS)


@pytest.mark.parametrize("hang_up", [Client.close, Client.reset])
def test_a_hang_up_during_a_started_answers_delivery_loses_nothing(
    beating: ServerProcess, path: str, hang_up: HangUp
) -> None:
    def park(consumer: Client) -> None:
        consumer.ask("GET", path)
        assert (consumer.head().status, consumer.chunk()) == (200, b" ")

    with Client(beating) as live:
        race(beating, live, path, park, hang_up, BEATEN_ROUNDS)


def race(
    server: ServerProcess, live: Client, path: str, park: Callable[[Client], None], hang_up: HangUp, rounds: int
) -> None:
    """Publish and hang up at once. A round that took too long to be sure of its outcome is made again."""
    sure = 0
    for number in range(10 * rounds):
        consumer = Client(server)
        park(consumer)
        began = time.monotonic()
        live.ask("POST", path, message(number))
        hang_up(consumer)
        in_time = time.monotonic() - began < LOOK_AT_LEAST_S
        assert live.answer().body == b"null"
        if in_time:
            assert taken(live, path) == str(number)
            sure += 1
        else:
            wait_unleased(live, path)
            live.call("GET", f"{path}?wait=0")
        if sure == rounds:
            break
    assert sure == rounds
    assert_nothing_left(live, path)


def test_the_next_in_line_gets_what_a_hung_up_consumer_did_not(steady: ServerProcess, path: str) -> None:
    with Client(steady) as publisher, Client(steady) as live:
        for number in range(50):
            doomed = Client(steady)
            for place, consumer in enumerate((doomed, live), 1):
                consumer.ask("GET", path)
                wait_parked(publisher, place)
            doomed.reset()
            publisher.ask("POST", path, message(number))
            assert live.answer().json()["type"] == str(number)
            assert publisher.answer().body == b"null"
        assert_nothing_left(publisher, path)


@pytest.mark.parametrize("parked", [True, False])
def test_a_client_that_has_read_its_answer_may_close_at_once(steady: ServerProcess, path: str, parked: bool) -> None:
    with Client(steady) as live:
        undone = metric(live, "wakeq_undone_leases_total")
        for number in range(ROUNDS):
            with Client(steady) as consumer:
                if parked:
                    consumer.ask("GET", path)
                    wait_parked(live, 1)
                assert live.call("POST", path, message(number)).status == 200
                if not parked:
                    consumer.ask("GET", path)
                assert consumer.answer().json()["type"] == str(number)
        assert_nothing_left(live, path)
        assert metric(live, "wakeq_undone_leases_total") == undone


def test_a_client_that_has_read_its_chunked_answer_may_close_at_once(beating: ServerProcess, path: str) -> None:
    with Client(beating) as live:
        for number in range(BEATEN_ROUNDS):
            with Client(beating) as consumer:
                consumer.ask("GET", path)
                assert consumer.head().status == 200
                live.call("POST", path, message(number))
                assert json.loads(consumer.rest())["type"] == str(number)
        assert_nothing_left(live, path)


@pytest.mark.parametrize("hang_up", [Client.close, Client.reset])
def test_a_hang_up_in_the_middle_of_a_large_message_gives_it_back(
    steady: ServerProcess, path: str, hang_up: HangUp
) -> None:
    """The kernel takes only a part of it, so that the server knows that the client can't have the rest."""
    large = b'{"type":"large","data":{"a":"%b"}}' % (b"x" * (24 << 20))
    with Client(steady) as live:
        assert live.call("POST", path, large).status == 200
        consumer = Client(steady, receive_buffer=65_536)
        consumer.ask("GET", path)
        assert consumer.head().status == 200
        for _ in range(100):
            assert live.call("GET", "/healthz").status == 200
        hang_up(consumer)
        assert taken(live, path) == "large"
        assert_nothing_left(live, path)


def test_a_publisher_that_hangs_up_in_its_body_has_not(steady: ServerProcess, path: str) -> None:
    with Client(steady) as live:
        with Client(steady) as publisher:
            headers = {"Content-Type": "application/json", "Content-Length": "1000", "Expect": "100-continue"}
            publisher.ask("POST", path, headers=headers)
            assert publisher.head().status == 100
            publisher.socket.sendall(b'{"type":"half')
        assert live.call("POST", path, message(1)).status == 200
        assert taken(live, path) == "1"
        assert_nothing_left(live, path)
