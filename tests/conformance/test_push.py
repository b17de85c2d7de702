"""Protocol, section 4.5: push. The server must be able to reach, and be allowed to push to, 127.0.0.1."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conformance.api import PATIENCE_S, Json, Queue, bodies
from tests.support.receiver import Posted, Receiver, free_port, receiving

pytestmark = pytest.mark.capability("push")

Say = Callable[[Posted], None]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def put(queue: Queue, topic: str, url: str, **push: Any) -> Json:
    """A push, newly made."""
    answer = queue.http.put(f"/topics/{topic}/push/p", json={"url": url, **push})
    assert answer.status_code == 201, answer.text
    made: Json = answer.json()
    return made


def show(queue: Queue, topic: str) -> Json:
    answer = queue.http.get(f"/topics/{topic}/push/p")
    assert answer.status_code == 200, answer.text
    shown: Json = answer.json()
    return shown


def wait_for(queue: Queue, topic: str, **wanted: Any) -> Json:
    """The push, once it stands so: nothing tells when the server has taken note of an answer."""
    until = time.monotonic() + PATIENCE_S
    while not wanted.items() <= (now := show(queue, topic)).items():
        assert time.monotonic() < until, f"{now} never became {wanted}"
    return now


def wait_until_gone(queue: Queue, topic: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while queue.http.get(f"/topics/{topic}/push/p").status_code != 404:
        assert time.monotonic() < until, "the push is still there"


# The calls


def test_a_push_is_made_shown_replaced_listed_and_deleted(queue: Queue) -> None:
    topic, url = queue.topic(), f"http://127.0.0.1:{free_port()}/a?b=%2F"
    made = put(queue, topic, url)
    assert made == {
        "name": "p", "url": url, "group": "default", "max_in_flight": 1, "timeout_s": 30.0, "state": "up",
        "suspended_until": None, "in_flight": 0, "delivered": 0, "failed": 0, "last_error": None,
    }  # fmt: skip
    assert show(queue, topic) == made
    queue.http.put(f"/topics/{topic}/groups/g")
    changed = {"url": url, "group": "g", "max_in_flight": 100, "timeout_s": 2.5}
    answer = queue.http.put(f"/topics/{topic}/push/p", json=changed)
    assert (answer.status_code, answer.json()) == (200, made | changed)
    assert queue.http.put(f"/topics/{topic}/push/a", json={"url": url}).status_code == 201
    listed = queue.http.get(f"/topics/{topic}/push").json()["pushes"]
    assert [push["name"] for push in listed] == ["a", "p"]
    assert listed[1] == made | changed
    assert queue.http.delete(f"/topics/{topic}/push/p").status_code == 204
    for method in ("GET", "DELETE"):
        answer = queue.http.request(method, f"/topics/{topic}/push/p")
        assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")
    assert [push["name"] for push in queue.http.get(f"/topics/{topic}/push").json()["pushes"]] == ["a"]


BAD: list[tuple[str, Any]] = [
    ("url", ""),
    ("url", 7),
    ("url", "127.0.0.1:80"),
    ("url", "ftp://127.0.0.1/"),
    ("url", "http://"),
    ("url", "http://127.0.0.1:0/"),
    ("url", "http://127.0.0.1:65536/"),
    ("url", "http://[::1/"),
    ("url", "http://127.0.0.1/ü"),
    ("url", "http://127.0.0.1/a b"),
    ("url", "http://127.0.0.1/\r\nx"),
    ("url", "http://127.0.0.1/#a"),
    ("url", "http://127.0.0.1/" + 2048 * "a"),
    ("max_in_flight", 0),
    ("max_in_flight", 101),
    ("max_in_flight", 1.5),
    ("timeout_s", 0.5),
    ("timeout_s", 601),
    ("timeout_s", "30"),
    ("group", ""),
    ("odd", 1),
]


@pytest.mark.parametrize(("field", "value"), BAD)
def test_a_bad_field_is_refused_by_its_name_and_changes_nothing(queue: Queue, field: str, value: Any) -> None:
    topic = queue.topic()
    before = put(queue, topic, "http://127.0.0.1:1/")
    answer = queue.http.put(f"/topics/{topic}/push/p", json={"url": "http://127.0.0.1:2/", field: value})
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
    assert answer.json()["detail"].startswith(f"{field}: ")
    assert show(queue, topic) == before


def test_a_push_needs_a_url_and_a_name_without_control_characters(queue: Queue) -> None:
    topic = queue.topic()
    answer = queue.http.put(f"/topics/{topic}/push/p", json={})
    assert (answer.status_code, answer.json()["detail"].partition(":")[0]) == (400, "url")
    answer = queue.http.put(f"/topics/{topic}/push/a%07", json={"url": "http://127.0.0.1:1/"})
    assert (answer.status_code, answer.json()["detail"].partition(":")[0]) == (400, "name")


@pytest.mark.parametrize("url", ["http://192.0.2.1/", "http://[::ffff:192.0.2.1]/", "https://[2001:db8::1]:1/x"])
def test_a_target_that_is_not_allowed_is_refused(queue: Queue, url: str) -> None:
    topic = queue.topic()
    answer = queue.http.put(f"/topics/{topic}/push/p", json={"url": url})
    assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")
    assert "--push-allow" in answer.json()["detail"]
    assert queue.http.get(f"/topics/{topic}/push").json() == {"pushes": []}


def test_what_it_is_for_must_exist(queue: Queue) -> None:
    topic, push = queue.topic(), {"url": "http://127.0.0.1:1/"}
    answer = queue.http.put(f"/topics/{topic}/push/p", json=push | {"group": "g"})
    assert (answer.status_code, answer.json()["code"]) == (404, "GROUP_NOT_FOUND")
    missing = f"/topics/{queue.new_name()}/push"
    for method, path in (
        ("PUT", f"{missing}/p"),
        ("GET", missing),
        ("GET", f"{missing}/p"),
        ("DELETE", f"{missing}/p"),
    ):
        answer = queue.http.request(method, path, json=push if method == "PUT" else None)
        assert (answer.status_code, answer.json()["code"]) == (404, "TOPIC_NOT_FOUND"), method


def test_credentials_are_sent_and_not_shown(queue: Queue, receiver: Receiver) -> None:
    topic = queue.topic()
    made = put(queue, topic, receiver.url.replace("//", "//us%65r:pa%3Ass@"))
    assert made["url"] == receiver.url.replace("//", "//***@")
    queue.publish(topic, 1)
    posted = receiver.next()
    assert posted.headers["authorization"] == "Basic dXNlcjpwYTpzcw=="
    assert posted.headers["host"] == f"127.0.0.1:{receiver.port}"
    posted.answer()


# What is posted


def test_a_message_is_posted_as_a_get_would_give_it_with_what_is_known_of_it(queue: Queue, receiver: Receiver) -> None:
    topic = queue.topic()
    put(queue, topic, f"{receiver.url}x/y?z=1")
    headers = {
        "content-type": "application/json", "idempotency-key": "żółć", "wakeq-ordering-key": "k k",
        "wakeq-h-note": "a", "traceparent": "00-1-2-01",
    }  # fmt: skip
    encoded = {name.encode(): value.encode() for name, value in headers.items()}
    seq = queue.http.post(f"/messages/{topic}", content=b'{ "a": 1.0 }', headers=encoded).headers["wakeq-seq"]
    posted = receiver.next()
    assert (posted.line, posted.body) == ("POST /x/y?z=1 HTTP/1.1", b'{ "a": 1.0 }')
    expected = {
        "host": f"127.0.0.1:{receiver.port}", "content-type": "application/json", "content-length": "12",
        "wakeq-topic": topic, "wakeq-group": "default", "wakeq-seq": seq, "wakeq-attempt": "1",
        "wakeq-id": "żółć".encode().decode("latin-1"), "idempotency-key": "żółć".encode().decode("latin-1"),
        "wakeq-ordering-key": "k k", "wakeq-h-note": "a", "traceparent": "00-1-2-01",
    }  # fmt: skip
    assert expected.items() <= posted.headers.items()
    posted.answer()


def test_bytes_are_posted_as_bytes(queue: Queue, receiver: Receiver) -> None:
    topic = queue.topic(schema="any")
    put(queue, topic, receiver.url)
    queue.post(topic, b"\0\xff", "image/png")
    queue.post(topic, b"", "text/plain; charset=utf-8")
    first = receiver.next()
    assert (first.body, first.headers["content-type"]) == (b"\0\xff", "image/png")
    first.answer()
    second = receiver.next()
    assert (second.body, second.headers["content-type"]) == (b"", "text/plain; charset=utf-8")
    second.answer()


def test_what_no_header_can_carry_is_left_out(queue: Queue, receiver: Receiver) -> None:
    topic = queue.topic()
    put(queue, topic, receiver.url)
    odd = {"a\r\nb": "x", "c": "y\r\nz", "d ": "x", "e": " x", "f": "ok\t.", "h": ""}
    envelope = {"body": 1, "id": "i\nj", "headers": odd}
    content = json.dumps(envelope).encode()
    assert queue.post(topic, content, "application/vnd.wakeq.envelopes+x-ndjson").status_code == 200
    posted = receiver.next()
    kept = {name: value for name, value in posted.headers.items() if name.startswith(("wakeq-h-", "wakeq-id", "idem"))}
    assert kept == {"wakeq-h-f": "ok\t.", "wakeq-h-h": ""}
    posted.answer()


def test_a_llama_deploy_service_gets_its_queue_message(queue: Queue, receiver: Receiver) -> None:
    topic = queue.topic(schema="queue_message")
    put(queue, topic, f"{receiver.url}process_message")
    queue.post(topic, b'{"type": "echo", "action": "new_task", "data": {"a": 1}}')
    posted = receiver.next()
    assert posted.line == "POST /process_message HTTP/1.1"
    assert posted.headers["content-type"] == "application/json"
    message = json.loads(posted.body)
    assert (message["type"], message["action"], message["data"]) == ("echo", "new_task", {"a": 1})
    assert message["id_"]
    posted.answer()
    wait_for(queue, topic, delivered=1)


# What answers mean


@pytest.mark.parametrize("status", [200, 202, 204, 299])
def test_success_acks(queue: Queue, receiver: Receiver, status: int) -> None:
    topic = queue.topic()
    put(queue, topic, receiver.url)
    queue.publish(topic, 1, 2)
    for body in (b"1", b"2"):
        posted = receiver.next()
        assert posted.body == body
        posted.answer(status, b"" if status == 204 else b"fine")
    wait_for(queue, topic, delivered=2, in_flight=0, failed=0)
    queue.wait_until(topic, leased=0)
    assert queue.info(topic)["messages"] == 0


@pytest.mark.parametrize(
    ("say", "reason"),
    [
        (lambda posted: posted.answer(500), "HTTP 500"),
        (lambda posted: posted.answer(429), "HTTP 429"),
        (lambda posted: posted.send(b"nonsense\r\n\r\n"), "not HTTP"),
    ],
)
def test_another_answer_is_an_attempt(queue: Queue, receiver: Receiver, say: Say, reason: str) -> None:
    topic = queue.topic(max_deliveries=2, retry_backoff_s={"min": 0, "max": 0})
    put(queue, topic, receiver.url)
    queue.publish(topic, "x")
    for attempt in ("1", "2"):
        posted = receiver.next()
        assert posted.headers["wakeq-attempt"] == attempt
        say(posted)
    assert reason in wait_for(queue, topic, failed=2, state="up")["last_error"]
    queue.wait_until(topic, leased=0)
    (dead,) = queue.http.get(f"/topics/{topic}/messages?state=dead").json()["messages"]
    assert (dead["body"], dead["attempt"]) == ("x", 2)
    assert reason in dead["reason"]


def test_another_answer_hides_the_message_for_the_topics_backoff(queue: Queue, receiver: Receiver) -> None:
    topic = queue.topic(retry_backoff_s={"min": 500, "max": 500})
    put(queue, topic, receiver.url)
    queue.publish(topic, 1)
    receiver.next().answer(503)
    queue.wait_until(topic, delayed=1, leased=0)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(queue: Queue, receiver: Receiver, status: int) -> None:
    topic = queue.topic(max_deliveries=1)
    put(queue, topic, receiver.url)
    with receiving() as elsewhere:
        queue.publish(topic, 1)
        receiver.next().answer(status, location=elsewhere.url)
        assert "redirect" in wait_for(queue, topic, failed=1)["last_error"]
        assert elsewhere.accepted == 0
    queue.wait_until(topic, leased=0)
    assert queue.info(topic)["groups"]["default"]["dead"] == 1


def test_410_removes_the_push_and_undoes_the_message(queue: Queue, receiver: Receiver) -> None:
    topic = queue.topic()
    put(queue, topic, receiver.url)
    queue.publish(topic, "x")
    receiver.next().answer(410)
    wait_until_gone(queue, topic)
    delivery = queue.claim_one(topic)
    assert (delivery["body"], delivery["attempt"]) == ("x", 1)
    assert receiver.waiting == 0


def test_no_answer_in_time_is_an_attempt(queue: Queue, receiver: Receiver) -> None:
    topic = queue.topic(retry_backoff_s={"min": 0, "max": 0})
    put(queue, topic, receiver.url, timeout_s=1)
    queue.publish(topic, 1)
    receiver.next()
    again = receiver.next()
    assert again.headers["wakeq-attempt"] == "2"
    again.answer()
    shown = wait_for(queue, topic, delivered=1, failed=1, state="up")
    assert shown["last_error"] == "no answer within 1 s"


def test_an_answer_counts_although_its_body_never_ends(queue: Queue, receiver: Receiver) -> None:
    topic = queue.topic()
    put(queue, topic, receiver.url, timeout_s=1)
    queue.publish(topic, 1, 2)
    receiver.next().send(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n")
    receiver.next().answer()
    wait_for(queue, topic, delivered=2, failed=0)


def test_a_long_answer_is_not_read_to_its_end(queue: Queue, receiver: Receiver) -> None:
    topic = queue.topic()
    put(queue, topic, receiver.url)
    queue.publish(topic, 1, 2)
    receiver.next().send(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n" + b"x" * 200_000)
    receiver.next().answer()
    wait_for(queue, topic, delivered=2, failed=0)


def test_a_connection_is_used_again(queue: Queue, receiver: Receiver) -> None:
    topic = queue.topic()
    put(queue, topic, receiver.url)
    queue.publish(topic, *range(5))
    for _ in range(5):
        receiver.next().answer()
    wait_for(queue, topic, delivered=5)
    assert receiver.accepted == 1


# Who gets what


def test_no_more_than_max_in_flight(queue: Queue, receiver: Receiver) -> None:
    topic = queue.topic()
    put(queue, topic, receiver.url, max_in_flight=3)
    queue.publish(topic, *range(5))
    posted = [receiver.next() for _ in range(3)]
    assert sorted(one.body for one in posted) == [b"0", b"1", b"2"]
    assert (show(queue, topic)["in_flight"], receiver.waiting) == (3, 0)
    assert queue.standing(topic) == {"ready": 2, "delayed": 0, "leased": 3, "parked": 0}
    posted[1].answer()
    assert receiver.next().body == b"3"
    assert (show(queue, topic)["in_flight"], receiver.waiting) == (3, 0)


def test_a_push_goes_before_whoever_is_parked(queue: Queue, receiver: Receiver) -> None:
    topic = queue.topic()
    parked = queue.park(topic)
    put(queue, topic, receiver.url)
    queue.wait_until(topic, parked=2)
    queue.publish(topic, "pushed", "claimed")
    posted = receiver.next()
    assert posted.body == b'"pushed"'
    assert parked.answer().bodies() == ["claimed"]
    posted.answer()


def test_what_a_target_refuses_to_take_is_given_to_who_is_parked(queue: Queue) -> None:
    topic = queue.topic()
    parked = queue.park(topic)
    put(queue, topic, f"http://127.0.0.1:{free_port()}/")
    queue.wait_until(topic, parked=2)
    queue.publish(topic, "x")
    (delivery,) = parked.answer().json()["messages"]
    assert (delivery["body"], delivery["attempt"]) == ("x", 1)
    shown = show(queue, topic)
    assert (shown["state"], shown["delivered"], shown["failed"]) == ("suspended", 0, 0)
    assert shown["suspended_until"] is not None
    assert "refused" in shown["last_error"]


@pytest.mark.parametrize("end", [Posted.close, Posted.reset])
def test_a_connection_that_breaks_before_the_answer_is_no_attempt(queue: Queue, receiver: Receiver, end: Say) -> None:
    topic = queue.topic()
    put(queue, topic, receiver.url)
    queue.publish(topic, "x")
    posted = receiver.next()
    parked = queue.park(topic)
    end(posted)
    (delivery,) = parked.answer().json()["messages"]
    assert (delivery["body"], delivery["attempt"]) == ("x", 1)
    wait_for(queue, topic, state="suspended", failed=0, in_flight=0)


def test_a_push_resumes_when_its_target_is_back(queue: Queue) -> None:
    topic, port = queue.topic(), free_port()
    put(queue, topic, f"http://127.0.0.1:{port}/", max_in_flight=5)
    queue.publish(topic, *range(3))
    wait_for(queue, topic, state="suspended")
    with receiving(port) as receiver:
        first = receiver.next()
        assert (first.body, receiver.waiting) == (b"0", 0), "more than one was risked"
        first.answer()
        # These two are in flight together, on connections of their own.
        others = [receiver.next(), receiver.next()]
        assert sorted(posted.body for posted in others) == [b"1", b"2"]
        for posted in others:
            posted.answer()
        assert {posted.headers["wakeq-attempt"] for posted in (first, *others)} == {"1"}
        wait_for(queue, topic, state="up", suspended_until=None, delivered=3)


def test_a_group_is_pushed_what_is_its_own(queue: Queue, receiver: Receiver) -> None:
    topic = queue.topic()
    queue.publish(topic, "before")
    queue.http.put(f"/topics/{topic}/groups/g")
    put(queue, topic, receiver.url, group="g")
    queue.publish(topic, "after")
    posted = receiver.next()
    assert (posted.body, posted.headers["wakeq-group"]) == (b'"after"', "g")
    posted.answer()
    assert bodies(queue.claim(topic, max=9)) == ["before", "after"]


def test_messages_of_a_key_are_posted_one_at_a_time_and_in_order(queue: Queue, receiver: Receiver) -> None:
    topic = queue.topic()
    put(queue, topic, receiver.url, max_in_flight=5)
    lines = b"\n".join(b'{"body": %d, "key": "k"}' % number for number in range(3))
    queue.post(topic, lines, "application/vnd.wakeq.envelopes+x-ndjson")
    for number in range(3):
        posted = receiver.next()
        assert (posted.body, receiver.waiting) == (b"%d" % number, 0)
        posted.answer()


def test_a_paused_topic_is_not_pushed(queue: Queue, receiver: Receiver) -> None:
    topic = queue.topic()
    put(queue, topic, receiver.url)
    queue.http.post(f"/topics/{topic}/pause")
    queue.publish(topic, 1)
    assert queue.standing(topic)["ready"] == 1
    queue.http.post(f"/topics/{topic}/resume")
    receiver.next().answer()


# Its end


def test_a_deleted_push_finishes_what_it_has_in_flight_and_takes_no_more(queue: Queue, receiver: Receiver) -> None:
    topic = queue.topic()
    put(queue, topic, receiver.url)
    queue.publish(topic, 1, 2)
    posted = receiver.next()
    assert queue.http.delete(f"/topics/{topic}/push/p").status_code == 204
    posted.answer()
    queue.wait_until(topic, leased=0)
    assert bodies(queue.claim(topic, max=9)) == [2]
    assert receiver.waiting == 0


def test_a_replaced_push_posts_to_its_new_target(queue: Queue, receiver: Receiver) -> None:
    topic = queue.topic()
    put(queue, topic, receiver.url)
    queue.publish(topic, 1, 2)
    posted = receiver.next()
    with receiving() as other:
        assert queue.http.put(f"/topics/{topic}/push/p", json={"url": other.url}).status_code == 200
        posted.answer()
        second = other.next()
        assert second.body == b"2"
        second.answer()
        wait_for(queue, topic, delivered=2)


@pytest.mark.parametrize("what", ["topic", "group"])
def test_a_push_ends_with_its_topic_or_group(queue: Queue, receiver: Receiver, what: str) -> None:
    topic = queue.topic()
    path = f"/topics/{topic}" if what == "topic" else f"/topics/{topic}/groups/default"
    put(queue, topic, receiver.url)
    queue.http.delete(path)
    assert queue.http.get(f"/topics/{topic}/push/p").status_code == 404
    queue.http.put(path, json={}) if what == "topic" else queue.http.put(path)
    assert queue.http.get(f"/topics/{topic}/push").json() == {"pushes": []}
    queue.publish(topic, 1)
    assert bodies(queue.claim(topic)) == [1]
    assert receiver.accepted == 0
