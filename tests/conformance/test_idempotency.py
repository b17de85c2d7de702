"""Protocol, section 3: a publish that comes again is answered as the first time, and enqueues nothing."""

from typing import Any

import httpx
import pytest

from tests.conformance.api import Queue, bodies, leases

KEY = {"idempotency-key": "same"}


def assert_conflict(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["code"]) == (422, "IDEMPOTENCY_CONFLICT")


def test_a_duplicate_is_answered_as_the_first_time_and_enqueues_nothing(queue: Queue) -> None:
    topic = queue.topic()
    first = queue.post(topic, b"[1]", headers=KEY)
    queue.publish(topic, "between")
    again = queue.post(topic, b"[1]", headers=KEY)
    assert (again.status_code, again.content) == (200, b"null")
    assert again.headers["wakeq-seq"] == first.headers["wakeq-seq"]
    deliveries = queue.claim(topic, max=5)
    assert [(d["body"], d["id"] == "same") for d in deliveries] == [([1], True), ("between", False)]


def test_a_duplicate_is_one_when_the_message_has_gone_and_when_the_topic_is_full(queue: Queue) -> None:
    topic = queue.topic(max_messages=1)
    queue.post(topic, b"1", headers=KEY)
    queue.settle(topic, ack=leases(queue.claim(topic)))
    queue.publish(topic, "in the way")
    assert queue.post(topic, b"1", headers=KEY).status_code == 200
    assert queue.info(topic)["messages"] == 1


def test_keys_are_each_topics_own(queue: Queue) -> None:
    for _ in range(2):
        topic = queue.topic()
        queue.post(topic, b"1", headers=KEY)
        assert queue.standing(topic)["ready"] == 1


@pytest.mark.parametrize("more", [{}, {"wakeq-h-a": "b", "wakeq-ttl": "90"}])
def test_publishes_that_differ_in_their_keys_alone_are_messages_of_their_own(
    queue: Queue, more: dict[str, str]
) -> None:
    topic = queue.topic()
    for key in ("one", "two", "three", "two"):
        queue.post(topic, b"[1]", headers={"idempotency-key": key, **more})
    assert [delivery["id"] for delivery in queue.claim(topic, max=9)] == ["one", "two", "three"]


def test_batches_that_differ_in_their_keys_alone_are_batches_of_their_own(queue: Queue) -> None:
    topic = queue.topic()
    for key in ("one", "two", "three", "two"):
        queue.batch(topic, b"[1]\n[2]", headers={"idempotency-key": key})
    assert queue.standing(topic)["ready"] == 6


OTHERS: list[tuple[bytes, dict[str, str]]] = [
    (b"[2]", {}),
    (b"[1] ", {}),
    (b"[1]", {"wakeq-delay": "9"}),
    (b"[1]", {"wakeq-ttl": "9"}),
    (b"[1]", {"wakeq-ordering-key": "k"}),
    (b"[1]", {"wakeq-h-a": "b"}),
]


@pytest.mark.capability("idempotency_conflict")
@pytest.mark.parametrize(("body", "headers"), OTHERS, ids=str)
def test_another_body_or_attribute_is_a_conflict(queue: Queue, body: bytes, headers: dict[str, str]) -> None:
    topic = queue.topic()
    queue.post(topic, b"[1]", headers=KEY)
    assert_conflict(queue.post(topic, body, headers=KEY | headers))
    assert_conflict(queue.batch(topic, b"[1]\n[2]", headers=KEY))
    assert queue.post(topic, b"[1]", headers=KEY).status_code == 200
    assert queue.standing(topic) == {"ready": 1, "delayed": 0, "leased": 0, "parked": 0}


def test_another_traceparent_is_no_conflict(queue: Queue) -> None:
    topic = queue.topic()
    for traceparent in ("00-1-2-01", "00-1-3-01"):
        assert queue.post(topic, b"1", headers=KEY | {"traceparent": traceparent}).status_code == 200
    assert queue.claim_one(topic)["headers"] == {"traceparent": "00-1-2-01"}


def test_a_batch_has_one_key_for_the_whole(queue: Queue) -> None:
    topic = queue.topic()
    first = queue.batch(topic, b"1\n2\n3", headers=KEY).json()
    again = queue.batch(topic, b"1\n2\n3", headers=KEY).json()
    assert (first["count"], first["duplicates"]) == (3, 0)
    assert again == first | {"duplicates": 3}
    deliveries = queue.claim(topic, max=9)
    assert bodies(deliveries) == [1, 2, 3]
    assert len({delivery["id"] for delivery in deliveries}) == 3


@pytest.mark.capability("idempotency_conflict")
@pytest.mark.parametrize("content", [b"1\n2", b"2\n1\n3", b"1\n2\n4", b"1\n2\n3\n4"], ids=repr)
def test_another_batch_is_a_conflict(queue: Queue, content: bytes) -> None:
    topic = queue.topic()
    queue.batch(topic, b"1\n2\n3", headers=KEY)
    assert_conflict(queue.batch(topic, content, headers=KEY))
    assert queue.standing(topic)["ready"] == 3


def test_envelopes_taken_whole_have_the_batchs_key(queue: Queue) -> None:
    topic = queue.topic()
    lines = [{"body": 1, "key": "k"}, {"body": 2, "ttl_s": 500}]
    first = queue.envelopes(topic, *lines, headers=KEY).json()
    assert queue.envelopes(topic, *lines, headers=KEY).json() == first | {"duplicates": 2}
    assert queue.standing(topic)["ready"] == 2


def test_a_single_envelope_has_its_id(queue: Queue) -> None:
    topic = queue.topic()
    first = queue.envelopes(topic, {"body": 1, "id": "a"}).json()
    assert queue.envelopes(topic, {"body": 1, "id": "a"}).json() == first | {"duplicates": 1}
    # However it is published.
    assert queue.post(topic, b"1", headers={"idempotency-key": "a"}).headers["wakeq-seq"] == str(first["first_seq"])
    assert [(d["body"], d["id"]) for d in queue.claim(topic, max=5)] == [(1, "a")]


def test_lenient_envelopes_are_duplicates_each_by_itself(queue: Queue) -> None:
    topic = queue.topic()
    seq = queue.send(topic, 1, id="a")
    answer = queue.envelopes(
        topic, {"body": 1, "id": "a"}, {"body": 2, "id": "b"}, {"body": 2, "id": "b"}, {"body": 3}, lenient=True
    )
    old, new, again, other = answer.json()["results"]
    assert (old, new["duplicate"], other["duplicate"]) == ({"seq": seq, "duplicate": True}, False, False)
    assert again == {"seq": new["seq"], "duplicate": True}
    assert bodies(queue.claim(topic, max=5)) == [1, 2, 3]


@pytest.mark.capability("idempotency_conflict")
def test_a_lenient_conflict_is_its_lines_alone(queue: Queue) -> None:
    topic = queue.topic()
    queue.send(topic, 1, id="a")
    answer = queue.envelopes(topic, {"body": 2, "id": "a"}, {"body": 3, "id": "b"}, lenient=True)
    conflict, taken = answer.json()["results"]
    assert (conflict["code"], taken["duplicate"]) == ("IDEMPOTENCY_CONFLICT", False)
    assert conflict["detail"]
    assert bodies(queue.claim(topic, max=5)) == [1, 3]


def test_a_queue_message_is_completed_alike_when_it_comes_again(queue: Queue) -> None:
    topic = queue.topic(schema="queue_message")
    assert queue.post(topic, b"{}", headers=KEY).status_code == 200
    assert queue.post(topic, b"{}", headers=KEY).status_code == 200
    batch = [queue.batch(topic, b"{}\n{}", headers={"idempotency-key": "b"}).json() for _ in range(2)]
    assert [answer["duplicates"] for answer in batch] == [0, 2]
    envelope = [queue.envelopes(topic, {"body": {}, "id": "e"}).json() for _ in range(2)]
    assert [answer["duplicates"] for answer in envelope] == [0, 1]
    ids = [body["id_"] for body in bodies(queue.claim(topic, max=9))]
    assert len(ids) == len(set(ids)) == 4


def test_duplicates_that_come_at_once_are_one(queue: Queue) -> None:
    topic = queue.topic()
    headers = {"content-type": "application/json", "idempotency-key": "same"}
    requests = [queue.start("POST", f"/messages/{topic}", b"1", headers) for _ in range(20)]
    answers = [request.answer() for request in requests]
    assert {answer.status for answer in answers} == {200}
    assert len({answer.headers["wakeq-seq"] for answer in answers}) == 1
    assert queue.standing(topic)["ready"] == 1


REFUSED: list[tuple[bytes, str]] = [(b"{", "INVALID_MESSAGE"), (b'"too large"', "MESSAGE_TOO_LARGE")]


@pytest.mark.parametrize(("body", "code"), REFUSED, ids=repr)
def test_a_refused_publish_leaves_no_key(queue: Queue, body: bytes, code: str) -> None:
    topic = queue.topic(max_message_bytes=5)
    assert queue.post(topic, body, headers=KEY).json()["code"] == code
    assert queue.post(topic, b"1", headers=KEY).status_code == 200
    assert bodies(queue.claim(topic, max=5)) == [1]


def test_a_full_topic_leaves_no_key(queue: Queue) -> None:
    topic = queue.topic(max_messages=1)
    queue.publish(topic, "in the way")
    assert queue.post(topic, b"1", headers=KEY).json()["code"] == "TOPIC_FULL"
    queue.do(topic, "purge")
    assert queue.post(topic, b"2", headers=KEY).status_code == 200
    assert bodies(queue.claim(topic, max=5)) == [2]


@pytest.mark.capability("delay")
def test_a_key_is_forgotten_when_its_window_is_over(queue: Queue) -> None:
    topic = queue.topic(dedup_window_s=1)
    first = queue.post(topic, b"1", headers=KEY)
    queue.send(topic, "due", delay_s=1.1)
    assert queue.post(topic, b"1", headers=KEY).headers["wakeq-seq"] == first.headers["wakeq-seq"]
    assert bodies(queue.claim(topic)) == [1]
    assert queue.claim_one(topic)["body"] == "due"
    again: Any = queue.post(topic, b"2", headers=KEY)
    assert again.status_code == 200
    assert int(again.headers["wakeq-seq"]) > int(first.headers["wakeq-seq"])
    assert bodies(queue.claim(topic)) == [2]
