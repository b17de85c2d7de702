"""Protocol, section 2: what operators do to a topic: peek, purge, redrive, pause and resume."""

import base64
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.conformance.api import Json, Queue, bodies, leases

FIELDS = {"seq", "id", "key", "headers", "published_at", "state", "attempt", "reason", "due_at", "body"}


def instant(text: str) -> datetime:
    """RFC 3339 in UTC."""
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


def after_publish(peeked: Json) -> float:
    """Seconds from a message's publish to its `due_at`."""
    return (instant(peeked["due_at"]) - instant(peeked["published_at"])) / timedelta(seconds=1)


# Peek


def one_in_each_state(queue: Queue) -> tuple[str, dict[str, int]]:
    """A topic with a message in each state, and one more that waits for its retry; their seqs."""
    topic = queue.topic()
    seqs = {name: queue.send(topic, name) for name in ("dead", "retried", "leased")}
    queue.die(topic, "because")
    retried, _ = queue.claim(topic, max=2, lease_s=1_000)
    queue.settle(topic, nack=[{"lease_id": retried["lease_id"], "delay_s": 2_000}])
    seqs["delayed"] = queue.send(topic, "delayed", delay_s=3_000)
    seqs["ready"] = queue.send(topic, "ready")
    return topic, seqs


def test_peek_shows_each_state_and_takes_nothing(queue: Queue) -> None:
    topic, seqs = one_in_each_state(queue)
    # Ages and rates change with time alone.
    passing = dict.fromkeys(["oldest_age_s", "delivered_per_s", "settled_per_s"])
    before = queue.group(topic) | passing
    for _ in range(2):
        seen = {state: queue.peek(topic, state=state) for state in ("ready", "delayed", "leased", "dead")}
        assert {state: bodies(peeked) for state, peeked in seen.items()} == {
            "ready": ["ready"],
            "delayed": ["retried", "delayed"],
            "leased": ["leased"],
            "dead": ["dead"],
        }
        for state, peeked in seen.items():
            assert [(set(one), one["state"], one["seq"]) for one in peeked] == [
                (FIELDS, state, seqs[one["body"]]) for one in peeked
            ]
    assert queue.group(topic) | passing == before
    assert bodies(queue.claim(topic, max=5)) == ["ready"]


def test_peeked_messages_tell_their_attempts_reason_and_moment(queue: Queue) -> None:
    topic, _ = one_in_each_state(queue)
    (dead,) = queue.peek(topic, state="dead")
    assert (dead["attempt"], dead["reason"]) == (1, "because")
    assert -1 < after_publish(dead) < 60
    retried, delayed = queue.peek(topic, state="delayed")
    assert (retried["attempt"], retried["reason"], delayed["attempt"]) == (1, None, 0)
    assert 1_999 < after_publish(retried) < 2_060
    assert 2_999 < after_publish(delayed) < 3_001
    (leased,) = queue.peek(topic, state="leased")
    assert leased["attempt"] == 1
    assert 999 < after_publish(leased) < 1_060
    (ready,) = queue.peek(topic)
    assert (ready["attempt"], ready["reason"], ready["due_at"]) == (0, None, None)


def test_a_peeked_message_has_its_attributes_and_its_body_as_in_a_delivery(queue: Queue) -> None:
    topic = queue.topic(schema="any")
    envelope = {"body_b64": base64.b64encode(b"\xff").decode(), "content_type": "image/x"}
    queue.envelopes(topic, {**envelope, "id": "i", "key": "k", "headers": {"a": "b"}})
    (peeked,) = queue.peek(topic)
    (delivery,) = queue.claim(topic)
    shared = {"seq", "id", "key", "headers", "published_at", "body_b64", "content_type"}
    assert {name: peeked[name] for name in shared} == {name: delivery[name] for name in shared}
    assert (peeked["id"], peeked["key"], peeked["headers"], "body" in peeked) == ("i", "k", {"a": "b"}, False)


def test_peek_goes_by_seq_in_pages(queue: Queue) -> None:
    topic = queue.topic()
    seqs = queue.publish(topic, *range(30))
    assert [one["seq"] for one in queue.peek(topic)] == seqs[:20]
    assert [one["seq"] for one in queue.peek(topic, limit=100)] == seqs
    after, found = 0, []
    while page := queue.peek(topic, after=after, limit=7):
        assert len(page) <= 7
        found += [one["seq"] for one in page]
        after = found[-1]
    assert found == seqs
    queue.claim(topic, max=10)
    assert [one["seq"] for one in queue.peek(topic, state="leased", after=seqs[4], limit=3)] == seqs[5:8]
    assert queue.peek(topic, after=seqs[-1]) == []


WRONG_PEEKS = [
    ("state", "gone", ["ready", "delayed", "leased", "dead"]),
    ("state", "", ["ready", "delayed", "leased", "dead"]),
    ("limit", "0", ["1", "100"]),
    ("limit", "101", ["1", "100"]),
    ("limit", "1.5", []),
    ("limit", "x", []),
    ("after", "-1", ["0"]),
    ("after", "x", []),
    ("group", "", []),
]


@pytest.mark.parametrize(("name", "value", "says"), WRONG_PEEKS)
def test_a_wrong_peek_is_refused_by_parameter_and_range(queue: Queue, name: str, value: str, says: list[str]) -> None:
    answer = queue.http.get(f"/topics/{queue.topic()}/messages", params={name: value})
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
    assert name in answer.json()["detail"]
    assert [part for part in says if part not in answer.json()["detail"]] == []


# Purge


def test_purge_drops_what_is_ready_or_delayed_and_leaves_leases_and_dead_letters(queue: Queue) -> None:
    topic, _ = one_in_each_state(queue)
    assert queue.do(topic, "purge") == {"purged": 3}
    assert queue.standing(topic) == {"ready": 0, "delayed": 0, "leased": 1, "parked": 0}
    assert [bodies(queue.peek(topic, state=state)) for state in ("leased", "dead")] == [["leased"], ["dead"]]
    assert queue.info(topic)["messages"] == 1
    assert queue.do(topic, "purge") == {"purged": 0}
    queue.publish(topic, "new")
    assert bodies(queue.claim(topic, max=5)) == ["new"]


def test_a_lease_that_outlives_a_purge_is_settled_as_ever(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, "nacked", "acked", "purged")
    nacked, acked = leases(queue.claim(topic, max=2))
    queue.do(topic, "purge")
    assert queue.settle(topic, nack=[{"lease_id": nacked, "delay_s": 0}], ack=[acked]) == ["ok", "ok"]
    assert [(d["body"], d["attempt"]) for d in queue.claim(topic, max=5)] == [("nacked", 2)]


def test_purge_makes_room(queue: Queue) -> None:
    topic = queue.topic(max_messages=2)
    queue.publish(topic, 1, 2)
    assert queue.post(topic, b"3").json()["code"] == "TOPIC_FULL"
    queue.do(topic, "purge")
    assert queue.post(topic, b"3").status_code == 200


# Redrive


def test_redrive_makes_dead_letters_ready_as_if_never_delivered(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, "a", "b", "c")
    queue.die(topic, "first", "second")
    assert queue.do(topic, "redrive") == {"moved": 2, "remaining": 0}
    assert queue.group(topic)["dead"] == 0
    assert queue.standing(topic) == {"ready": 3, "delayed": 0, "leased": 0, "parked": 0}
    # At their old places, too.
    assert [(d["body"], d["attempt"]) for d in queue.claim(topic, max=5)] == [("a", 1), ("b", 1), ("c", 1)]


def test_redrive_takes_the_oldest_dead_letters_first(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, *"abc")
    a, b, c = leases(queue.claim(topic, max=3))
    for lease in (b, c, a):
        queue.settle(topic, dead=[{"lease_id": lease}])
    assert queue.do(topic, "redrive", {"max": 2}) == {"moved": 2, "remaining": 1}
    assert bodies(queue.claim(topic, max=5)) == ["b", "c"]
    assert queue.do(topic, "redrive", {"max": 5}) == {"moved": 1, "remaining": 0}
    assert queue.do(topic, "redrive") == {"moved": 0, "remaining": 0}
    assert bodies(queue.claim(topic, max=5)) == ["a"]


def test_redriven_messages_take_room_again(queue: Queue) -> None:
    topic = queue.topic(max_messages=1)
    queue.publish(topic, 1)
    queue.die(topic, None)
    assert queue.info(topic)["messages"] == 0
    queue.do(topic, "redrive")
    assert queue.info(topic)["messages"] == 1
    assert queue.post(topic, b"2").json()["code"] == "TOPIC_FULL"


@pytest.mark.parametrize("body", [{"max": 0}, {"max": -1}, {"max": "1"}, {"max": 1.5}, {"more": 1}, []], ids=str)
def test_a_wrong_redrive_moves_nothing(queue: Queue, body: Any) -> None:
    topic = queue.topic()
    queue.publish(topic, 1)
    queue.die(topic, None)
    answer = queue.http.post(f"/topics/{topic}/redrive", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
    assert ("more" if "more" in body else "max" if body else "body") in answer.json()["detail"].lower()
    assert queue.group(topic)["dead"] == 1


# Pause and resume


def test_a_paused_topic_takes_publishes_and_settles_and_delivers_nothing(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, "acked", "nacked")
    acked, nacked = leases(queue.claim(topic, max=2))
    answer = queue.do(topic, "pause")
    assert (answer["name"], answer["paused"]) == (topic, True)
    queue.publish(topic, "new")
    assert queue.settle(topic, ack=[acked], nack=[{"lease_id": nacked, "delay_s": 0}]) == ["ok", "ok"]
    assert queue.claim(topic, max=5) == []
    assert queue.http.get(f"/messages/{topic}").status_code == 204
    assert queue.standing(topic) == {"ready": 2, "delayed": 0, "leased": 0, "parked": 0}
    resumed = queue.do(topic, "resume")
    assert (resumed["name"], resumed["paused"]) == (topic, False)
    assert bodies(queue.claim(topic, max=5)) == ["nacked", "new"]


def test_a_claim_of_a_paused_topic_waits_as_on_an_empty_one(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, 1)
    queue.do(topic, "pause")
    answer = queue.start("POST", f"/messages/{topic}/claim", b'{"wait_s": 0.05}').answer()
    assert (answer.status, answer.json()) == (200, {"messages": []})


def test_pausing_twice_is_pausing_and_a_new_configuration_does_not_resume(queue: Queue) -> None:
    topic = queue.topic()
    for _ in range(2):
        assert queue.do(topic, "pause")["paused"] is True
    assert queue.http.put(f"/topics/{topic}", json={"lease_s": 7}).json()["paused"] is True
    for _ in range(2):
        assert queue.do(topic, "resume")["paused"] is False
    assert queue.info(topic)["config"]["lease_s"] == 7


def test_leases_of_a_paused_topic_expire_and_delays_fall_due(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, "expires", "waits")
    _, waits = leases(queue.claim(topic, max=2, lease_s=1))
    queue.do(topic, "pause")
    queue.settle(topic, nack=[{"lease_id": waits, "delay_s": 0.1}])
    queue.wait_until(topic, ready=2)
    assert queue.claim(topic) == []
    queue.do(topic, "resume")
    assert [(d["body"], d["attempt"]) for d in queue.claim(topic, max=5)] == [("expires", 2), ("waits", 2)]
