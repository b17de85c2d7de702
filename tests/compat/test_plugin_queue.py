"""What the plug-in's queue promises llama_deploy: nothing is acked before it is processed, and nothing is lost."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

import wakeq
from tests.compat.peer_process import START_MAX_S, PeerProcess, peer
from tests.compat.under_test import python_of
from tests.support.receiver import free_port, receiving
from tests.support.server import ServerProcess, start_server
from wakeq_bench.peers.llama_deploy import wakeq_on_path

pytestmark = [pytest.mark.compat, pytest.mark.slow]

NOTHING: Mapping[str, str] = MappingProxyType({})
SCRIPT = Path(__file__).with_name("scripts") / "plugin_queue.py"


class Desk:
    """A queue server, and llama_deploy's processes on it."""

    def __init__(self, version: str, directory: Path) -> None:
        self._python = python_of(version, for_wakeq=True)
        self._directory = directory
        path = directory / "path"
        path.mkdir()
        self._environment = wakeq_on_path(path)
        self._started = 0

    @contextmanager
    def run(
        self, port: int, scenario: str, *options: object, environment: Mapping[str, str] = NOTHING
    ) -> Iterator[PeerProcess]:
        """A process in that scenario."""
        self._started += 1
        arguments = [scenario, "--port", port, *options]
        variables = {**self._environment, **environment}
        with peer(self._python, SCRIPT, *arguments, errors=self._errors(), environment=variables) as process:
            yield process

    def error(self) -> str:
        """The last line that the last process has written to stderr."""
        return self._errors().read_text().strip().split("\n")[-1]

    def _errors(self) -> Path:
        return self._directory / f"process-{self._started}.log"

    @contextmanager
    def registered(self, port: int, scenario: str, *options: object) -> Iterator[PeerProcess]:
        """A process in that scenario that has registered its consumers."""
        with self.run(port, scenario, *options) as process:
            assert process.record(START_MAX_S) == {"registered": True}
            yield process


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """On the newest version: what a queue has to do with is the same in all; deployments are tested on more."""
    return Desk("0.8.1", tmp_path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with start_server(tmp_path / "data", durability="fsync") as server:
        yield server


@pytest.fixture
def client(server: ServerProcess) -> Iterator[wakeq.Client]:
    with wakeq.Client(server.url) as client:
        yield client


def message(**data: Any) -> dict[str, Any]:
    return {"type": "work", "data": data}


def leased(client: wakeq.Client) -> list[dict[str, Any]]:
    return [peeked.body["data"] for peeked in client.peek("work", state="leased")]


def test_a_message_is_acked_when_it_is_processed(desk: Desk, server: ServerProcess, client: wakeq.Client) -> None:
    with desk.registered(server.port, "consume") as worker:
        client.publish("work", message(wait=1))
        client.publish("work", message(wait=2))
        assert worker.record() == {"began": {"wait": 1}}
        # One at a time: another process may have the second.
        assert leased(client) == [{"wait": 1}]
        client.publish("release", message())
        assert worker.records(3) == [{"done": {"wait": 1}}, {"began": {"wait": 2}}, {"done": {"wait": 2}}]
        client.publish("work", message(fail="so that what came before is settled"))
        assert "began" in worker.record()
        assert {"wait": 2} not in leased(client)


def test_a_killed_consumers_message_comes_again(desk: Desk, server: ServerProcess, client: wakeq.Client) -> None:
    with desk.registered(server.port, "consume") as worker:
        client.publish("work", message(wait=1))
        assert worker.record() == {"began": {"wait": 1}}
        worker.process.kill()
    client.publish("release", message())
    with desk.registered(server.port, "consume") as worker:
        assert worker.records(2) == [{"began": {"wait": 1}}, {"done": {"wait": 1}}]


def test_what_can_not_be_processed_becomes_a_dead_letter(
    desk: Desk, server: ServerProcess, client: wakeq.Client
) -> None:
    """After as many attempts as an operator has set, which registering leaves alone; and others don't wait for it."""
    backoff = {"min": 0, "max": 0}
    client.create_topic("work", schema="queue_message", max_deliveries=2, retry_backoff_s=backoff)
    client.publish("work", message(fail="no such city"))
    client.publish("work", {"type": "other"})
    client.publish("work", message(number=3))
    with desk.registered(server.port, "consume") as worker:
        failed = {"began": {"fail": "no such city"}}
        assert worker.records(3) == [failed, failed, {"began": {"number": 3}}]
        first, second = client.peek("work", state="dead")
    assert (first.attempt, first.reason) == (2, "RuntimeError: no such city")
    assert second.reason == "ValueError: Consumer cannot process messages of type 'other'."


def test_a_service_that_fails_gets_its_message_again(desk: Desk, server: ServerProcess, client: wakeq.Client) -> None:
    with receiving() as service, desk.registered(server.port, "remote", "--service", service.url) as worker:
        client.publish("work", message(number=1))
        service.next().answer(500)
        again = service.next()
        assert b'"number":1' in again.body.replace(b" ", b"")
        again.answer()
        client.publish("work", message(number=2))
        assert b'"number":2' in service.next().body.replace(b" ", b"")
        assert leased(client) == [{"number": 2}]
        worker.process.kill()


def test_a_publish_that_is_refused_raises(desk: Desk, server: ServerProcess, client: wakeq.Client) -> None:
    client.create_topic("work", schema="queue_message")
    with desk.run(server.port, "publish") as publisher:
        assert publisher.record(START_MAX_S) == {"refused": "topic nobody not found"}
        assert publisher.record() == {"published": True}
        publisher.finish()
    (published,) = client.claim("work")
    assert published.body["data"] == {"number": 2**60, "text": "ü"}
    assert published.body["stats"]["publish_time"]


def test_consumers_end_when_they_are_told_to(desk: Desk, server: ServerProcess) -> None:
    with desk.run(server.port, "end") as process:
        for way in ("deregistered", "cancelled"):
            refused = process.record(START_MAX_S)
            assert refused == {"refused": "Consumer worker already registered for topic work"}
            assert process.records(2) == [{"began": {"until": way}}, {"done": {"until": way}}]
            assert process.record() == {"ended": way, "returned": None}
        process.finish()


def test_a_cancelled_consumers_message_is_anothers(desk: Desk, server: ServerProcess) -> None:
    with desk.run(server.port, "interrupted") as process:
        assert process.record(START_MAX_S) == {"interrupted": {"number": 1}}
        assert process.records(2) == [{"began": {"number": 1}}, {"done": {"number": 1}}]
        process.finish()


def test_consumers_outlive_a_killed_server(desk: Desk, tmp_path: Path) -> None:
    data = tmp_path / "kept"
    with start_server(data, durability="fsync") as first, desk.registered(first.port, "consume") as worker:
        with wakeq.Client(first.url) as client:
            client.publish("work", message(number=1))
            assert worker.records(2) == [{"began": {"number": 1}}, {"done": {"number": 1}}]
        first.kill()
        with start_server(data, durability="fsync", port=first.port) as second, wakeq.Client(second.url) as client:
            client.publish("work", message(number=2))
            # The first comes once more if its ack wasn't on disk when the server was killed.
            while (said := worker.record()) != {"done": {"number": 2}}:
                assert said in ({"began": {"number": 1}}, {"done": {"number": 1}}, {"began": {"number": 2}})


def test_registering_waits_for_the_server(desk: Desk, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
        with desk.run(port, "consume") as worker:
            nobody.settimeout(START_MAX_S)
            nobody.accept()[0].close()
            nobody.close()
            with start_server(tmp_path / "late", port=port):
                assert worker.record(START_MAX_S) == {"registered": True}


def test_a_server_that_is_not_wakeq_is_named(desk: Desk, tmp_path: Path) -> None:
    port = free_port()
    with (
        peer(python_of("0.8.1"), "queue", "--port", port, errors=tmp_path / "queue.log") as original,
        desk.run(port, "consume") as worker,
    ):
        assert original.line(START_MAX_S) == "READY"
        assert worker.process.wait(START_MAX_S) == 1
    assert f"WakeqError: http://127.0.0.1:{port}/ is no wakeq server: " in desk.error()


def test_the_token_is_the_environments(desk: Desk, tmp_path: Path) -> None:
    with (
        start_server(tmp_path / "guarded", "--token", "secret") as server,
        wakeq.Client(server.url, token="secret") as client,
    ):
        with desk.run(server.port, "consume") as worker:
            assert worker.process.wait(START_MAX_S) == 1
        assert desk.error().startswith("wakeq._errors.Unauthenticated: ")
        with desk.run(server.port, "consume", environment={"WAKEQ_TOKEN": "secret"}) as worker:
            assert worker.record(START_MAX_S) == {"registered": True}
            client.publish("work", message(number=1))
            assert worker.records(2) == [{"began": {"number": 1}}, {"done": {"number": 1}}]


def test_a_topic_that_is_deleted_is_consumed_again(desk: Desk, server: ServerProcess, client: wakeq.Client) -> None:
    with desk.registered(server.port, "consume") as worker:
        client.publish("work", message(number=1))
        assert worker.records(2) == [{"began": {"number": 1}}, {"done": {"number": 1}}]
        client.delete_topic("work")
        # Made by whoever is first.
        client.create_topic("work", schema="queue_message")
        client.publish("work", message(number=2))
        assert worker.records(2) == [{"began": {"number": 2}}, {"done": {"number": 2}}]


def test_the_control_plane_tells_services_what_they_know(desk: Desk) -> None:
    """Its own class and nothing more, so that a service without the plug-in can have it; and no token."""
    with desk.run(1, "config") as process:
        told = {"host": "queue.example", "port": 8002, "client_kwargs": {}, "raise_exceptions": False, "use_ssl": False}
        assert process.record(START_MAX_S) == {"told": {"SimpleMessageQueueConfig": told}}
        process.finish()
