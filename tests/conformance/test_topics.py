"""Protocol, section 2: topics."""

from typing import Any

import pytest

from tests.conformance.api import Queue, leases

DEFAULTS = {
    "kind": "queue",
    "schema": "json",
    "lease_s": 30.0,
    "max_deliveries": 5,
    "retry_backoff_s": {"min": 1.0, "max": 60.0},
    "dead_ttl_s": 14 * 86_400.0,
    "dead_letter_topic": None,
    "ttl_s": None,
    "max_messages": None,
    "max_bytes": None,
    "max_message_bytes": None,
    "dedup_window_s": 120.0,
}
GROUP = {"ready": 0, "delayed": 0, "leased": 0, "dead": 0, "oldest_age_s": None, "parked": 0} | {
    "delivered_per_s": 0.0,
    "settled_per_s": 0.0,
}


def shown(config: dict[str, Any]) -> dict[str, Any]:
    """Of a shown configuration, what these cases know; an engine may have more."""
    return {name: config[name] for name in DEFAULTS}


def test_legacy_create_makes_a_queue_message_topic(queue: Queue) -> None:
    topic = queue.new_name()
    answer = queue.http.post(f"/topics/{topic}")
    assert (answer.status_code, answer.content) == (200, b"null")
    assert answer.headers["content-type"] == "application/json"
    assert shown(queue.info(topic)["config"]) == DEFAULTS | {"schema": "queue_message"}


def test_legacy_create_ignores_its_body_and_never_alters_a_topic(queue: Queue) -> None:
    topic = queue.topic(schema="any", lease_s=7)
    before = queue.info(topic)
    for body in (b"", b'{"schema": "json"}', b"no json"):
        answer = queue.http.post(f"/topics/{topic}", content=body)
        assert (answer.status_code, answer.content) == (200, b"null")
    assert queue.info(topic) == before


def test_put_answers_201_then_200_with_the_topic(queue: Queue) -> None:
    topic = queue.new_name()
    first = queue.http.put(f"/topics/{topic}", json={"lease_s": 12.5, "retry_backoff_s": {"min": 0, "max": 3}})
    assert first.status_code == 201
    assert first.json()["name"] == topic
    assert first.json() == queue.info(topic)
    assert shown(first.json()["config"]) == DEFAULTS | {"lease_s": 12.5, "retry_backoff_s": {"min": 0.0, "max": 3.0}}
    again = queue.http.put(f"/topics/{topic}", json={"max_messages": 3})
    assert again.status_code == 200
    assert again.json() == queue.info(topic)
    assert shown(again.json()["config"]) == DEFAULTS | {"max_messages": 3}


EVERYTHING = {
    "kind": "queue",
    "schema": {"type": "object", "required": ["a"]},
    "lease_s": 1.5,
    "max_deliveries": 0,
    "retry_backoff_s": {"min": 0.5, "max": 2_592_000.0},
    "dead_ttl_s": 1.0,
    "dead_letter_topic": "somewhere else",
    "ttl_s": 31_536_000.0,
    "max_messages": 1,
    "max_bytes": 1,
    "max_message_bytes": 67_108_864,
    "dedup_window_s": 86_400.0,
}


def test_what_is_put_is_shown_whole_and_replaced_whole(queue: Queue) -> None:
    topic = queue.new_name()
    made = queue.http.put(f"/topics/{topic}", json=EVERYTHING)
    assert (made.status_code, shown(made.json()["config"])) == (201, EVERYTHING)
    # What is shown can be put.
    again = queue.http.put(f"/topics/{topic}", json=shown(queue.info(topic)["config"]))
    assert (again.status_code, shown(again.json()["config"])) == (200, EVERYTHING)
    for body in (b"{}", b""):
        reset = queue.http.put(f"/topics/{topic}", content=body)
        assert (reset.status_code, shown(reset.json()["config"])) == (200, DEFAULTS)


def test_info_says_how_a_topic_stands(queue: Queue) -> None:
    topic = queue.topic()
    empty = queue.info(topic)
    assert {"name", "created_at", "paused", "messages", "bytes", "config", "groups"} <= set(empty)
    assert (empty["name"], empty["paused"], empty["messages"], empty["bytes"]) == (topic, False, 0, 0)
    assert empty["groups"] == {"default": GROUP}
    assert empty["created_at"].endswith("Z")
    queue.publish(topic, "abc", 1)
    assert (queue.info(topic)["messages"], queue.info(topic)["bytes"]) == (2, 6)
    queue.http.get(f"/messages/{topic}")
    queue.wait_until(topic, leased=0)
    assert (queue.info(topic)["messages"], queue.info(topic)["bytes"]) == (1, 1)


def test_put_replaces_the_configuration_and_leaves_messages_and_leases(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, 1, 2)
    held = queue.claim_one(topic)
    queue.http.put(f"/topics/{topic}", json={"lease_s": 5})
    assert queue.standing(topic) == {"ready": 1, "delayed": 0, "leased": 1, "parked": 0}
    assert queue.settle(topic, ack=[held["lease_id"]]) == ["ok"]


def test_info_counts_messages_by_state(queue: Queue) -> None:
    topic = queue.topic()
    assert queue.standing(topic) == {"ready": 0, "delayed": 0, "leased": 0, "parked": 0}
    assert queue.info(topic)["groups"]["default"]["oldest_age_s"] is None
    queue.publish(topic, *range(6))
    taken = queue.claim(topic, max=3)
    queue.settle(topic, nack=[{"lease_id": taken[0]["lease_id"], "delay_s": 500}])
    assert queue.standing(topic) == {"ready": 3, "delayed": 1, "leased": 2, "parked": 0}
    assert 0 <= queue.info(topic)["groups"]["default"]["oldest_age_s"] < 60
    queue.settle(topic, ack=leases(taken[1:]))
    assert queue.standing(topic) == {"ready": 3, "delayed": 1, "leased": 0, "parked": 0}


def test_info_counts_parked_consumers(queue: Queue) -> None:
    topic = queue.topic()
    first = queue.park(topic)
    queue.park(topic)
    assert queue.standing(topic)["parked"] == 2
    first.close()
    queue.wait_until(topic, parked=1)


def test_list_goes_by_name_in_pages(queue: Queue) -> None:
    names = sorted(queue.topic() for _ in range(5))
    after, found = names[0][:-1], []
    while page := queue.http.get("/topics", params={"after": after, "limit": 2}).json()["topics"]:
        assert len(page) <= 2
        found += [info["name"] for info in page]
        after = found[-1]
    assert found == sorted(found)
    assert [name for name in found if name in names] == names
    assert queue.http.get("/topics", params={"after": names[1], "limit": 1}).json()["topics"] == [queue.info(names[2])]


@pytest.mark.parametrize("limit", ["0", "1001", "x", "1.5", "-1"])
def test_list_refuses_a_limit_out_of_range(queue: Queue, limit: str) -> None:
    answer = queue.http.get("/topics", params={"limit": limit})
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
    assert "limit" in answer.json()["detail"]


def test_delete_drops_the_topic_and_its_messages(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, "old")
    answer = queue.http.delete(f"/topics/{topic}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert queue.http.get(f"/topics/{topic}").status_code == 404
    assert queue.http.delete(f"/topics/{topic}").status_code == 404
    assert topic not in [info["name"] for info in queue.http.get("/topics?limit=1000").json()["topics"]]


def test_a_topic_made_anew_under_an_old_name_is_another(queue: Queue) -> None:
    topic = queue.topic(lease_s=500)
    queue.publish(topic, "old", "older")
    (old,) = queue.claim(topic)
    queue.http.delete(f"/topics/{topic}")
    assert queue.http.put(f"/topics/{topic}", json={}).status_code == 201
    queue.publish(topic, "new")
    (new,) = queue.claim(topic)
    assert (new["body"], new["attempt"]) == ("new", 1)
    assert queue.settle(topic, ack=[old["lease_id"]]) == ["stale"]
    assert queue.settle(topic, ack=[new["lease_id"]]) == ["ok"]


NAMES = ["a b", "ü", "日本語", "..", "a.b", "a%b", "a?b#c", "&=+;,", "'\"\\", "x" * 255, "é" * 255]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_may_have_anything_but_slashes_and_control_characters(queue: Queue, name: str) -> None:
    path = "/".join(["/topics", "".join(f"%{byte:02X}" for byte in name.encode())])
    try:
        answer = queue.http.put(path, json={})
        assert (answer.status_code, answer.json().get("name")) == (201, name)
        assert queue.http.get(path).json()["name"] == name
    finally:
        assert queue.http.delete(path).status_code == 204


@pytest.mark.parametrize("name", ["x" * 256, "a%00", "a%0Ab", "%7F", "a%1F"], ids=["256", "nul", "lf", "del", "us"])
@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_other_names_are_refused(queue: Queue, method: str, name: str) -> None:
    answer = queue.http.request(method, f"/topics/{name}", json={})
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
    assert "255" in answer.json()["detail"]
    assert queue.http.get(f"/topics/{name}").status_code == 404


def test_a_slash_in_a_name_is_another_path(queue: Queue) -> None:
    for name in ("a%2Fb", "", "a/b/c"):
        assert queue.http.put(f"/topics/{name}", json={}).status_code in (404, 405)


RANGES: list[tuple[str, float, float]] = [
    ("lease_s", 1, 43_200),
    ("max_deliveries", 0, 1_000),
    ("dead_ttl_s", 1, 31_536_000),
    ("ttl_s", 1, 31_536_000),
    ("max_message_bytes", 1, 67_108_864),
    ("dedup_window_s", 1, 86_400),
]
WHOLE = {"max_deliveries", "max_messages", "max_bytes", "max_message_bytes"}
WRONG_TYPES: list[Any] = ["30", True, [1], {}]
OUT_OF_RANGE: list[tuple[str, Any, list[str]]] = [
    *(
        (name, value, [str(low), str(high)])
        for name, low, high in RANGES
        for step in (1 if name in WHOLE else 0.01,)
        for value in (low - step, high + step, -high)
    ),
    *((name, value, []) for name, _, _ in RANGES for value in WRONG_TYPES),
    *((name, 1.5, []) for name in sorted(WHOLE)),
    *((name, None, []) for name in ("lease_s", "max_deliveries", "dead_ttl_s", "dedup_window_s", "retry_backoff_s")),
    ("retry_backoff_s", {"min": -1}, ["0", "2592000"]),
    ("retry_backoff_s", {"min": 5, "max": 4}, []),
    ("retry_backoff_s", {"max": 1e9}, ["0", "2592000"]),
    ("retry_backoff_s", {"min": "1"}, []),
    ("retry_backoff_s", {"mix": 1}, []),
    ("retry_backoff_s", 1, []),
    *((name, value, ["1"]) for name in ("max_messages", "max_bytes") for value in (0, -1)),
    *((name, value, ["9007199254740991"]) for name in ("max_messages", "max_bytes") for value in (2**53, 10**30)),
    ("dead_letter_topic", "", ["255"]),
    ("dead_letter_topic", "x" * 256, ["255"]),
    ("dead_letter_topic", "a/b", ["255"]),
    ("dead_letter_topic", "a\n", ["255"]),
    ("dead_letter_topic", 1, []),
    ("schema", "xml", ["queue_message", "json", "any"]),
    ("schema", 1, ["queue_message", "json", "any"]),
    ("schema", None, ["queue_message", "json", "any"]),
    ("kind", "log", ["queue"]),
    ("no_such_field", 1, []),
]


@pytest.mark.parametrize(("field", "value", "allowed"), OUT_OF_RANGE, ids=lambda value: str(value)[:30])
def test_values_out_of_range_are_refused_with_the_range(
    queue: Queue, field: str, value: Any, allowed: list[str]
) -> None:
    topic = queue.topic(schema="any")
    before = queue.info(topic)
    answer = queue.http.put(f"/topics/{topic}", json={field: value})
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
    detail = answer.json()["detail"].replace(",", "")
    assert field in detail
    assert [part for part in allowed if part not in detail] == []
    assert queue.info(topic) == before


def test_a_topic_is_not_its_own_dead_letter_topic(queue: Queue) -> None:
    topic = queue.topic()
    answer = queue.http.put(f"/topics/{topic}", json={"dead_letter_topic": topic})
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
    assert "dead_letter_topic" in answer.json()["detail"]
    assert queue.info(topic)["config"]["dead_letter_topic"] is None


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"1e999", b"-Infinity"], ids=repr)
def test_a_number_that_is_none_is_in_no_range(queue: Queue, number: bytes) -> None:
    topic = queue.topic()
    before = queue.info(topic)
    for field in (b"lease_s", b"ttl_s", b"dead_ttl_s", b"dedup_window_s"):
        answer = queue.http.put(f"/topics/{topic}", content=b'{"%b": %b}' % (field, number))
        assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
    assert queue.info(topic) == before


def test_a_refused_configuration_makes_no_topic(queue: Queue) -> None:
    topic = queue.new_name()
    for body in (b'{"lease_s": 0}', b"[]", b"{", b"nonsense"):
        answer = queue.http.put(f"/topics/{topic}", content=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
    assert queue.http.get(f"/topics/{topic}").status_code == 404


UNKNOWN = [
    ("POST", "/messages/{}", b"{}"),
    ("GET", "/messages/{}?wait=0", b""),
    ("POST", "/messages/{}/claim", b"{}"),
]


@pytest.mark.parametrize(("method", "path", "body"), UNKNOWN, ids=lambda value: str(value))
def test_an_unknown_topic_is_not_found_unless_topics_are_made_when_named(
    queue: Queue, method: str, path: str, body: bytes
) -> None:
    topic = queue.new_name()
    answer = queue.http.request(method, path.format(topic), content=body, headers={"content-type": "application/json"})
    if queue.auto_creates:
        assert answer.status_code == 200
        assert queue.info(topic)["config"]["schema"] == "queue_message"
    else:
        assert (answer.status_code, answer.json()["code"]) == (404, "TOPIC_NOT_FOUND")
        assert topic in answer.json()["detail"]
        assert queue.http.get(f"/topics/{topic}").status_code == 404


LOOKS = [
    ("GET", "/topics/{}"),
    ("DELETE", "/topics/{}"),
    ("GET", "/topics/{}/messages"),
    ("POST", "/topics/{}/purge"),
    ("POST", "/topics/{}/redrive"),
    ("POST", "/topics/{}/pause"),
    ("POST", "/topics/{}/resume"),
    ("POST", "/messages/{}/settle"),
]


@pytest.mark.parametrize(("method", "path"), LOOKS)
def test_looking_at_an_unknown_topic_never_makes_it(queue: Queue, method: str, path: str) -> None:
    topic = queue.new_name()
    for _ in range(2):
        answer = queue.http.request(method, path.format(topic))
        assert (answer.status_code, answer.json()["code"]) == (404, "TOPIC_NOT_FOUND")


def test_a_topic_shows_how_much_comes_and_goes(queue: Queue) -> None:
    topic = queue.topic()
    quiet = queue.info(topic)
    rates = ("delivered_per_s", "settled_per_s")
    assert quiet["published_per_s"] == 0
    assert [quiet["groups"]["default"][name] for name in rates] == [0, 0]
    queue.publish(topic, *range(100))
    held = queue.claim(topic, max=50)
    queue.settle(topic, ack=[delivery["lease_id"] for delivery in held[:25]])
    busy = queue.info(topic)
    delivered, settled = (busy["groups"]["default"][name] for name in rates)
    assert busy["published_per_s"] > delivered > settled > 0
