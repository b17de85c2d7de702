"""A server whose disk is full: publishes are refused, what makes room goes on, and nothing acknowledged is lost."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.crash.disks import MIB, filled, free, small_disk
from tests.e2e.api import Api, Json, leases, serving

pytestmark = pytest.mark.slow

DISK_MIB = 32
BODY = b'"%s"' % (b"x" * (MIB // 8))
GROUPS = ("default", "other")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", DISK_MIB) as at:
        yield at


def publish(api: Api, body: bytes = BODY) -> httpx.Response:
    return api.http.post("/messages/t", content=body, headers={"content-type": "application/json"})


def put(api: Api) -> None:
    api.put("t", lease_s=500)
    assert api.http.put("/topics/t/groups/other").status_code in (200, 201)


def publish_until_full(api: Api) -> list[int]:
    """The seqs of what was taken."""
    seqs = []
    while (answer := publish(api)).status_code == 200:
        seqs.append(int(answer.headers["wakeq-seq"]))
    assert answer.status_code == 507
    assert answer.json()["code"] == "STORAGE_FULL"
    return seqs


def health(api: Api) -> Json:
    answer = api.http.get("/healthz")
    assert answer.status_code == 200
    found: Json = answer.json()
    return found


def assert_full(api: Api) -> None:
    assert health(api) == {
        "status": "degraded",
        "storage": "the disk is full: publishes are refused until there is room, settles go on",
    }


def drain(api: Api, group: str, most: int = 10_000) -> list[int]:
    """Claim, extend and ack one message after the other, each answered when it is on disk; their seqs."""
    seqs: list[int] = []
    while len(seqs) < most and (deliveries := api.claim("t", max=1, group=group)):
        assert api.settle("t", extend=[{"lease_id": lease} for lease in leases(deliveries)]) == ["ok"]
        assert api.settle("t", ack=leases(deliveries)) == ["ok"]
        seqs += [delivery["seq"] for delivery in deliveries]
    return seqs


def test_what_was_taken_can_be_drained_and_then_there_is_room(disk: Path) -> None:
    with serving(disk / "data") as api:
        put(api)
        taken = publish_until_full(api)
        # Most of it can be used: the log and the reserve are small beside it.
        assert len(taken) * len(BODY) > DISK_MIB * MIB // 4
        assert_full(api)
        assert drain(api, "default") == taken
        assert drain(api, "other") == taken
        assert publish(api).status_code == 200
        assert health(api) == {"status": "ok"}
        assert len(publish_until_full(api)) > len(taken) // 2


def test_a_full_disk_is_survived_by_what_was_acknowledged(disk: Path) -> None:
    with serving(disk / "data") as api:
        put(api)
        taken = publish_until_full(api)
        settled = drain(api, "default", most=3)
    with serving(disk / "data") as api:
        assert drain(api, "default") == taken[3:]
        assert settled == taken[:3]
        assert drain(api, "other") == taken
        assert publish(api).status_code == 200


def test_settles_of_small_messages_do_not_use_up_the_reserve(disk: Path) -> None:
    """Each is a commit, and a commit is some pages of log, which together are more than is kept."""
    with serving(disk / "data") as api:
        put(api)
        api.post_lines("t", b"1\n" * 500)
        with filled(disk):
            publish_until_full(api)
            held = [api.claim("t", max=250, group=group) for group in GROUPS * 2]
            assert [len(deliveries) for deliveries in held] == [250] * 4
            for deliveries in held:
                for lease in leases(deliveries):
                    assert api.settle("t", nack=[{"lease_id": lease, "delay_s": 0}]) == ["ok"]
            for group in GROUPS:
                for lease in leases(api.claim("t", max=250, group=group)):
                    assert api.settle("t", release=[lease]) == ["ok"]
            assert_full(api)
        assert publish(api).status_code == 200


def test_a_disk_that_somebody_else_has_filled(disk: Path) -> None:
    with serving(disk / "data") as api:
        put(api)
        first = [int(publish(api).headers["wakeq-seq"]) for _ in range(4)]
        with filled(disk):
            first += publish_until_full(api)
            assert_full(api)
            assert api.http.put("/topics/t/groups/third").json()["code"] == "STORAGE_FULL"
            assert drain(api, "default") == first
        assert publish(api).status_code == 200
        assert health(api) == {"status": "ok"}
        assert drain(api, "other")[: len(first)] == first


def test_room_is_noticed_by_itself(disk: Path) -> None:
    with serving(disk / "data") as api:
        put(api)
        with filled(disk):
            publish_until_full(api)
            assert_full(api)
        assert api.server.wait_for("storage works again")
        assert [line["code"] for line in api.server.events("storage refuses")] == ["STORAGE_FULL"]
        assert health(api) == {"status": "ok"}


def test_a_server_starts_on_a_full_disk_and_says_so(disk: Path) -> None:
    with serving(disk / "data") as api:
        put(api)
        taken = [int(publish(api).headers["wakeq-seq"]) for _ in range(4)]
    # The killed server's reserve is there, and nothing else is free.
    with filled(disk):
        assert free(disk) == 0
        with serving(disk / "data") as api:
            assert_full(api)
            assert publish(api).json()["code"] == "STORAGE_FULL"
            assert drain(api, "default") == taken
    with serving(disk / "data") as api:
        assert health(api) == {"status": "ok"}
        assert drain(api, "other") == taken
