"""Protocol, section 4.6: groups."""

from typing import Any

import pytest

from tests.conformance.api import Queue, bodies, leases

pytestmark = pytest.mark.capability("groups")

EMPTY = {"ready": 0, "delayed": 0, "leased": 0, "dead": 0, "oldest_age_s": None, "parked": 0} | {
    "delivered_per_s": 0.0,
    "settled_per_s": 0.0,
}


def with_group(queue: Queue, **config: Any) -> str:
    """A topic with another group, `g`."""
    topic = queue.topic(**config)
    queue.add_group(topic, "g")
    return topic


def test_put_makes_a_group_or_finds_it_made(queue: Queue) -> None:
    topic = queue.topic()
    first = queue.http.put(f"/topics/{topic}/groups/g")
    assert (first.status_code, first.json()) == (201, EMPTY)
    queue.publish(topic, 1)
    again = queue.http.put(f"/topics/{topic}/groups/g")
    assert again.status_code == 200
    assert (set(again.json()), again.json()["ready"]) == (set(EMPTY), 1)
    assert set(queue.info(topic)["groups"]) == {"default", "g"}


def test_get_shows_what_the_topics_info_shows(queue: Queue) -> None:
    topic = with_group(queue)
    queue.publish(topic, 1, 2)
    queue.claim(topic, group="g")
    answer = queue.http.get(f"/topics/{topic}/groups/g")
    assert answer.headers["content-type"] == "application/json"
    changing = {"oldest_age_s": None, "delivered_per_s": 0.0}
    assert answer.json() | changing == EMPTY | {"ready": 1, "leased": 1}
    assert answer.json()["oldest_age_s"] >= 0
    assert queue.standing(topic, "g") == {"ready": 1, "delayed": 0, "leased": 1, "parked": 0}


def test_every_group_gets_every_message_and_its_members_compete(queue: Queue) -> None:
    topic = with_group(queue)
    queue.publish(topic, 1, 2)
    for group in ("default", "g"):
        assert bodies(queue.claim(topic, group=group) + queue.claim(topic, group=group)) == [1, 2]
        assert queue.claim(topic, group=group) == []


def test_a_group_gets_no_message_from_before_it(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, "before")
    queue.send(topic, "before, and delayed", delay_s=0.1)
    queue.add_group(topic, "g")
    assert queue.group(topic, "g") == EMPTY
    queue.publish(topic, "after")
    assert bodies([*queue.claim(topic, max=5, wait_s=10), queue.claim_one(topic)]) == [
        "before",
        "after",
        "before, and delayed",
    ]
    assert bodies(queue.claim(topic, max=5, group="g")) == ["after"]


def test_leases_and_attempts_are_each_groups_own(queue: Queue) -> None:
    topic = with_group(queue)
    queue.publish(topic, 1)
    (ours,) = queue.claim(topic)
    queue.settle(topic, nack=[{"lease_id": ours["lease_id"], "delay_s": 0}])
    again, theirs = queue.claim_one(topic), queue.claim_one(topic, group="g")
    assert (again["attempt"], theirs["attempt"]) == (2, 1)
    assert again["seq"] == theirs["seq"] == ours["seq"]
    assert len({ours["lease_id"], again["lease_id"], theirs["lease_id"]}) == 3
    assert queue.settle(topic, release=[theirs["lease_id"], again["lease_id"]]) == ["ok", "ok"]
    again, theirs = queue.claim_one(topic), queue.claim_one(topic, group="g")
    assert (again["attempt"], theirs["attempt"]) == (2, 1)
    assert queue.settle(topic, ack=[theirs["lease_id"]]) == ["ok"]
    assert queue.standing(topic) == {"ready": 0, "delayed": 0, "leased": 1, "parked": 0}
    assert queue.standing(topic, "g") == {"ready": 0, "delayed": 0, "leased": 0, "parked": 0}


def test_delays_and_dead_letters_are_each_groups_own(queue: Queue) -> None:
    topic = with_group(queue)
    queue.publish(topic, "dies", "waits")
    queue.die(topic, "because", group="g")
    (lease,) = leases(queue.claim(topic, group="g"))
    queue.settle(topic, nack=[{"lease_id": lease, "delay_s": 500}])
    assert queue.standing(topic, "g") == {"ready": 0, "delayed": 1, "leased": 0, "parked": 0}
    assert queue.group(topic, "g")["dead"] == 1
    assert bodies(queue.claim(topic, max=5)) == ["dies", "waits"]
    assert bodies(queue.peek(topic, state="dead", group="g")) == ["dies"]
    assert queue.peek(topic, state="dead") == []
    assert queue.do(topic, "redrive", group="g") == {"moved": 1, "remaining": 0}
    assert bodies(queue.claim(topic, max=5, group="g")) == ["dies"]


def test_a_body_goes_when_the_last_group_is_done_with_it(queue: Queue) -> None:
    topic = with_group(queue, max_messages=2)
    queue.publish(topic, 1, 2)
    queue.settle(topic, ack=leases(queue.claim(topic, max=2)))
    assert queue.info(topic)["messages"] == 2
    assert queue.post(topic, b"3").json()["code"] == "TOPIC_FULL"
    (first, _) = queue.claim(topic, max=2, group="g")
    queue.settle(topic, ack=[first["lease_id"]])
    assert queue.info(topic)["messages"] == 1
    assert queue.post(topic, b"3").status_code == 200


def test_purge_drops_in_one_group(queue: Queue) -> None:
    topic = with_group(queue)
    queue.publish(topic, 1, 2)
    assert queue.do(topic, "purge", group="g") == {"purged": 2}
    assert queue.standing(topic, "g")["ready"] == 0
    assert bodies(queue.claim(topic, max=5)) == [1, 2]
    queue.publish(topic, 3)
    assert bodies(queue.claim(topic, max=5, group="g")) == [3]


@pytest.mark.capability("ordering_keys")
def test_a_key_is_held_in_each_group_by_itself(queue: Queue) -> None:
    topic = with_group(queue)
    for body in (1, 2):
        queue.send(topic, body, key="k")
    (ours,) = queue.claim(topic, max=5)
    (theirs,) = queue.claim(topic, max=5, group="g")
    queue.settle(topic, ack=[ours["lease_id"]])
    assert bodies(queue.claim(topic, max=5)) == [2]
    assert queue.claim(topic, group="g") == []
    queue.settle(topic, ack=[theirs["lease_id"]])
    assert bodies(queue.claim(topic, max=5, group="g")) == [2]


def test_one_message_wakes_one_consumer_of_each_group(queue: Queue) -> None:
    topic = with_group(queue)
    parked = [queue.park(topic, group=group) for group in ("default", "default", "g", "g")]
    queue.publish(topic, 1)
    assert [parked[0].answer().bodies(), parked[2].answer().bodies()] == [[1], [1]]
    assert [queue.standing(topic, group)["parked"] for group in ("default", "g")] == [1, 1]


def test_gets_and_streams_consume_in_the_group_they_name(queue: Queue) -> None:
    topic = with_group(queue)
    queue.publish(topic, *range(4))
    assert queue.http.get(f"/messages/{topic}?group=g").json() == 0
    assert queue.stream(topic, group="g", lease=500, prefetch=1).take(1)[0]["body"] == 1
    stream = queue.stream(topic, group="g")
    assert stream.take(2) == [2, 3]
    queue.wait_until(topic, "g", ready=0, leased=1)
    assert queue.standing(topic)["ready"] == 4
    queue.publish(topic, 4)
    assert stream.take(1) == [4]


def test_a_group_may_settle_only_by_its_own_leases(queue: Queue) -> None:
    topic = with_group(queue)
    queue.publish(topic, 1)
    (theirs,) = leases(queue.claim(topic, group="g"))
    assert queue.settle(topic, ack=[theirs]) == ["ok"]
    assert queue.standing(topic)["ready"] == 1


# Deleting


def test_delete_drops_a_group_and_what_only_it_waited_for(queue: Queue) -> None:
    topic = with_group(queue)
    queue.publish(topic, 1, 2)
    queue.settle(topic, ack=leases(queue.claim(topic)))
    (held,) = leases(queue.claim(topic, group="g"))
    answer = queue.http.delete(f"/topics/{topic}/groups/g")
    assert (answer.status_code, answer.content) == (204, b"")
    assert queue.info(topic)["messages"] == 1
    assert set(queue.info(topic)["groups"]) == {"default"}
    assert queue.settle(topic, ack=[held]) == ["stale"]
    assert bodies(queue.claim(topic, max=5)) == [2]


def test_a_group_made_anew_begins_with_nothing(queue: Queue) -> None:
    topic = with_group(queue)
    queue.publish(topic, "old", "older")
    (old,) = leases(queue.claim(topic, group="g"))
    queue.http.delete(f"/topics/{topic}/groups/g")
    queue.add_group(topic, "g")
    assert queue.group(topic, "g") == EMPTY
    assert queue.settle(topic, ack=[old]) == ["stale"]
    queue.publish(topic, "new")
    assert bodies(queue.claim(topic, max=5, group="g")) == ["new"]


MISSING = [
    ("GET", "/topics/{}/groups/nobody", None),
    ("DELETE", "/topics/{}/groups/nobody", None),
    ("GET", "/topics/{}/messages?group=nobody", None),
    ("POST", "/topics/{}/purge?group=nobody", None),
    ("POST", "/topics/{}/redrive?group=nobody", None),
    ("POST", "/messages/{}/claim", {"group": "nobody"}),
    ("GET", "/messages/{}?group=nobody", None),
]


@pytest.mark.parametrize(("method", "path", "body"), MISSING, ids=lambda value: str(value))
def test_a_missing_group_is_not_found_and_not_made(queue: Queue, method: str, path: str, body: Any) -> None:
    topic = queue.topic()
    answer = queue.http.request(method, path.format(topic), json=body)
    assert (answer.status_code, answer.json()["code"]) == (404, "GROUP_NOT_FOUND")
    assert "nobody" in answer.json()["detail"]
    assert set(queue.info(topic)["groups"]) == {"default"}


@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
def test_a_group_of_an_unknown_topic_is_not_found_and_makes_none(queue: Queue, method: str) -> None:
    topic = queue.new_name()
    answer = queue.http.request(method, f"/topics/{topic}/groups/g")
    assert (answer.status_code, answer.json()["code"]) == (404, "TOPIC_NOT_FOUND")
    assert queue.http.get(f"/topics/{topic}").status_code == 404


def test_default_may_go_and_calls_without_a_group_miss_it_then(queue: Queue) -> None:
    topic = with_group(queue)
    queue.publish(topic, 1)
    assert queue.http.delete(f"/topics/{topic}/groups/default").status_code == 204
    for answer in (
        queue.http.post(f"/messages/{topic}/claim"),
        queue.http.get(f"/messages/{topic}?wait=0"),
        queue.http.get(f"/messages/{topic}", headers={"accept": "text/event-stream"}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "GROUP_NOT_FOUND")
    assert bodies(queue.claim(topic, group="g")) == [1]
    queue.add_group(topic, "default")
    queue.publish(topic, 2)
    assert bodies(queue.claim(topic)) == [2]


def test_a_topic_without_groups_keeps_nothing(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, 1)
    queue.http.delete(f"/topics/{topic}/groups/default")
    assert (queue.info(topic)["messages"], queue.info(topic)["groups"]) == (0, {})
    assert queue.post(topic, b"2").status_code == 200
    queue.add_group(topic, "late")
    assert queue.claim(topic, group="late") == []
    assert queue.info(topic)["messages"] == 0


def test_consumers_parked_in_a_group_are_told_when_it_is_deleted(queue: Queue) -> None:
    topic = with_group(queue, schema="queue_message")
    claim = queue.park(topic, group="g")
    get = queue.start("GET", f"/messages/{topic}?group=g&wait=50")
    queue.wait_until(topic, "g", parked=2)
    streams = [queue.stream(topic, group="g"), queue.stream(topic, group="g", lease=500)]
    other = queue.park(topic)
    queue.wait_until(topic, "g", parked=4)
    assert queue.http.delete(f"/topics/{topic}/groups/g").status_code == 204
    for request in (claim, get):
        answer = request.answer()
        assert (answer.status, answer.json()["code"]) == (404, "GROUP_NOT_FOUND")
    for stream in streams:
        with pytest.raises(EOFError):
            stream.next()
    queue.publish(topic, {"id_": "for the other"})
    assert other.answer().bodies()[0]["id_"] == "for the other"


def test_an_answer_that_has_begun_ends_as_null_when_its_group_is_deleted(queue: Queue) -> None:
    topic = with_group(queue, schema="queue_message")
    request = queue.start("GET", f"/messages/{topic}?group=g")
    with request.connection.getresponse() as response:
        assert response.read(1) == b" "
        queue.http.delete(f"/topics/{topic}/groups/g")
        assert response.read().strip() == b"null"


NAMES = ["a b", "ü", "日本語", "..", "a%b", "a?b#c", "'\"\\", "x" * 255, "é" * 255]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_groups_have_names_like_topics(queue: Queue, name: str) -> None:
    topic = queue.topic()
    path = f"/topics/{topic}/groups/" + "".join(f"%{byte:02X}" for byte in name.encode())
    assert queue.http.put(path).status_code == 201
    queue.publish(topic, 1)
    assert bodies(queue.claim(topic, group=name)) == [1]
    assert queue.http.get(path).json()["leased"] == queue.group(topic, name)["leased"] == 1
    assert queue.http.delete(path).status_code == 204


@pytest.mark.parametrize("name", ["x" * 256, "a%00", "a%0Ab", "%7F"], ids=["256", "nul", "lf", "del"])
def test_other_names_are_refused(queue: Queue, name: str) -> None:
    topic = queue.topic()
    answer = queue.http.put(f"/topics/{topic}/groups/{name}")
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
    assert "255" in answer.json()["detail"]
    assert set(queue.info(topic)["groups"]) == {"default"}
