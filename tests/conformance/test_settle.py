"""Protocol, section 4.4: ack, nack, extend, dead, release."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.conformance.api import Json, Queue, bodies, leases


def claimed(queue: Queue, count: int, **config: Any) -> tuple[str, list[str]]:
    """A topic with so many messages, all leased; their lease ids."""
    topic = queue.topic(**{"lease_s": 500} | config)
    queue.publish(topic, *range(count))
    return topic, leases(queue.claim(topic, max=count))


def test_an_acked_message_is_gone(queue: Queue) -> None:
    topic, (first, second) = claimed(queue, 2)
    assert queue.settle(topic, ack=[first, second]) == ["ok", "ok"]
    assert queue.standing(topic) == {"ready": 0, "delayed": 0, "leased": 0, "parked": 0}
    assert queue.info(topic)["messages"] == 0


def test_results_come_in_the_order_ack_nack_extend_dead_release(queue: Queue) -> None:
    topic, (a, b, c, d, e, f) = claimed(queue, 6)
    lines = {
        "release": ["nonsense", f],
        "dead": [{"lease_id": e, "reason": "because"}],
        "extend": [{"lease_id": c, "lease_s": 100}],
        "nack": [{"lease_id": b, "delay_s": 500, "reason": "because"}, {"lease_id": "nonsense"}],
        "ack": [d, a],
    }
    answer = queue.http.post(f"/messages/{topic}/settle", json=lines)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "results": [
            {"lease_id": d, "status": "ok"},
            {"lease_id": a, "status": "ok"},
            {"lease_id": b, "status": "ok"},
            {"lease_id": "nonsense", "status": "unknown"},
            {"lease_id": c, "status": "ok"},
            {"lease_id": e, "status": "ok"},
            {"lease_id": "nonsense", "status": "unknown"},
            {"lease_id": f, "status": "ok"},
        ]
    }
    assert queue.standing(topic) == {"ready": 1, "delayed": 1, "leased": 1, "parked": 0}


def test_lines_are_applied_in_that_order(queue: Queue) -> None:
    topic, (a, b, c) = claimed(queue, 3)
    lines: dict[str, Any] = {
        "release": [b, c],
        "dead": [{"lease_id": a}, {"lease_id": b}, {"lease_id": c}],
        "extend": [{"lease_id": b}, {"lease_id": c}],
        "nack": [{"lease_id": a, "delay_s": 0}, {"lease_id": b, "delay_s": 0}],
        "ack": [a],
    }
    assert queue.settle(topic, **lines) == ["ok", "stale", "ok", "stale", "ok", *["stale"] * 2, "ok", *["stale"] * 2]
    assert bodies(queue.claim(topic, max=5)) == [1]
    assert bodies(queue.peek(topic, state="dead")) == [2]


def test_a_settle_of_nothing_answers_nothing(queue: Queue) -> None:
    topic = queue.topic()
    assert queue.settle(topic) == []
    assert queue.http.post(f"/messages/{topic}/settle").json() == {"results": []}


def test_a_nacked_message_takes_its_old_place(queue: Queue) -> None:
    topic, (a, b, _) = claimed(queue, 3)
    queue.publish(topic, 3)
    queue.settle(topic, nack=[{"lease_id": b, "delay_s": 0}])
    queue.settle(topic, nack=[{"lease_id": a, "delay_s": 0}])
    again = queue.claim(topic, max=9)
    assert [(d["body"], d["attempt"]) for d in again] == [(0, 2), (1, 2), (3, 1)]


@pytest.mark.capability("delay")
def test_a_nack_with_a_delay_hides_the_message_so_long(queue: Queue) -> None:
    topic, (a, b) = claimed(queue, 2)
    queue.settle(topic, nack=[{"lease_id": a, "delay_s": 0.2}, {"lease_id": b, "delay_s": 500}])
    assert queue.claim(topic) == []
    again = queue.claim_one(topic)
    assert (again["body"], again["attempt"]) == (0, 2)
    assert queue.standing(topic) == {"ready": 0, "delayed": 1, "leased": 1, "parked": 0}


@pytest.mark.capability("delay")
def test_a_delayed_message_takes_its_old_place_when_it_is_due(queue: Queue) -> None:
    topic, (a, _) = claimed(queue, 2)
    queue.publish(topic, 2)
    queue.settle(topic, nack=[{"lease_id": a, "delay_s": 0.1}])
    queue.wait_until(topic, ready=2)
    assert bodies(queue.claim(topic, max=5)) == [0, 2]


@pytest.mark.capability("delay")
def test_a_nack_without_a_delay_waits_for_the_topics_backoff(queue: Queue) -> None:
    topic, (lease,) = claimed(queue, 1, retry_backoff_s={"min": 0.1, "max": 500})
    queue.settle(topic, nack=[{"lease_id": lease}])
    assert queue.standing(topic)["delayed"] == 1
    again = queue.claim_one(topic)
    assert again["attempt"] == 2
    slow, (lease,) = claimed(queue, 1, retry_backoff_s={"min": 500, "max": 500})
    queue.settle(slow, nack=[{"lease_id": lease}])
    assert queue.claim(slow) == []
    at_once, (lease,) = claimed(queue, 1, retry_backoff_s={"min": 0, "max": 0})
    queue.settle(at_once, nack=[{"lease_id": lease}])
    assert bodies(queue.claim(at_once)) == [0]


def test_a_released_message_takes_its_old_place_and_counts_no_attempt(queue: Queue) -> None:
    topic, (a, b, _) = claimed(queue, 3)
    queue.publish(topic, 3)
    queue.settle(topic, nack=[{"lease_id": a, "delay_s": 0}])
    (again,) = queue.claim(topic)
    assert (again["body"], again["attempt"]) == (0, 2)
    assert queue.settle(topic, release=[b, again["lease_id"]]) == ["ok", "ok"]
    assert [(peeked["body"], peeked["attempt"]) for peeked in queue.peek(topic)] == [(0, 1), (1, 0), (3, 0)]
    assert [(d["body"], d["attempt"]) for d in queue.claim(topic, max=9)] == [(0, 2), (1, 1), (3, 1)]


def test_no_number_of_releases_makes_a_dead_letter(queue: Queue) -> None:
    topic, (lease,) = claimed(queue, 1, max_deliveries=1)
    for _ in range(3):
        assert queue.settle(topic, release=[lease]) == ["ok"]
        (again,) = queue.claim(topic)
        assert again["attempt"] == 1
        lease = again["lease_id"]
    assert queue.settle(topic, nack=[{"lease_id": lease}]) == ["ok"]
    assert bodies(queue.peek(topic, state="dead")) == [0]


def test_repeating_an_outcome_is_ok_again(queue: Queue) -> None:
    topic, (a, b, c, d) = claimed(queue, 4)
    nack = [{"lease_id": b, "delay_s": 0}]
    assert queue.settle(topic, ack=[a, a], nack=nack + nack, release=[d, d]) == ["ok"] * 6
    for _ in range(2):
        assert queue.settle(topic, ack=[a], nack=nack, release=[d]) == ["ok"] * 3
    extend = [{"lease_id": c}]
    assert queue.settle(topic, extend=extend + extend) == ["ok", "ok"]
    assert [(d["body"], d["attempt"]) for d in queue.claim(topic, max=5)] == [(1, 2), (3, 1)]


def test_another_outcome_is_stale_and_changes_nothing(queue: Queue) -> None:
    topic, (a, b, c) = claimed(queue, 3)
    queue.settle(topic, ack=[a], nack=[{"lease_id": b, "delay_s": 500}], release=[c])
    before = queue.standing(topic)
    lines: dict[str, Any] = {
        "ack": [b, c],
        "nack": [{"lease_id": a, "delay_s": 0}, {"lease_id": c}],
        "extend": [{"lease_id": a}, {"lease_id": b}, {"lease_id": c}],
        "dead": [{"lease_id": c}],
        "release": [a, b],
    }
    assert queue.settle(topic, **lines) == ["stale"] * 10
    assert queue.standing(topic) == before


@pytest.mark.capability("fence")
def test_a_lease_that_has_ended_cannot_touch_its_successor(queue: Queue) -> None:
    topic, (old,) = claimed(queue, 1)
    queue.settle(topic, nack=[{"lease_id": old, "delay_s": 0}])
    new = queue.claim_one(topic, lease_s=500)["lease_id"]
    assert queue.settle(topic, ack=[old], extend=[{"lease_id": old}], release=[old]) == ["stale"] * 3
    assert queue.standing(topic)["leased"] == 1
    assert queue.settle(topic, ack=[new]) == ["ok"]


def test_only_the_spelling_that_was_handed_out_is_a_lease_id(queue: Queue) -> None:
    topic, (lease_id,) = claimed(queue, 1)
    first, rest = lease_id.split("-", 1)
    almost = [
        f"{lease_id} ",
        f" {lease_id}",
        f"{lease_id}\n",
        f"0{lease_id}",
        f"+{lease_id}",
        f"0x{lease_id}",
        f"{first[0]}_{lease_id[1:]}",
        f"{first}-0{rest}",
        f"{first}--{rest}",
        f"{lease_id}-0",
        f"{lease_id}\0",
        lease_id.translate({ord("0") + digit: 0x660 + digit for digit in range(10)}),
    ]
    assert queue.settle(topic, ack=almost) == ["unknown"] * len(almost)
    assert queue.settle(topic, ack=[lease_id]) == ["ok"]


def test_what_is_no_lease_id_is_unknown(queue: Queue) -> None:
    topic, (lease,) = claimed(queue, 1)
    ids = ["", "x", "-", "1-2-3", lease + "-0", lease + "x", "ü", "9" * 512, "0-0-0-0-g"]
    assert queue.settle(topic, ack=ids) == ["unknown"] * len(ids)
    assert queue.settle(topic, ack=[lease]) == ["ok"]


def mangled(lease: str) -> list[str]:
    """Well-formed lease ids that nobody was given."""
    parts = lease.split("-")
    return ["-".join([*parts[:i], f"{int(parts[i], 16) + 7:x}", *parts[i + 1 :]]) for i in range(len(parts))]


def test_a_lease_of_elsewhere_settles_nothing(queue: Queue, about: Json) -> None:
    topic, (lease,) = claimed(queue, 1)
    other, (foreign,) = claimed(queue, 1)
    assert set(queue.settle(topic, ack=[foreign])) <= {"stale", "unknown"}
    if about["engine"] == "embedded":
        assert queue.settle(topic, ack=mangled(lease)) == ["stale"] * 5
    assert queue.standing(topic)["leased"] == queue.standing(other)["leased"] == 1


def test_extend_counts_from_the_call_and_may_shorten(queue: Queue) -> None:
    topic = queue.topic(lease_s=500)
    queue.publish(topic, "kept", "by default", "left", "shortened")
    kept, by_default, _ = leases(queue.claim(topic, max=3, lease_s=1))
    (shortened,) = leases(queue.claim(topic, lease_s=500))
    lines = [{"lease_id": kept, "lease_s": 400}, {"lease_id": by_default}, {"lease_id": shortened, "lease_s": 1}]
    assert queue.settle(topic, extend=lines) == ["ok"] * 3
    again = [queue.claim_one(topic), queue.claim_one(topic)]
    assert [(d["body"], d["attempt"]) for d in again] == [("left", 2), ("shortened", 2)]
    # Leased together with the one that has come back first: had nobody extended them, they would be here too.
    assert queue.claim(topic) == []
    assert queue.settle(topic, ack=[kept, by_default]) == ["ok", "ok"]


def test_an_extended_lease_keeps_its_id(queue: Queue) -> None:
    topic, (lease,) = claimed(queue, 1)
    for _ in range(3):
        assert queue.settle(topic, extend=[{"lease_id": lease, "lease_s": 43_200}]) == ["ok"]
    assert queue.settle(topic, ack=[lease]) == ["ok"]


def test_an_extension_ends_twelve_hours_after_the_claim_at_most(queue: Queue, about: Json) -> None:
    topic, (_, longest) = queue.topic(), about["limits"]["lease_s"]
    queue.publish(topic, 1)
    (delivery,) = queue.claim(topic, lease_s=longest)
    extend = [{"lease_id": delivery["lease_id"], "lease_s": longest}]
    for _ in range(3):
        assert queue.settle(topic, extend=extend) == ["ok"]
    (peeked,) = queue.peek(topic, state="leased")
    ends, ended = map(datetime.fromisoformat, (peeked["due_at"], delivery["lease_expires_at"]))
    # Of the clocks behind them, each is rounded to milliseconds.
    assert abs(ends - ended) <= timedelta(milliseconds=2)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"ack": "x"}, "ack"),
    ({"ack": [1]}, "ack.1"),
    ({"nack": ["x"]}, "nack.0"),
    ({"nack": [{}]}, "lease_id"),
    ({"nack": [{"lease_id": "x", "delay_s": -1}]}, "delay_s"),
    ({"nack": [{"lease_id": "x", "delay_s": 2_592_001}]}, "2592000"),
    ({"nack": [{"lease_id": "x", "lease_s": 1}]}, "lease_s"),
    ({"extend": [{"lease_id": "x", "lease_s": 0.5}]}, "from 1 to 43200"),
    ({"extend": [{"lease_id": "x", "lease_s": 43_201}]}, "from 1 to 43200"),
    ({"nack": [{"lease_id": "x", "reason": 1}]}, "reason"),
    ({"dead": ["x"]}, "dead.0"),
    ({"dead": [{}]}, "lease_id"),
    ({"dead": [{"lease_id": "x", "reason": 1}]}, "reason"),
    ({"dead": [{"lease_id": "x", "delay_s": 1}]}, "delay_s"),
    ({"release": [{"lease_id": "x"}]}, "release.0"),
    ({"no_such_outcome": []}, "no_such_outcome"),
]


@pytest.mark.parametrize(("lines", "says"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_settle_is_refused_whole(queue: Queue, lines: dict[str, Any], says: str) -> None:
    topic, (lease,) = claimed(queue, 1)
    ack = {"ack": [lease, *lines["ack"]] if isinstance(lines.get("ack"), list) else lines.get("ack", [lease])}
    answer = queue.http.post(f"/messages/{topic}/settle", json=lines | ack)
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
    assert says in answer.json()["detail"].replace(",", "")
    assert queue.standing(topic)["leased"] == 1


def test_a_settle_on_an_unknown_topic_is_not_found(queue: Queue) -> None:
    answer = queue.http.post(f"/messages/{queue.new_name()}/settle", json={"ack": ["x"]})
    assert (answer.status_code, answer.json()["code"]) == (404, "TOPIC_NOT_FOUND")


def test_a_settle_whose_caller_hangs_up_is_done(queue: Queue) -> None:
    topic, leased = claimed(queue, 10)
    for lease in leased:
        queue.start("POST", f"/messages/{topic}/settle", f'{{"ack": ["{lease}"]}}'.encode()).close()
    queue.wait_until(topic, leased=0, ready=0)
