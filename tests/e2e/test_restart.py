"""A server that is killed, and the next one on its data: everything that was answered is there."""

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Semaphore
from typing import Any

import httpx
import pytest

from tests.e2e.api import Api, Json, leases, serving
from tests.support.server import STOP_S


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_everything_that_was_answered_is_there_after_a_kill(tmp_path: Path, durability: str) -> None:
    answered: dict[int, str] = {}
    with serving(tmp_path, durability) as api:
        api.put("t")

        def publish(client: int) -> None:
            # Until the connection breaks: the kill comes in the middle of it.
            with httpx.Client(base_url=api.server.url, timeout=30.0, verify=False) as http:
                for number in range(100_000):
                    body = f"{client}-{number}"
                    try:
                        answer = http.post("/messages/t", json=body)
                    except httpx.TransportError:
                        return
                    answered[int(answer.headers["wakeq-seq"])] = body
                    if number == 100:
                        enough.release()

        enough = Enough()
        with ThreadPoolExecutor(4) as pool:
            publishers = [pool.submit(publish, client) for client in range(4)]
            enough.wait_for(4)
            api.server.kill()
            for publisher in publishers:
                publisher.result()
    assert len(answered) >= 4 * 100
    with serving(tmp_path, durability) as api:
        there = drain(api, "t")
        kept = {seq: body for seq, body in there if seq in answered}
        assert kept == answered
        assert [seq for seq, _ in there] == sorted({seq for seq, _ in there})
        for client in range(4):
            numbers = [int(body.split("-")[1]) for _, body in there if body.startswith(f"{client}-")]
            assert numbers == list(range(len(numbers)))


def drain(api: Api, topic: str) -> list[tuple[int, Any]]:
    """Claim until there is nothing left; seqs and bodies."""
    found: list[tuple[int, Any]] = []
    while deliveries := api.claim(topic):
        found += [(d["seq"], d["body"]) for d in deliveries]
    return found


class Enough:
    """Counts those who have done enough."""

    def __init__(self) -> None:
        self._semaphore = Semaphore(0)
        self.release = self._semaphore.release

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            assert self._semaphore.acquire(timeout=STOP_S)


# One restart for many cases: each makes something before it, on topics of its own, and looks at it after.

_BEFORE: dict[str, Callable[[Api], Any]] = {}
After = Callable[[str], tuple[Api, Any]]


def before(case: Callable[[Api], Any]) -> Callable[[Api], Any]:
    """To be called before the restart; what it returns is kept."""
    _BEFORE[case.__name__] = case
    return case


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> Iterator[After]:
    """After the restart: the server, and what a case has kept."""
    data = tmp_path_factory.mktemp("data")
    with serving(data) as api:
        kept = {name: case(api) for name, case in _BEFORE.items()}
        # Records of leases, and acks of plain GETs, ride along with the next commit.
        api.put("last")
    with serving(data) as api:
        yield lambda name: (api, kept[name])


BODIES = {
    "json": [
        (b' {"\xc3\xbc": [1, 2.50, 12345678901234567890123]}\n', "application/json"),
        (b"null", "application/json"),
    ],
    "any": [(b"", "text/plain"), (b"\x00\xff\r\n", "application/x"), (b"x" * 300_000, "text/plain; charset=utf-8")],
    "queue_message": [(b'{"id_": "a", "data": {"x": "\xc3\xbc\\ud800"}, "more": 1}', "application/json")],
}


@before
def bodies(api: Api) -> dict[str, list[tuple[bytes, str]]]:
    for schema, messages in BODIES.items():
        api.put(schema, schema=schema)
        for body, content_type in messages * 2:
            api.post(schema, body, content_type)
    return {schema: [got(api, schema) for _ in messages] for schema, messages in BODIES.items()}


def got(api: Api, topic: str) -> tuple[bytes, str]:
    answer = api.http.get(f"/messages/{topic}")
    assert answer.status_code == 200
    return answer.content, answer.headers["content-type"]


@pytest.mark.parametrize("schema", BODIES)
def test_bodies_and_types_are_kept_to_the_byte_and_what_was_taken_is_gone(after: After, schema: str) -> None:
    api, given = after("bodies")
    assert [got(api, schema) for _ in BODIES[schema]] == given[schema]
    assert api.http.get(f"/messages/{schema}?wait=0").content in (b"", b"null")
    assert given[schema] == BODIES[schema] or schema == "queue_message"


@before
def delivery(api: Api) -> Json:
    api.put("delivery")
    api.post("delivery", b"1")
    (claimed,) = api.claim("delivery")
    api.settle("delivery", nack=[{"lease_id": claimed["lease_id"], "delay_s": 0}])
    return claimed


def test_a_delivery_is_the_same_but_for_its_attempt_and_lease(after: After) -> None:
    api, given = after("delivery")
    (again,) = api.claim("delivery")
    changed = ("lease_id", "lease_expires_at", "attempt")
    assert {k: v for k, v in again.items() if k not in changed} == {k: v for k, v in given.items() if k not in changed}
    assert again["attempt"] == 2


@before
def configs(api: Api) -> Any:
    api.put("configs.a", schema="any", lease_s=7, max_messages=3, retry_backoff_s={"min": 2, "max": 3})
    api.put("configs.b", max_bytes=5)
    api.put("configs.b", max_bytes=6)
    api.put("configs.gone")
    api.http.post("/topics/configs.l%C3%A4nge")
    assert api.http.delete("/topics/configs.gone").status_code == 204
    return api.http.get("/topics?after=configs.&limit=3").json()


def test_topics_and_their_configuration_are_kept(after: After) -> None:
    api, given = after("configs")
    assert api.http.get("/topics?after=configs.&limit=3").json() == given
    assert [info["name"] for info in given["topics"]] == ["configs.a", "configs.b", "configs.länge"]


@before
def full(api: Api) -> None:
    api.put("full", max_messages=2, max_bytes=100)
    api.post("full", b"1")
    api.post("full", b"2")


def test_a_full_topic_is_still_full(after: After) -> None:
    api, _ = after("full")
    assert api.http.post("/messages/full", json=3).status_code == 429
    api.put("full", max_bytes=3)
    assert api.http.post("/messages/full", json=33).status_code == 429
    api.post("full", b"3")


@before
def settled(api: Api) -> None:
    api.put("settled")
    for number in range(6):
        api.post("settled", str(number).encode())
    acked, delayed, returned, released, nacked = leases(api.claim("settled", max=5))
    assert api.settle("settled", nack=[{"lease_id": nacked, "delay_s": 0}]) == ["ok"]
    (again,) = leases(api.claim("settled", max=1))
    nack = [{"lease_id": delayed, "delay_s": 500}, {"lease_id": returned, "delay_s": 0}]
    assert api.settle("settled", ack=[acked], nack=nack, release=[released, again]) == ["ok"] * 5


def test_settles_that_were_answered_are_kept(after: After) -> None:
    api, _ = after("settled")
    assert api.standing("settled") == (4, 1, 0)
    assert [(d["body"], d["attempt"]) for d in api.claim("settled")] == [(2, 2), (3, 1), (4, 2), (5, 1)]


@before
def leased(api: Api) -> list[str]:
    api.put("leased")
    for number in range(4):
        api.post("leased", str(number).encode())
    held = leases(api.claim("leased", lease_s=500))
    # Which is answered when they are on disk.
    assert api.settle("leased", extend=[{"lease_id": lease, "lease_s": 500} for lease in held]) == ["ok"] * 4
    return held


def test_a_committed_lease_is_held_across_a_restart_and_can_be_settled(after: After) -> None:
    api, (acked, nacked, extended, left) = after("leased")
    assert api.standing("leased") == (0, 0, 4)
    assert api.claim("leased") == []
    nack = [{"lease_id": nacked, "delay_s": 0}]
    for _ in range(2):
        assert api.settle("leased", ack=[acked], nack=nack, extend=[{"lease_id": extended}]) == ["ok"] * 3
    assert [(d["body"], d["attempt"]) for d in api.claim("leased")] == [(1, 2)]
    assert api.settle("leased", ack=[extended, left]) == ["ok", "ok"]


@before
def anew(api: Api) -> list[str]:
    api.put("anew")
    api.post("anew", b'"old"')
    old = leases(api.claim("anew", lease_s=500))
    assert api.http.delete("/topics/anew").status_code == 204
    return old


def test_a_topic_made_anew_after_a_restart_is_another(after: After) -> None:
    api, old = after("anew")
    assert api.http.get("/topics/anew").status_code == 404
    api.put("anew")
    api.post("anew", b'"new"')
    assert [d["body"] for d in api.claim("anew")] == ["new"]
    assert api.settle("anew", ack=old) == ["stale"]


# What is timed, each on its own: a second lost elsewhere would count.


def test_a_delay_goes_on_and_is_over_in_its_time(tmp_path: Path) -> None:
    with serving(tmp_path) as api:
        api.put("t")
        api.post("t", b'"soon"')
        api.post("t", b'"late"')
        soon, late = leases(api.claim("t"))
        api.settle("t", nack=[{"lease_id": late, "delay_s": 500}, {"lease_id": soon, "delay_s": 2}])
    with serving(tmp_path) as api:
        (delivery,) = api.claim("t", wait_s=20)
        assert (delivery["body"], delivery["attempt"]) == ("soon", 2)
        assert api.standing("t") == (0, 1, 1)


def test_a_restored_lease_expires_in_its_time_and_its_attempt_counts(tmp_path: Path) -> None:
    with serving(tmp_path) as api:
        api.put("t")
        api.post("t", b"1")
        (lease,) = leases(api.claim("t", lease_s=2))
        # Which is answered when it is on disk.
        api.settle("t", extend=[{"lease_id": lease, "lease_s": 2}])
    with serving(tmp_path) as api:
        (again,) = api.claim("t", wait_s=20)
        assert again["attempt"] == 2
        assert api.settle("t", ack=[lease]) == ["stale"]


def test_what_an_extension_has_promised_is_kept(tmp_path: Path) -> None:
    with serving(tmp_path) as api:
        api.put("t")
        api.post("t", b"1")
        (lease,) = leases(api.claim("t", lease_s=1))
        assert api.settle("t", extend=[{"lease_id": lease, "lease_s": 500}]) == ["ok"]
    with serving(tmp_path) as api:
        # Without the extension the lease would end while this waits.
        assert api.claim("t", wait_s=1.5) == []
        assert api.settle("t", ack=[lease]) == ["ok"]


def test_a_lease_that_was_never_committed_is_stale_and_counts_no_attempt(tmp_path: Path) -> None:
    with serving(tmp_path) as api:
        api.put("t")
        api.post("t", b"1")
        (lease,) = leases(api.claim("t", lease_s=500))
    forget_history(tmp_path)
    with serving(tmp_path) as api:
        (again,) = api.claim("t")
        assert again["attempt"] == 1
        assert api.settle("t", ack=[lease]) == ["stale"]
        assert api.settle("t", ack=[again["lease_id"]]) == ["ok"]


def forget_history(data: Path) -> None:
    """As if the server had died before it wrote what it knew of leases."""
    with closing(sqlite3.connect(data / "wakeq.sqlite3")) as database:
        database.execute("DELETE FROM history")
        database.commit()


def test_neither_seqs_nor_lease_ids_ever_come_again(tmp_path: Path) -> None:
    seqs: list[int] = []
    seen: list[str] = []
    for _ in range(3):
        with serving(tmp_path) as api:
            api.put("t")
            seqs += [api.post("t", b"1"), api.post("t", b"2")]
            deliveries = api.claim("t", max=2)
            seen += leases(deliveries)
            # The highest seq is acked, and so leaves nothing behind that would remember it.
            assert api.settle("t", ack=leases(deliveries)) == ["ok", "ok"]
    assert seqs == sorted(set(seqs))
    assert len(set(seen)) == 6


def test_a_drained_server_leaves_its_leases_to_the_next(tmp_path: Path) -> None:
    with serving(tmp_path, "fsync", "--drain", "0") as api:
        api.put("t")
        api.post("t", b"1")
        (lease,) = leases(api.claim("t", lease_s=500))
        assert api.server.terminate() == 0
    with serving(tmp_path) as api:
        assert api.standing("t") == (0, 0, 1)
        assert api.settle("t", ack=[lease]) == ["ok"]


def test_memory_keeps_nothing(tmp_path: Path) -> None:
    with serving(tmp_path, "memory") as api:
        api.put("t")
        api.post("t", b"1")
        (old,) = leases(api.claim("t"))
    assert list(tmp_path.iterdir()) == []
    with serving(tmp_path, "memory") as api:
        assert api.http.get("/topics").json() == {"topics": []}
        api.put("t")
        api.post("t", b"1")
        assert leases(api.claim("t")) != [old]
        assert api.settle("t", ack=[old]) == ["stale"]
