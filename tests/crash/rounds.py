"""Servers that are killed at random moments, one after the other on the same data."""

import json
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.crash.clients import TOPIC, Consumer, Publisher
from tests.crash.history import History
from tests.support.server import ServerProcess, start_server

GROUPS = ("default", "other")
PUBLISHERS = 3
CONSUMERS = 2
"""Of each group."""
WAIT_S = 30.0


class Outcome(NamedTuple):
    """What became of some rounds."""

    violations: list[str]
    counts: dict[str, int]


def run(data: Path, rounds: int, seed: int, after_kill: Callable[[int], None] = lambda _: None) -> Outcome:
    """``after_kill`` is called with the round's number, when its server is dead."""
    chance = Random(seed)
    history = History(GROUPS)
    publishers = [Publisher(history, f"p{number}", Random(chance.random())) for number in range(PUBLISHERS)]
    consumers = [Consumer(history, group, Random(chance.random())) for group in GROUPS for _ in range(CONSUMERS)]
    with start_server(data, durability="fsync") as server:
        set_up(server)
        server.kill()
    for number in range(rounds):
        with start_server(data, durability="fsync") as server:
            works = [*(one.work for one in publishers), *(one.work for one in consumers)]
            with ThreadPoolExecutor(len(works)) as pool:
                working = [pool.submit(work, server) for work in works]
                try:
                    kill(server, history, chance)
                finally:
                    server.process.kill()
                for one in working:
                    one.result()
        after_kill(number)
    with start_server(data, durability="fsync") as server, ThreadPoolExecutor(len(consumers)) as pool:
        for drained in [pool.submit(one.drain, server) for one in consumers]:
            drained.result()
    return Outcome(history.violations(), dict(history.counts))


def set_up(server: ServerProcess) -> None:
    """A topic whose messages never die or rest, and whose idempotency keys are kept for as long as this takes."""
    config = {"max_deliveries": 0, "retry_backoff_s": {"min": 0, "max": 0}, "dedup_window_s": 86_400}
    put(server, f"/topics/{TOPIC}", json.dumps(config).encode())
    for group in GROUPS[1:]:
        put(server, f"/topics/{TOPIC}/groups/{group}", b"")


def put(server: ServerProcess, path: str, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{server.url}{path}", body, headers, method="PUT")
    with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
        assert answer.status == 201


def kill(server: ServerProcess, history: History, chance: Random) -> None:
    """After some of the load; at times right at the start, or while the server drains."""
    if chance.random() < 0.9:
        assert history.wait(chance.randint(1, 800), WAIT_S), "nothing happens any more"
    if chance.random() < 0.15:
        server.process.terminate()
    server.kill()
