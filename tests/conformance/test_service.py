"""Protocol, sections 1 and 9: the server about itself."""

import re
from typing import Any

import pytest

from tests.conformance.api import Queue, leases


def test_the_card_is_the_originals(queue: Queue) -> None:
    answer = queue.http.get("/")
    assert answer.headers["content-type"] == "application/json"
    assert answer.content == (b'{"service_name":"message_queue","description":"Message queue for multi-agent system"}')


def test_v1_lists_engine_version_capabilities_and_limits(queue: Queue) -> None:
    answer = queue.http.get("/v1")
    assert answer.headers["content-type"] == "application/json"
    about = answer.json()
    assert re.fullmatch(r"\d+\.\d+.*", about["version"])
    assert about["engine"]
    assert about["durability"] in ("fsync", "os", "memory")
    known = {"fence", "head_return", "ordering_keys", "idempotency_conflict", "delay", "push", "groups", "presence"}
    assert set(about["capabilities"]) <= known
    limits: dict[str, Any] = about["limits"]
    assert (limits["wait_s"], limits["lease_s"], limits["claim_messages"]) == (60, [1, 43_200], 1_000)
    assert (limits["topic_name_characters"], limits["key_characters"], limits["headers_bytes"]) == (255, 255, 16_384)
    assert (limits["delay_s"], limits["ttl_s"], limits["peek_messages"]) == (2_592_000, [1, 31_536_000], 100)
    assert all(limits[name] > 0 for name in ("topics", "parked", "head_timeout_s", "body_timeout_s"))


def test_v1_says_whether_topics_are_made_and_a_token_is_asked_for(queue: Queue, about: dict[str, Any]) -> None:
    assert about["auto_create_topics"] is queue.auto_creates
    assert about["token"] is False


@pytest.mark.parametrize(("path", "status"), [("/healthz", "ok"), ("/readyz", "ready")])
def test_health_and_readiness(queue: Queue, path: str, status: str) -> None:
    answer = queue.http.get(path)
    assert (answer.status_code, answer.json()) == (200, {"status": status})


def metric(queue: Queue, name: str, **labels: str) -> float:
    """One sample of `GET /metrics`."""
    answer = queue.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    wanted = "{" + ",".join(f'{key}="{value}"' for key, value in sorted(labels.items())) + "}" if labels else ""
    (line,) = [line for line in answer.text.splitlines() if line.startswith(f"{name}{wanted} ")]
    return float(line.rpartition(" ")[2])


def test_metrics_count_messages_and_outcomes(queue: Queue) -> None:
    totals = ["wakeq_published_messages_total", "wakeq_delivered_messages_total", "wakeq_redelivered_messages_total"]
    before = [metric(queue, name) for name in totals]
    acked = metric(queue, "wakeq_settled_messages_total", outcome="ack")
    topic = queue.topic()
    queue.publish(topic, 1, 2, 3)
    first, second = queue.claim(topic, max=2)
    queue.settle(topic, nack=[{"lease_id": first["lease_id"], "delay_s": 0}], ack=[second["lease_id"]])
    queue.claim(topic)
    assert [metric(queue, name) for name in totals] == [before[0] + 3, before[1] + 3, before[2] + 1]
    assert metric(queue, "wakeq_settled_messages_total", outcome="ack") == acked + 1
    for state, count in (("ready", 1), ("leased", 1), ("delayed", 0)):
        assert metric(queue, "wakeq_topic_messages", topic=topic, group="default", state=state) == count


def test_metrics_count_duplicates_and_dead_letters(queue: Queue) -> None:
    totals = ["wakeq_duplicate_publishes_total", "wakeq_dead_letters_total"]
    before = [metric(queue, name) for name in totals]
    topic = queue.topic()
    for _ in range(3):
        headers = {"content-type": "application/json", "idempotency-key": "k"}
        assert queue.http.post(f"/messages/{topic}", content=b"1", headers=headers).status_code == 200
    queue.settle(topic, dead=[{"lease_id": queue.claim_one(topic)["lease_id"]}])
    assert [metric(queue, name) for name in totals] == [before[0] + 2, before[1] + 1]


def test_metrics_add_up_all_topics(queue: Queue) -> None:
    names = ["wakeq_topics", "wakeq_held_messages", "wakeq_held_bytes"]
    before, ready = [metric(queue, name) for name in names], metric(queue, "wakeq_messages", state="ready")
    queue.publish(queue.topic(), 1, 22)
    assert [metric(queue, name) for name in names] == [before[0] + 1, before[1] + 2, before[2] + 3]
    assert metric(queue, "wakeq_messages", state="ready") == ready + 2


def test_metrics_count_refusals_by_code(queue: Queue) -> None:
    queue.http.get(f"/topics/{queue.new_name()}")
    before = metric(queue, "wakeq_refused_requests_total", code="TOPIC_NOT_FOUND")
    queue.http.get(f"/topics/{queue.new_name()}")
    assert metric(queue, "wakeq_refused_requests_total", code="TOPIC_NOT_FOUND") == before + 1


def test_metrics_count_the_parked(queue: Queue) -> None:
    topic = queue.topic()
    before = metric(queue, "wakeq_parked_consumers")
    queue.park(topic)
    assert metric(queue, "wakeq_parked_consumers") == before + 1


def test_a_topic_with_any_name_keeps_the_metrics_readable(queue: Queue) -> None:
    name = 'a"b\\c'
    queue.http.put("/topics/a%22b%5Cc", json={})
    try:
        assert f'topic="{name}"'.replace("\\", "\\\\").replace('a"', 'a\\"') in queue.http.get("/metrics").text
    finally:
        queue.http.delete("/topics/a%22b%5Cc")


def test_the_api_is_described(queue: Queue) -> None:
    document = queue.http.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for path in ("/docs", "/redoc"):
        answer = queue.http.get(path)
        assert answer.headers["content-type"].startswith("text/html")
        assert "http" not in re.sub(r"http://127\.0\.0\.1|https?://www\.w3\.org", "", answer.text.partition("<body")[0])


def test_answers_of_settles_are_durable_before_they_are_given(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, *range(50))
    held = leases(queue.claim(topic, max=50))
    assert queue.settle(topic, ack=held) == ["ok"] * 50
    assert queue.info(topic)["messages"] == 0
