"""Servers that have all the topics, parked requests or memory that they may have."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.e2e.api import Api, leases, serving
from tests.support.raw import JSON, Answer, Client, call, metric, wait_parked
from tests.support.server import ServerProcess, start_server

# Topics


@pytest.fixture(params=["memory", "fsync"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    """Three topics, of which two are there."""
    arguments = ("--max-topics", "3", "--auto-create-topics", "--legacy-wait", "0")
    with start_server(tmp_path, *arguments, durability=request.param) as running:
        for name in ("a", "b"):
            assert call(running, "PUT", f"/topics/{name}", b"{}", JSON).status == 201
        yield running


def assert_refused(answer: Answer, status: int, code: str, kind: str = "application/json") -> None:
    assert (answer.status, answer.json()["code"]) == (status, code)
    assert answer.head.get("content-type") == kind


def names(server: ServerProcess) -> list[str]:
    return [topic["name"] for topic in call(server, "GET", "/topics").json()["topics"]]


def test_no_topic_more_is_made_than_may_be(small: ServerProcess) -> None:
    with Client(small) as client:
        assert client.call("POST", "/messages/c", b"{}", JSON).status == 200
        assert_refused(client.call("POST", "/topics/d"), 429, "TOO_MANY_TOPICS")
        problem = client.call("PUT", "/topics/d", b"{}", JSON)
        assert_refused(problem, 429, "TOO_MANY_TOPICS", "application/problem+json")
        assert "--max-topics" in problem.json()["detail"]
        for made in (client.call("POST", "/messages/d", b"{}", JSON), client.call("GET", "/messages/d")):
            assert_refused(made, 429, "TOO_MANY_TOPICS")
        assert client.call("POST", "/messages/d/claim", b"{}").status == 429
        assert names(small) == ["a", "b", "c"]
        assert metric(client, 'wakeq_refused_requests_total{code="TOO_MANY_TOPICS"}') == 5
        assert metric(client, "wakeq_topics") == 3


def test_a_full_server_goes_on_with_the_topics_that_it_has(small: ServerProcess) -> None:
    with Client(small) as client:
        assert client.call("PUT", "/topics/c", b"{}", JSON).status == 201
        assert client.call("PUT", "/topics/c", b'{"lease_s": 5}', JSON).status == 200
        assert client.call("POST", "/topics/c").status == 200
        assert client.call("POST", "/messages/c", b"1", JSON).status == 200
        assert client.call("DELETE", "/topics/c").status == 204
        assert client.call("PUT", "/topics/d", b"{}", JSON).status == 201


def test_topics_made_at_one_moment_do_not_pass_the_limit_together(small: ServerProcess) -> None:
    with ExitStack() as open_connections:
        clients = [open_connections.enter_context(Client(small)) for _ in range(12)]
        for number, client in enumerate(clients):
            target, method = (f"/messages/n{number}", "GET") if number % 2 else (f"/topics/n{number}", "POST")
            client.ask(method, target)
        statuses = [client.answer().status for client in clients]
    assert sorted(statuses) == [200] + [429] * 11
    assert len(names(small)) == 3


# Parked requests


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with start_server(tmp_path_factory.mktemp("data"), "--max-parked", "2", "--drain", "0") as running:
        call(running, "PUT", "/topics/json", b"{}", JSON)
        yield running


CLAIM = b'{"wait_s": 60}'
STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
def parked(crowded: ServerProcess) -> Iterator[list[Client]]:
    """Two claims, which is all that may be parked."""
    with Client(crowded) as monitor, Client(crowded) as first, Client(crowded) as second:
        wait_parked(monitor, 0)
        for client in (first, second):
            client.ask("POST", "/messages/json/claim", CLAIM)
        wait_parked(monitor, 2)
        yield [first, second]


def test_one_more_is_refused(crowded: ServerProcess, parked: list[Client]) -> None:
    refused = {
        "application/problem+json": [
            call(crowded, "POST", "/messages/json/claim", CLAIM),
            call(crowded, "GET", "/messages/json", headers=STREAM),
            call(crowded, "GET", "/messages/json?lease=9", headers=STREAM),
        ],
        "application/json": [call(crowded, "GET", "/messages/json?wait=9")],
    }
    for kind, answers in refused.items():
        for answer in answers:
            assert_refused(answer, 503, "TOO_MANY_PARKED", kind)
            assert int(answer.head.get("retry-after") or 0) >= 1
    assert all(client.silent() for client in parked)


def test_who_does_not_wait_is_served(crowded: ServerProcess, parked: list[Client]) -> None:
    assert call(crowded, "POST", "/messages/json/claim", b"{}").json() == {"messages": []}
    assert call(crowded, "GET", "/messages/json?wait=0").status == 204
    assert call(crowded, "GET", "/messages/json").status == 204


def test_a_message_that_is_there_is_handed_over_all_the_same(crowded: ServerProcess, parked: list[Client]) -> None:
    call(crowded, "PUT", "/topics/other", b"{}", JSON)
    for number in (b"1", b"2"):
        call(crowded, "POST", "/messages/other", number, JSON)
    (delivery,) = call(crowded, "POST", "/messages/other/claim", CLAIM).json()["messages"]
    assert delivery["body"] == 1
    assert call(crowded, "GET", "/messages/other?wait=9").body == b"2"


def test_llama_deploys_consumers_are_always_parked(crowded: ServerProcess, parked: list[Client]) -> None:
    with Client(crowded) as monitor, Client(crowded) as legacy, Client(crowded) as asking:
        legacy.ask("GET", "/messages/legacy")
        asking.ask("GET", "/messages/legacy?wait=60")
        wait_parked(monitor, 4)
        for _ in range(2):
            monitor.call("POST", "/messages/legacy", b"{}", JSON)
        assert [client.answer().json()["type"] for client in (legacy, asking)] == ["default", "default"]


def test_a_place_that_is_left_is_taken_again(crowded: ServerProcess, parked: list[Client]) -> None:
    with Client(crowded) as monitor, Client(crowded) as next_one:
        parked[0].close()
        wait_parked(monitor, 1)
        next_one.ask("GET", "/messages/json", headers=STREAM)
        assert next_one.head().status == 200
        wait_parked(monitor, 2)
        assert call(crowded, "POST", "/messages/json/claim", CLAIM).status == 503
        call(crowded, "POST", "/messages/json", b"1", JSON)
        parked[1].answer()
        # A stream keeps its place while it is written to.
        assert b"retry:" in next_one.chunk()
        call(crowded, "POST", "/messages/json", b"2", JSON)
        assert b"data: 2" in next_one.chunk()


# Memory


def take_all(api: Api, count: int) -> list[int]:
    """Claim and ack so many; their numbers."""
    numbers: list[int] = []
    while len(numbers) < count:
        deliveries = api.claim("t", max=min(50, count - len(numbers)))
        assert deliveries, f"nothing comes after {len(numbers)}"
        numbers += [body if isinstance(body, int) else body[0] for body in (one["body"] for one in deliveries)]
        assert set(api.settle("t", ack=leases(deliveries))) == {"ok"}
    return numbers


@pytest.mark.slow
def test_a_backlog_larger_than_the_budget_is_kept_out_of_memory_and_in_order(tmp_path: Path) -> None:
    budget, size, batch, batches = 4_000_000, 20_000, 100, 26
    total = batch * batches
    arguments = ("--memory-budget", str(budget), "--drain", "0")

    def rss() -> int:
        return psutil.Process(api.server.process.pid).memory_info().rss

    with serving(tmp_path, "fsync", *arguments) as api:
        api.put("t")
        api.post("t", b"0")
        before = rss()
        for first in range(1, total, batch):
            lines = b"\n".join(json.dumps([number, "x" * size]).encode() for number in range(first, first + batch))
            assert api.post_lines("t", lines) == batch
        assert total * size > 50_000_000
        assert api.http.get("/topics/t").json()["bytes"] > 50_000_000
        with Client(api.server) as monitor:
            assert budget * 0.9 < metric(monitor, "wakeq_memory_bytes") <= metric(monitor, "wakeq_memory_budget_bytes")
        assert rss() - before < 30_000_000
        seen = take_all(api, total // 2)
        assert rss() - before < 40_000_000
        api.server.kill()
    with serving(tmp_path, "fsync", *arguments) as api:
        started = rss()
        seen += take_all(api, total + 1 - len(seen))
        assert rss() - started < 40_000_000
        assert seen == list(range(total + 1))
        assert api.standing("t") == (0, 0, 0)
