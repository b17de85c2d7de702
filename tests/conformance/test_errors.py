"""Protocol, section 7: errors, and who may ask at all."""

from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.conformance.api import Queue

PROBLEM = "application/problem+json"
LEGACY = "application/json"


def assert_problem(answer: httpx.Response, status: int, code: str, content_type: str) -> None:
    problem = answer.json()
    assert {"type", "title", "status", "detail", "code"} <= set(problem)
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert answer.headers["content-type"] == content_type
    assert problem["type"]
    assert problem["title"]
    assert problem["detail"]


V1_CALLS: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/messages/{topic}/claim", {"max": 0}, 400, "BAD_REQUEST"),
    ("POST", "/messages/{topic}/claim", {"group": "x"}, 404, "GROUP_NOT_FOUND"),
    ("POST", "/messages/{topic}/settle", {"ack": 1}, 400, "BAD_REQUEST"),
    ("POST", "/messages/{missing}/settle", {}, 404, "TOPIC_NOT_FOUND"),
    ("PUT", "/topics/{topic}", {"lease_s": 0}, 400, "BAD_REQUEST"),
    ("GET", "/topics/{missing}", None, 404, "TOPIC_NOT_FOUND"),
    ("DELETE", "/topics/{missing}", None, 404, "TOPIC_NOT_FOUND"),
    ("GET", "/topics?limit=0", None, 400, "BAD_REQUEST"),
    ("PUT", "/topics/%01", {}, 400, "BAD_REQUEST"),
    ("GET", "/topics/{topic}/messages?state=x", None, 400, "BAD_REQUEST"),
    ("POST", "/topics/{topic}/redrive", {"max": 0}, 400, "BAD_REQUEST"),
    ("POST", "/topics/{topic}/purge?group=x", None, 404, "GROUP_NOT_FOUND"),
    ("GET", "/topics/{topic}/groups/x", None, 404, "GROUP_NOT_FOUND"),
    ("PUT", "/topics/{missing}/groups/x", None, 404, "TOPIC_NOT_FOUND"),
    ("POST", "/topics/{missing}/pause", None, 404, "TOPIC_NOT_FOUND"),
    ("DELETE", "/topics/{topic}/messages", None, 405, "METHOD_NOT_ALLOWED"),
    ("GET", "/topics/{topic}/purge", None, 405, "METHOD_NOT_ALLOWED"),
    ("POST", "/topics/{topic}/groups/x", None, 405, "METHOD_NOT_ALLOWED"),
    ("GET", "/messages/{topic}/claim", None, 405, "METHOD_NOT_ALLOWED"),
    ("DELETE", "/messages/{topic}/settle", None, 405, "METHOD_NOT_ALLOWED"),
    ("POST", "/topics", {}, 405, "METHOD_NOT_ALLOWED"),
    ("POST", "/v1", {}, 405, "METHOD_NOT_ALLOWED"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "code"), V1_CALLS, ids=lambda value: str(value))
def test_errors_of_v1_are_problems(queue: Queue, method: str, path: str, body: Any, status: int, code: str) -> None:
    url = path.format(topic=queue.topic(), missing=queue.new_name())
    assert_problem(queue.http.request(method, url, json=body), status, code, PROBLEM)


LEGACY_CALLS: list[tuple[str, str, bytes, int, str]] = [
    ("GET", "/messages/{topic}?wait=61", b"", 400, "BAD_REQUEST"),
    ("GET", "/messages/{topic}?group=x&wait=0", b"", 404, "GROUP_NOT_FOUND"),
    ("POST", "/messages/{topic}", b"{", 422, "INVALID_MESSAGE"),
    ("PATCH", "/messages/{topic}", b"", 405, "METHOD_NOT_ALLOWED"),
    ("POST", "/", b"", 405, "METHOD_NOT_ALLOWED"),
    ("POST", "/topics/%01", b"", 400, "BAD_REQUEST"),
    ("GET", "/nowhere", b"", 404, "NOT_FOUND"),
    ("GET", "/messages/", b"", 404, "NOT_FOUND"),
    ("GET", "/messages/a/b", b"", 404, "NOT_FOUND"),
    ("POST", "/messages/{topic}/claim/x", b"", 404, "NOT_FOUND"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "code"), LEGACY_CALLS, ids=lambda value: str(value))
def test_errors_of_the_original_calls_are_json(
    queue: Queue, method: str, path: str, body: bytes, status: int, code: str
) -> None:
    url = path.format(topic=queue.topic(), missing=queue.new_name())
    answer = queue.http.request(method, url, content=body, headers={"content-type": "application/json"})
    assert_problem(answer, status, code, LEGACY)


def test_a_legacy_topic_not_found_reads_as_the_original_had_it(queue: Queue) -> None:
    if queue.auto_creates:
        pytest.skip("topics are made when they are named")
    topic = queue.new_name()
    for answer in (
        queue.http.get(f"/messages/{topic}"),
        queue.http.post(f"/messages/{topic}", json={}),
    ):
        assert_problem(answer, 404, "TOPIC_NOT_FOUND", LEGACY)
        assert answer.json()["detail"] == f"topic {topic} not found"


def test_an_invalid_message_lists_what_is_wrong(queue: Queue) -> None:
    topic = queue.topic()
    legacy = queue.post(topic, b"{")
    assert_problem(legacy, 422, "INVALID_MESSAGE", LEGACY)
    batch = queue.batch(topic, b"1\n{")
    assert_problem(batch, 422, "INVALID_MESSAGE", PROBLEM)
    for errors in (legacy.json()["detail"], batch.json()["errors"]):
        assert errors
        assert all({"loc", "msg"} <= set(error) for error in errors)


def test_refusals_of_publishes(queue: Queue) -> None:
    topic = queue.topic(max_messages=1, max_message_bytes=10)
    assert_problem(queue.post(topic, b"1", "text/plain"), 415, "UNSUPPORTED_MEDIA_TYPE", LEGACY)
    assert_problem(queue.post(topic, b'"' + b"x" * 10 + b'"'), 413, "MESSAGE_TOO_LARGE", LEGACY)
    assert_problem(queue.batch(topic, b'"' + b"x" * 10 + b'"'), 413, "MESSAGE_TOO_LARGE", PROBLEM)
    assert_problem(queue.batch(topic, b""), 400, "BAD_REQUEST", PROBLEM)
    assert queue.info(topic)["messages"] == 0
    queue.publish(topic, 1)
    assert_problem(queue.post(topic, b"2"), 429, "TOPIC_FULL", LEGACY)
    refused = queue.batch(topic, b"2")
    assert_problem(refused, 429, "TOPIC_FULL", PROBLEM)
    assert int(refused.headers["retry-after"]) >= 1
    assert queue.info(topic)["messages"] == 1


TOO_LARGE = [("POST", "/messages/{}/claim"), ("POST", "/messages/{}/settle"), ("PUT", "/topics/{}"),
             ("POST", "/topics/{}/redrive")]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), TOO_LARGE)
def test_a_request_that_is_too_large_is_refused(queue: Queue, method: str, path: str) -> None:
    topic = queue.topic()
    before = queue.info(topic)
    answer = queue.http.request(method, path.format(topic), content=b" " * (1 << 20) + b"{}")
    assert_problem(answer, 413, "MESSAGE_TOO_LARGE", PROBLEM)
    assert queue.info(topic) == before


@pytest.mark.capability("idempotency_conflict")
def test_a_conflict_is_told_in_either_form(queue: Queue) -> None:
    topic = queue.topic()
    key = {"idempotency-key": "k"}
    queue.post(topic, b"1", headers=key)
    assert_problem(queue.post(topic, b"2", headers=key), 422, "IDEMPOTENCY_CONFLICT", LEGACY)
    assert_problem(queue.batch(topic, b"2", headers=key), 422, "IDEMPOTENCY_CONFLICT", PROBLEM)
    assert_problem(queue.envelopes(topic, {"body": 2}, headers=key), 422, "IDEMPOTENCY_CONFLICT", PROBLEM)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/messages/{topic}", {"GET", "POST"}),
        ("GET", "/messages/{topic}/claim", {"POST"}),
        ("GET", "/messages/{topic}/settle", {"POST"}),
        ("PATCH", "/topics/{topic}", {"POST", "PUT", "GET", "DELETE"}),
        ("PATCH", "/topics/{topic}/groups/g", {"PUT", "GET", "DELETE"}),
        ("PUT", "/topics/{topic}/messages", {"GET"}),
        ("PUT", "/topics/{topic}/redrive", {"POST"}),
        ("PUT", "/topics/{topic}/pause", {"POST"}),
        ("POST", "/topics", {"GET"}),
        ("POST", "/healthz", {"GET"}),
        ("OPTIONS", "/topics/{topic}", {"POST", "PUT", "GET", "DELETE"}),
    ],
)
def test_a_wrong_method_says_which_are_right(queue: Queue, method: str, path: str, allowed: set[str]) -> None:
    answer = queue.http.request(method, path.format(topic=queue.topic()))
    assert answer.status_code == 405
    assert set(answer.headers["allow"].replace(" ", "").split(",")) == allowed


def test_a_head_request_takes_nothing(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, 1)
    answer = queue.http.head(f"/messages/{topic}")
    assert (answer.status_code, answer.content) == (405, b"")
    assert queue.standing(topic)["ready"] == 1


def test_what_cannot_be_encoded_comes_back_escaped(queue: Queue) -> None:
    answer = queue.post(queue.topic(schema="queue_message"), b'{"data": "\\ud800"}')
    assert_problem(answer, 422, "INVALID_MESSAGE", LEGACY)
    assert b"\\ud800" in answer.content


def test_a_slash_at_the_end_leads_to_the_topic(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, 1)
    answer = queue.http.get(f"/messages/{topic}/?wait=0")
    assert answer.status_code == 307
    assert queue.http.get(answer.headers["location"]).json() == 1


# Browsers


FOREIGN = ["http://evil.example", "null", "http://localhost.evil.example", "file://"]


@pytest.mark.parametrize("origin", FOREIGN)
def test_pages_of_other_origins_are_refused(queue: Queue, origin: str) -> None:
    topic = queue.topic()
    queue.publish(topic, 1)
    calls = [("GET", "?wait=0"), ("POST", ""), ("POST", "/claim"), ("POST", "/settle"), ("OPTIONS", "")]
    for method, rest in calls:
        answer = queue.http.request(method, f"/messages/{topic}{rest}", headers={"origin": origin})
        assert (answer.status_code, answer.json()["code"]) == (403, "ORIGIN_REFUSED")
        assert "access-control-allow-origin" not in answer.headers
    assert queue.standing(topic) == {"ready": 1, "delayed": 0, "leased": 0, "parked": 0}


def test_pages_of_this_origin_are_served(queue: Queue) -> None:
    origin = str(queue.http.base_url).rstrip("/")
    assert queue.http.get("/v1", headers={"origin": origin}).status_code == 200


def loopback(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "[::2]:1"])
def test_names_that_are_not_this_machines_are_refused(queue: Queue, host: str) -> None:
    if not loopback(queue.url):
        pytest.skip("bound wider, other names are served")
    answer = queue.http.get("/v1", headers={"host": host})
    assert (answer.status_code, answer.json()["code"]) == (403, "ORIGIN_REFUSED")
    assert "--allowed-hosts" in answer.json()["detail"]


@pytest.mark.parametrize("host", ["localhost", "LocalHost:80", "127.1.2.3:9", "[::1]:9", "a.localhost", "localhost."])
def test_loopback_names_are_served(queue: Queue, host: str) -> None:
    if not loopback(queue.url):
        pytest.skip("bound wider, other names are served")
    assert queue.http.get("/v1", headers={"host": host}).status_code == 200
