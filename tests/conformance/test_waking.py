"""Protocol, section 5: order, and who wakes."""

import json
from typing import Any

import pytest

from tests.conformance.api import Queue, Request, bodies, leases


def test_messages_go_by_seq_whoever_asks(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, *range(10))
    assert bodies(queue.claim(topic, max=2)) == [0, 1]
    assert queue.http.get(f"/messages/{topic}").json() == 2
    assert queue.stream(topic, lease=30, prefetch=1).take(1)[0]["body"] == 3
    assert bodies(queue.claim(topic, max=2)) == [4, 5]


def test_a_parked_claim_wakes_by_a_publish(queue: Queue) -> None:
    topic = queue.topic()
    parked = queue.park(topic)
    assert queue.post(topic, b'"hello"').status_code == 200
    assert parked.answer().bodies() == ["hello"]
    assert queue.standing(topic) == {"ready": 0, "delayed": 0, "leased": 1, "parked": 0}


def test_a_parked_get_wakes_by_a_publish(queue: Queue) -> None:
    topic = queue.topic()
    parked = queue.start("GET", f"/messages/{topic}?wait=50")
    queue.wait_until(topic, parked=1)
    queue.publish(topic, "hello")
    assert parked.answer().json() == "hello"
    queue.wait_until(topic, leased=0, ready=0)


def test_a_parked_claim_wakes_by_a_nack(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, 1)
    (lease,) = leases(queue.claim(topic))
    parked = queue.park(topic)
    queue.settle(topic, nack=[{"lease_id": lease, "delay_s": 0}])
    (delivery,) = parked.answer().json()["messages"]
    assert (delivery["body"], delivery["attempt"]) == (1, 2)


@pytest.mark.capability("delay")
def test_a_parked_claim_wakes_by_a_delay_that_is_over(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, 1)
    (lease,) = leases(queue.claim(topic))
    parked = queue.park(topic)
    queue.settle(topic, nack=[{"lease_id": lease, "delay_s": 0.2}])
    assert queue.standing(topic) == {"ready": 0, "delayed": 1, "leased": 0, "parked": 1}
    assert parked.answer().json()["messages"][0]["attempt"] == 2


def test_a_parked_claim_wakes_by_a_lease_that_expires(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, 1)
    queue.claim(topic, lease_s=1)
    parked = queue.park(topic)
    assert parked.answer().json()["messages"][0]["attempt"] == 2


def test_a_parked_claim_gets_what_the_one_before_it_hung_up_on(queue: Queue) -> None:
    topic = queue.topic()
    for number in range(10):
        first, second = queue.park(topic), queue.park(topic)
        first.close()
        queue.publish(topic, number)
        (delivery,) = second.answer().json()["messages"]
        assert (delivery["body"], delivery["attempt"]) == (number, 1)


def test_what_a_hung_up_get_was_given_goes_to_the_next(queue: Queue) -> None:
    topic = queue.topic()
    for number in range(10):
        get = queue.start("GET", f"/messages/{topic}?wait=50")
        queue.wait_until(topic, parked=1)
        claim = queue.park(topic)
        get.close()
        queue.publish(topic, number)
        (delivery,) = claim.answer().json()["messages"]
        assert (delivery["body"], delivery["attempt"]) == (number, 1)


def test_all_who_are_parked_are_told_when_the_topic_is_deleted(queue: Queue) -> None:
    topic = queue.topic()
    parked = [queue.park(topic), queue.park(topic), queue.start("GET", f"/messages/{topic}?wait=50")]
    queue.wait_until(topic, parked=3)
    stream = queue.stream(topic, lease=30)
    assert queue.http.delete(f"/topics/{topic}").status_code == 204
    for request in parked:
        answer = request.answer()
        assert (answer.status, answer.json()["code"]) == (404, "TOPIC_NOT_FOUND")
    with pytest.raises(EOFError):
        stream.next()


def test_a_legacy_answer_that_has_begun_ends_as_null_when_the_topic_is_deleted(queue: Queue) -> None:
    topic = queue.topic(schema="queue_message")
    request = queue.start("GET", f"/messages/{topic}")
    with request.connection.getresponse() as response:
        assert response.read(1) == b" "
        queue.http.delete(f"/topics/{topic}")
        assert response.read().strip() == b"null"


def test_the_longest_parked_wakes_first_and_only_as_many_as_there_are_messages(queue: Queue) -> None:
    topic = queue.topic()
    first, second, third = (queue.park(topic, max=10) for _ in range(3))
    queue.publish(topic, "a", "b")
    assert first.answer().bodies() == ["a"]
    assert second.answer().bodies() == ["b"]
    assert queue.standing(topic)["parked"] == 1
    queue.publish(topic, "c")
    assert third.answer().bodies() == ["c"]


def test_a_batch_is_dealt_one_each_in_turn_until_out(queue: Queue) -> None:
    topic = queue.topic()
    parked = [queue.park(topic, max=10), queue.park(topic, max=10), queue.park(topic, max=1)]
    queue.publish(topic, *range(6))
    assert [request.answer().bodies() for request in parked] == [[0, 3, 5], [1, 4], [2]]


def test_what_the_parked_cannot_take_stays(queue: Queue) -> None:
    topic = queue.topic()
    parked = [queue.park(topic, max=2), queue.park(topic)]
    queue.publish(topic, *range(5))
    assert [request.answer().bodies() for request in parked] == [[0, 2], [1]]
    assert bodies(queue.claim(topic, max=9)) == [3, 4]


def test_whoever_was_woken_stands_at_the_end_again(queue: Queue) -> None:
    topic = queue.topic()
    first, second = queue.park(topic), queue.park(topic)
    queue.publish(topic, "a")
    assert first.answer().bodies() == ["a"]
    again = queue.park(topic)
    queue.publish(topic, "b", "c")
    assert second.answer().bodies() == ["b"]
    assert again.answer().bodies() == ["c"]


def get(queue: Queue, path: str, **headers: str) -> Request:
    return queue.start("GET", path, headers=headers)


@pytest.mark.parametrize(
    ("query", "headers"),
    [("?wait=0.05", {}), ("?wait=0", {}), ("", {"prefer": "wait=0.05"}), ("", {"prefer": "wait=0"})],
)
@pytest.mark.parametrize(("schema", "empty"), [("queue_message", (200, b"null")), ("json", (204, b""))])
def test_an_empty_get_is_null_or_204_after_its_wait(
    queue: Queue, schema: str, empty: tuple[int, bytes], query: str, headers: dict[str, str]
) -> None:
    topic = queue.topic(schema=schema)
    answer = get(queue, f"/messages/{topic}{query}", **headers).answer()
    assert (answer.status, answer.content) == empty


@pytest.mark.parametrize("wait", ["-1", "60.1", "x", "nan", "inf", ""])
def test_a_wait_out_of_range_is_refused(queue: Queue, wait: str) -> None:
    answer = queue.http.get(f"/messages/{queue.topic()}", params={"wait": wait})
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
    assert "wait" in answer.json()["detail"]


@pytest.mark.parametrize("preference", ["respond-async, wait=100000", 'wait="50"', "Wait = 50 ; x=1"])
def test_a_preferred_wait_parks_and_is_never_refused(queue: Queue, preference: str) -> None:
    topic = queue.topic()
    request = get(queue, f"/messages/{topic}", prefer=preference)
    queue.wait_until(topic, parked=1)
    queue.publish(topic, 1)
    assert request.answer().json() == 1


def test_what_a_get_takes_is_acked(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, *range(5))
    taken: list[Any] = [queue.http.get(f"/messages/{topic}").json() for _ in range(5)]
    assert taken == list(range(5))
    queue.wait_until(topic, ready=0, leased=0)
    assert queue.info(topic)["messages"] == 0


def test_consumers_of_both_tiers_share_one_topic(queue: Queue) -> None:
    topic = queue.topic(schema="queue_message")
    parked = queue.park(topic)
    legacy = queue.start("GET", f"/messages/{topic}")
    queue.wait_until(topic, parked=2)
    queue.publish(topic, {"id_": "first"}, {"id_": "second"})
    assert [body["id_"] for body in parked.answer().bodies()] == ["first"]
    assert json.loads(legacy.answer().content)["id_"] == "second"
