"""Protocol, section 5: messages of one ordering key are out one at a time, in order."""

import pytest

from tests.conformance.api import Queue, bodies, leases

pytestmark = pytest.mark.capability("ordering_keys")


def keyed(queue: Queue, *names: str, **config: object) -> str:
    """A topic with these messages, whose keys are their first letters."""
    topic = queue.topic(**{"lease_s": 500} | config)
    for name in names:
        queue.send(topic, name, key=name[0])
    return topic


def test_one_message_of_a_key_is_out_at_a_time_and_others_do_not_wait(queue: Queue) -> None:
    topic = keyed(queue, "a1", "a2", "b1", "a3", "b2")
    queue.publish(topic, "none")
    first = queue.claim(topic, max=9)
    assert bodies(first) == ["a1", "b1", "none"]
    assert queue.standing(topic)["ready"] == 3
    assert queue.claim(topic, max=9) == []
    assert queue.http.get(f"/messages/{topic}").status_code == 204
    queue.settle(topic, ack=[first[0]["lease_id"]])
    assert bodies(queue.claim(topic, max=9)) == ["a2"]
    queue.settle(topic, ack=[first[1]["lease_id"]])
    assert bodies(queue.claim(topic, max=9)) == ["b2"]


def test_messages_of_a_key_come_in_order(queue: Queue) -> None:
    names = [f"{key}{number}" for number in range(10) for key in "abc"]
    topic, seen = keyed(queue, *names), []
    while deliveries := queue.claim(topic, max=9):
        seen += bodies(deliveries)
        assert len({name[0] for name in bodies(deliveries)}) == len(deliveries)
        # In another order than they came.
        queue.settle(topic, ack=leases(deliveries)[::-1])
    assert {key: [name for name in seen if name[0] == key] for key in "abc"} == {
        key: [name for name in names if name[0] == key] for key in "abc"
    }


def test_gets_take_them_one_by_one_too(queue: Queue) -> None:
    topic = keyed(queue, "a1", "a2", "a3")
    assert [queue.http.get(f"/messages/{topic}?wait=10").json() for _ in range(3)] == ["a1", "a2", "a3"]


def test_streams_wait_for_the_settle(queue: Queue) -> None:
    topic = keyed(queue, "a1", "a2", "b1")
    stream = queue.stream(topic, lease=500)
    first, other = stream.take(2)
    assert bodies([first, other]) == ["a1", "b1"]
    queue.settle(topic, ack=[first["lease_id"]])
    assert bodies(stream.take(1)) == ["a2"]


def test_a_nacked_message_keeps_its_place_in_front(queue: Queue) -> None:
    topic = keyed(queue, "a1", "a2")
    for attempt in (1, 2, 3):
        (delivery,) = queue.claim(topic, max=9)
        assert (delivery["body"], delivery["attempt"]) == ("a1", attempt)
        queue.settle(topic, nack=[{"lease_id": delivery["lease_id"], "delay_s": 0}])


def test_a_released_message_keeps_its_place_in_front(queue: Queue) -> None:
    topic = keyed(queue, "a1", "a2")
    for _ in range(3):
        (delivery,) = queue.claim(topic, max=9)
        assert (delivery["body"], delivery["attempt"]) == ("a1", 1)
        queue.settle(topic, release=[delivery["lease_id"]])


@pytest.mark.capability("delay")
def test_a_message_that_waits_for_its_retry_holds_its_key(queue: Queue) -> None:
    topic = keyed(queue, "a1", "a2", "b1")
    first, _ = queue.claim(topic, max=9)
    queue.settle(topic, nack=[{"lease_id": first["lease_id"], "delay_s": 0.2}])
    assert queue.standing(topic) == {"ready": 1, "delayed": 1, "leased": 1, "parked": 0}
    assert queue.claim(topic, max=9) == []
    again = queue.claim_one(topic, max=9)
    assert (again["body"], again["attempt"]) == ("a1", 2)


def test_an_expired_lease_keeps_its_place_in_front(queue: Queue) -> None:
    topic = keyed(queue, "a1", "a2")
    queue.claim(topic, lease_s=1)
    again = queue.claim_one(topic, max=9)
    assert (again["body"], again["attempt"]) == ("a1", 2)


def test_a_dead_letter_lets_go_of_its_key_and_comes_back_behind_it(queue: Queue) -> None:
    topic = keyed(queue, "a1", "a2", "a3")
    queue.die(topic, "because")
    (second,) = queue.claim(topic, max=9)
    assert second["body"] == "a2"
    queue.do(topic, "redrive")
    assert queue.claim(topic, max=9) == []
    seen = []
    queue.settle(topic, ack=[second["lease_id"]])
    while deliveries := queue.claim(topic, max=9):
        assert len(deliveries) == 1
        seen += bodies(deliveries)
        queue.settle(topic, ack=leases(deliveries))
    assert sorted(seen) == ["a1", "a3"]


def test_a_purged_key_is_free(queue: Queue) -> None:
    topic = keyed(queue, "a1", "a2")
    (delivery,) = queue.claim(topic, max=9)
    queue.settle(topic, nack=[{"lease_id": delivery["lease_id"], "delay_s": 500}])
    assert queue.do(topic, "purge") == {"purged": 2}
    queue.send(topic, "a3", key="a")
    assert bodies(queue.claim(topic, max=9)) == ["a3"]


def test_a_purge_leaves_a_leased_holder_its_key(queue: Queue) -> None:
    topic = keyed(queue, "a1", "a2")
    (delivery,) = queue.claim(topic, max=9)
    assert queue.do(topic, "purge") == {"purged": 1}
    queue.send(topic, "a3", key="a")
    assert queue.claim(topic, max=9) == []
    queue.settle(topic, ack=[delivery["lease_id"]])
    assert bodies(queue.claim(topic, max=9)) == ["a3"]


def test_batches_have_keys_in_their_envelopes(queue: Queue) -> None:
    topic = queue.topic()
    queue.envelopes(topic, *({"body": number, "key": "ü" * 255} for number in range(3)))
    (delivery,) = queue.claim(topic, max=9)
    assert (delivery["body"], delivery["key"]) == (0, "ü" * 255)


def test_who_waits_behind_a_key_is_woken_once_it_is_free(queue: Queue) -> None:
    topic = keyed(queue, "a1", "a2", "b1")
    first, other = queue.claim(topic, max=9)
    parked = [queue.park(topic), queue.park(topic)]
    queue.send(topic, "b2", key="b")
    queue.settle(topic, ack=leases([first, other]))
    assert sorted(body for request in parked for body in request.answer().bodies()) == ["a2", "b2"]
