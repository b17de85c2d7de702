"""Presence over real connections: however a client goes, everybody who watches is told."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conformance.api import EventStream, Queue
from tests.support.raw import Client
from tests.support.server import ServerProcess, start_server

WORKER = """
import anyio, functools, sys, wakeq
async def run(url, topic):
    async with wakeq.AsyncClient(url) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(functools.partial(client.claim, topic, wait_s=50))
        await anext(client.consume(topic))
anyio.run(run, *sys.argv[1:])
"""
CLAIM = b'{"wait_s": 50}'


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """One that says nothing that a healthy one would not say."""
    with start_server(tmp_path, "--legacy-heartbeat", "0.2", durability="fsync") as server:
        yield server
        assert server.terminate() == 0
        assert not server.events("raw"), server.log


@pytest.fixture
def queue(server: ServerProcess) -> Iterator[Queue]:
    """The tests' way to ask it."""
    with httpx.Client(base_url=server.url, timeout=30.0, verify=False) as http:
        queue = Queue(server.url, http, auto_creates=False)
        yield queue
        queue.close()


def watch(queue: Queue, topic: str) -> EventStream:
    """A watcher that has seen its snapshot, of nobody."""
    watcher = queue.events(topic)
    assert watcher.next().event == "snapshot.end"
    return watcher


def next_of(watcher: EventStream) -> tuple[str, Any]:
    event = watcher.next()
    return event.event, json.loads(event.data)["consumer"]


def test_a_killed_worker_is_gone_for_all_watchers(queue: Queue) -> None:
    topic = queue.topic()
    watchers = [watch(queue, topic) for _ in range(20)]
    worker = subprocess.Popen([sys.executable, "-c", WORKER, queue.url, topic])
    try:
        _, name = next_of(watchers[0])
        assert name.startswith(f"{socket.gethostname()}:{worker.pid}:")
        queue.wait_until(topic, parked=2)
        (one,) = queue.http.get(f"/topics/{topic}/consumers").json()["consumers"]
        assert (one["id"], one["parked"], one["streams"]) == (name, 1, 1)
    finally:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    queue.wait_until(topic, parked=0)
    assert next_of(watchers[0]) == ("consumer.gone", name)
    for watcher in watchers[1:]:
        assert [next_of(watcher), next_of(watcher)] == [("consumer.parked", name), ("consumer.gone", name)]
    assert queue.http.get(f"/topics/{topic}/consumers").json() == {"consumers": []}


def test_however_a_connection_ends_its_consumer_is_gone(server: ServerProcess, queue: Queue) -> None:
    """All at once, since each takes its grace."""
    topic = queue.topic(schema="queue_message")
    watcher = watch(queue, topic)
    clients = {}
    for end in ("close", "reset", "half-close"):
        for path in ("", "?wait=50", "/claim"):
            name = f"{end} {path}"
            clients[name] = client = Client(server)
            method, body = ("POST", CLAIM) if path == "/claim" else ("GET", None)
            client.ask(method, f"/messages/{topic}{path}", body, {"Wakeq-Consumer": name})
            assert next_of(watcher) == ("consumer.parked", name)
    for name, client in clients.items():
        if name.startswith("close"):
            client.close()
        elif name.startswith("reset"):
            client.reset()
        else:
            client.socket.shutdown(socket.SHUT_WR)
    gone = [next_of(watcher) for _ in clients]
    assert sorted(gone) == sorted(("consumer.gone", name) for name in clients)
    for client in clients.values():
        client.close()
    assert queue.standing(topic)["parked"] == 0


def test_after_a_restart_nobody_is_present_until_it_asks_again(tmp_path: Path) -> None:
    with start_server(tmp_path, durability="fsync") as server, httpx.Client(base_url=server.url) as http:
        queue = Queue(server.url, http, auto_creates=False)
        topic = queue.topic()
        queue.stream(topic, {"wakeq-consumer": "a"}, lease=30)
        assert len(http.get(f"/topics/{topic}/consumers").json()["consumers"]) == 1
        server.kill()
        queue.hang_up()
    with start_server(tmp_path, durability="fsync") as server, httpx.Client(base_url=server.url) as http:
        queue = Queue(server.url, http, auto_creates=False)
        assert http.get(f"/topics/{topic}/consumers").json() == {"consumers": []}
        watcher = watch(queue, topic)
        queue.stream(topic, {"wakeq-consumer": "a"}, lease=30)
        assert next_of(watcher) == ("consumer.parked", "a")
        queue.hang_up()
