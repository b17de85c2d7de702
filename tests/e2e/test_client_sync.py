"""wakeq.Client, without an event loop."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import wakeq
from tests.support.server import ServerProcess, start_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with start_server(tmp_path_factory.mktemp("data"), durability="os") as server:
        yield server


@pytest.fixture
def client(server: ServerProcess) -> Iterator[wakeq.Client]:
    with wakeq.Client(server.url) as client:
        yield client


@pytest.fixture
def topic(client: wakeq.Client, request: pytest.FixtureRequest) -> str:
    name: str = request.node.name
    client.create_topic(name, lease_s=500, retry_backoff_s={"min": 0, "max": 0})
    return name


def test_what_is_published_is_consumed(client: wakeq.Client, topic: str) -> None:
    client.publish_many(topic, range(3))
    bodies = []
    with client.consume(topic) as deliveries:
        for delivery in deliveries:
            with delivery:
                bodies.append(delivery.body)
            if len(bodies) == 3:
                break
    assert bodies == [0, 1, 2]
    assert client.topic(topic).messages == 0


def test_a_block_that_fails_gives_its_message_back_and_says_why(client: wakeq.Client, topic: str) -> None:
    client.configure_topic(topic, max_deliveries=1)
    client.publish(topic, 1)
    with client.consume(topic) as deliveries, pytest.raises(ZeroDivisionError), next(deliveries):
        _ = 1 / 0
    (dead,) = client.peek(topic, state="dead")
    assert dead.reason == "ZeroDivisionError: division by zero"


def test_claims_can_be_settled_in_every_way(client: wakeq.Client, topic: str) -> None:
    client.publish_many(topic, range(5))
    acked, nacked, dead, extended, released = client.claim(topic, max=5)
    acked.ack()
    nacked.nack(delay_s=100, reason="later")
    dead.dead(reason="never")
    extended.extend(50)
    released.release()
    assert acked.settled
    assert released.settled
    assert not extended.settled
    found = {
        state: [peeked.body for peeked in client.peek(topic, state=state)]
        for state in ("delayed", "dead", "leased", "ready")
    }  # fmt: skip
    assert found == {
        "delayed": [nacked.body], "dead": [dead.body], "leased": [extended.body], "ready": [released.body],
    }  # fmt: skip
    assert client.peek(topic, state="dead")[0].reason == "never"
    with pytest.raises(wakeq.LeaseLost):
        dead.ack()


def test_topics_and_groups_are_looked_after(client: wakeq.Client, topic: str) -> None:
    assert client.put_group(topic, "g").ready == 0
    client.publish(topic, 1)
    assert client.group(topic, "g").ready == 1
    assert client.purge(topic, group="g") == 1
    client.delete_group(topic, "g")
    assert client.pause(topic).paused
    assert not client.resume(topic).paused
    assert client.redrive(topic).moved == 0
    assert topic in [info.name for info in client.topics()]
    client.delete_topic(topic)
    with pytest.raises(wakeq.TopicNotFound):
        client.topic(topic)


def test_a_loop_that_is_left_gives_back_what_it_had_not_reached(client: wakeq.Client, topic: str) -> None:
    client.publish_many(topic, range(5))
    for delivery in client.consume(topic, lease_s=600):
        with delivery:
            break
    seen: list[tuple[int, int]] = []
    while len(seen) < 4:
        seen += [(delivery.body, delivery.attempt) for delivery in client.claim(topic, max=10, wait_s=20)]
    assert sorted(seen) == [(1, 1), (2, 1), (3, 1), (4, 1)]


def test_threads_share_a_client(client: wakeq.Client, topic: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: client.publish(topic, number), range(100)))
    assert sorted(delivery.body for delivery in client.claim(topic, max=1_000)) == list(range(100))


def test_a_client_needs_no_with(server: ServerProcess) -> None:
    client = wakeq.Client(server.url)
    assert client.create_topic("bare").name == "bare"
    before = threading.active_count()
    client.close()
    client.close()
    assert threading.active_count() == before - 1
    with pytest.raises(RuntimeError, match="the client is closed"):
        client.publish("bare", 1)


def test_a_program_that_forgets_to_close_ends(server: ServerProcess, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"import wakeq\nqueue = wakeq.Client({server.url!r})\nprint(queue.create_topic('t').name)\n")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "t\n", "")
