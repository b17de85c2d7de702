"""From a request to the engine's call and back, with an engine that only notes what it is asked."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from tests.support.asgi import Answer, ask
from wakeq_server.app import build_app
from wakeq_server.core.model import (
    GroupInfo,
    Message,
    Moved,
    NewMessage,
    Peeked,
    Published,
    TopicConfig,
    TopicInfo,
)
from wakeq_server.engine.stats import Stats
from wakeq_server.errors import GroupNotFound, IdempotencyConflict, QueueError, TopicFull
from wakeq_server.http.routes import App
from wakeq_server.settings import PEEK, PUBLISH_HOLD_S, Settings

pytestmark = pytest.mark.anyio
GROUP = GroupInfo("g", 1, 2, 3, 4, None)
JSON = {"content-type": "application/json"}
LINES = {"content-type": "application/x-ndjson"}
ENVELOPES = {"content-type": "application/vnd.wakeq.envelopes+x-ndjson"}
LENIENT = ENVELOPES | {"prefer": "handling=lenient"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class NotingEngine:
    name, capabilities, draining = "noting", frozenset[str](), False

    def __init__(self) -> None:
        self.stats = Stats()
        self.config = TopicConfig()
        self.asked: list[Any] = []
        self.made = True
        self.refusal: QueueError | None = None
        self.duplicate = False
        self.peeked: list[Peeked] = []
        self.each: list[Published | QueueError] = []

    def note(self, *call: Any) -> None:
        self.asked.append(call)
        if self.refusal is not None:
            raise self.refusal

    async def topic_config(self, topic: str) -> TopicConfig:
        return self.config

    async def put_topic(self, topic: str, config: TopicConfig) -> bool:
        self.config = config
        return True

    async def describe_topic(self, topic: str) -> TopicInfo:
        return TopicInfo(topic, self.config, 0.0, ("pause", topic, True) in self.asked, 0, 0, (GROUP,))

    async def publish(
        self, topic: str, messages: Sequence[NewMessage], *, key: str | None = None, hold_s: float = 0.0
    ) -> Published:
        self.note("publish", list(messages), key, hold_s)
        return Published(7, 6 + len(messages), len(messages), self.duplicate)

    async def publish_each(self, topic: str, messages: Sequence[NewMessage]) -> list[Published | QueueError]:
        self.note("each", list(messages))
        return self.each

    async def pause_topic(self, topic: str, paused: bool) -> None:
        self.note("pause", topic, paused)

    async def put_group(self, topic: str, group: str) -> bool:
        self.note("put", topic, group)
        return self.made

    async def describe_group(self, topic: str, group: str) -> GroupInfo:
        return GROUP

    async def delete_group(self, topic: str, group: str) -> None:
        self.note("delete", topic, group)

    async def purge(self, topic: str, group: str) -> int:
        self.note("purge", topic, group)
        return 3

    async def redrive(self, topic: str, group: str, limit: int | None) -> Moved:
        self.note("redrive", topic, group, limit)
        return Moved(2, 1)

    async def peek(self, topic: str, group: str, state: str, after: int, limit: int) -> list[Peeked]:
        self.note("peek", topic, group, state, after, limit)
        return self.peeked


@pytest.fixture
def engine() -> NotingEngine:
    return NotingEngine()


@pytest.fixture
def app(engine: NotingEngine) -> App:
    return build_app(engine, Settings(durability="memory"), "0")  # type: ignore[arg-type]


async def ask_json(app: App, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
    answer = await ask(app, method, path, headers, body)
    return answer.status, json.loads(answer.body) if answer.body else None


async def publish(app: App, body: bytes, headers: dict[str, str]) -> Answer:
    return await ask(app, "POST", "/messages/t", headers, body)


async def test_a_topic_is_put_and_shown_whole(app: App, engine: NotingEngine) -> None:
    config = {"schema": {"type": "object"}, "max_deliveries": 2, "dead_letter_topic": "d", "ttl_s": 5.0}
    status, info = await ask_json(app, "PUT", "/topics/t", json.dumps(config).encode())
    assert (status, info["paused"], info["groups"]["g"]["dead"]) == (201, False, 4)
    assert config.items() <= info["config"].items()
    status, problem = await ask_json(app, "PUT", "/topics/t", b'{"dead_letter_topic": "t"}')
    assert (status, problem["detail"].partition(":")[0]) == (400, "dead_letter_topic")


async def test_a_single_publish_says_what_its_headers_say(app: App, engine: NotingEngine) -> None:
    answer = await publish(app, b"1", JSON | {"Idempotency-Key": "k", "Wakeq-TTL": "9", "Wakeq-H-A": "b"})
    assert (answer.status, answer.body, answer.headers[b"wakeq-seq"]) == (200, b"null", b"7")
    assert engine.asked == [("publish", [NewMessage(b"1", None, {"a": "b"}, "k", None, 0.0, 9.0)], "k", 0.0)]
    answer = await publish(app, b"1", JSON | {"Wakeq-Delay": "x"})
    assert (answer.status, json.loads(answer.body)["detail"].partition(":")[0]) == (400, "Wakeq-Delay")


async def test_a_legacy_publish_is_still_held_and_counted(app: App, engine: NotingEngine) -> None:
    engine.config, engine.refusal = TopicConfig(schema="queue_message"), TopicFull("full")
    assert (await publish(app, b"{}", JSON)).status == 429
    assert engine.asked[0][2:] == (None, PUBLISH_HOLD_S)
    assert engine.stats.refused_publishes["t", "TOPIC_FULL"] == 1


async def test_a_conflict_is_422(app: App, engine: NotingEngine) -> None:
    engine.refusal = IdempotencyConflict("used")
    answer = await publish(app, b"1", JSON | {"Idempotency-Key": "k"})
    assert (answer.status, json.loads(answer.body)["code"]) == (422, "IDEMPOTENCY_CONFLICT")


async def test_a_batch_has_one_key_and_counts_duplicates(app: App, engine: NotingEngine) -> None:
    engine.duplicate = True
    answer = await publish(app, b"1\n2", LINES | {"Idempotency-Key": "k"})
    assert json.loads(answer.body) == {"first_seq": 7, "last_seq": 8, "count": 2, "duplicates": 2}
    assert engine.asked == [("publish", [NewMessage(b"1"), NewMessage(b"2")], "k", 0.0)]
    assert (await publish(app, b"1", LINES | {"Wakeq-Delay": "1"})).status == 400


async def test_a_batch_is_asked_for_its_schema(app: App, engine: NotingEngine) -> None:
    engine.config = TopicConfig(schema={"type": "string"})
    answer = await publish(app, b'"a"\n2', LINES)
    problem = json.loads(answer.body)
    assert (answer.status, problem["errors"][0]["line"], engine.asked) == (422, 2, [])


async def test_envelopes_are_taken_whole(app: App, engine: NotingEngine) -> None:
    answer = await publish(app, b'{"body": 1, "delay_s": 2}\n{"body": 2, "key": "k"}', ENVELOPES)
    assert json.loads(answer.body)["count"] == 2
    assert engine.asked == [("publish", [NewMessage(b"1", delay_s=2.0), NewMessage(b"2", key="k")], None, 0.0)]
    answer = await publish(app, b'{"body": 1}\n{"body": 2, "delay_s": -1}', ENVELOPES)
    problem = json.loads(answer.body)
    assert (answer.status, problem["code"], problem["detail"][:16]) == (400, "BAD_REQUEST", "line 2: delay_s:")
    assert answer.headers[b"content-type"] == b"application/problem+json"


async def test_lenient_envelopes_are_taken_each_by_itself(app: App, engine: NotingEngine) -> None:
    engine.each = [Published(1, 1, 1), TopicFull("full"), Published(2, 2, 1, True)]
    lines = b'{"body": 1, "id": "a"}\n{"body"\n{"body": 2}\n{"body": 3, "ttl_s": 0}\n{"body": 4}'
    answer = await publish(app, lines, LENIENT)
    first, broken, full, refused, last = json.loads(answer.body)["results"]
    assert (first, last) == ({"seq": 1, "duplicate": False}, {"seq": 2, "duplicate": True})
    assert [broken["code"], full["code"], refused["code"]] == ["INVALID_MESSAGE", "TOPIC_FULL", "BAD_REQUEST"]
    assert engine.asked == [("each", [NewMessage(b"1", id="a"), NewMessage(b"2"), NewMessage(b"4")])]
    assert (await publish(app, b'{"body": 1}', LENIENT | {"Idempotency-Key": "k"})).status == 400


async def test_when_no_envelope_is_valid_nothing_is_asked(app: App, engine: NotingEngine) -> None:
    answer = await publish(app, b"{}", LENIENT)
    assert (answer.status, len(json.loads(answer.body)["results"]), engine.asked) == (200, 1, [])


async def test_groups(app: App, engine: NotingEngine) -> None:
    assert (await ask_json(app, "PUT", "/topics/t/groups/g"))[0] == 201
    engine.made = False
    status, info = await ask_json(app, "PUT", "/topics/t/groups/g")
    assert (status, info) == (200, (await ask_json(app, "GET", "/topics/t/groups/g"))[1])
    assert (info["ready"], info["dead"], "name" in info) == (1, 4, False)
    assert (await ask_json(app, "DELETE", "/topics/t/groups/g")) == (204, None)
    assert engine.asked == [("put", "t", "g"), ("put", "t", "g"), ("delete", "t", "g")]
    assert (await ask_json(app, "PUT", "/topics/t/groups/" + "g" * 256))[0] == 400
    engine.refusal = GroupNotFound("t", "g")
    assert (await ask_json(app, "DELETE", "/topics/t/groups/g"))[1]["code"] == "GROUP_NOT_FOUND"


async def test_purge_and_redrive(app: App, engine: NotingEngine) -> None:
    assert await ask_json(app, "POST", "/topics/t/purge?group=g") == (200, {"purged": 3})
    assert await ask_json(app, "POST", "/topics/t/redrive") == (200, {"moved": 2, "remaining": 1})
    await ask_json(app, "POST", "/topics/t/redrive?group=g", b'{"max": 5}')
    assert engine.asked == [("purge", "t", "g"), ("redrive", "t", "default", None), ("redrive", "t", "g", 5)]
    assert (await ask_json(app, "POST", "/topics/t/redrive", b'{"max": 0}'))[0] == 400


async def test_pause_and_resume_answer_the_topic(app: App, engine: NotingEngine) -> None:
    assert (await ask_json(app, "POST", "/topics/t/pause"))[1]["paused"] is True
    assert (await ask_json(app, "POST", "/topics/t/resume"))[0] == 200
    assert engine.asked == [("pause", "t", True), ("pause", "t", False)]


async def test_peek(app: App, engine: NotingEngine) -> None:
    plain = Message(1, b'{"a":1}', 7, 0.0, None, {"h": "v"}, "i", "k")
    octets = Message(2, b"\xff", 1, 0.0, "x/y")
    damaged = Peeked(Message(3, None, 1, 0.0), "dead", 0, "damaged in the store", None)
    engine.peeked = [Peeked(plain, "dead", 5, "why", 1.0), Peeked(octets, "ready", 0, None, None), damaged]
    _, answer = await ask_json(app, "GET", "/topics/t/messages?state=dead&group=g&after=4&limit=7")
    first, second, third = answer["messages"]
    assert first == {
        "seq": 1, "id": "i", "key": "k", "headers": {"h": "v"}, "published_at": "1970-01-01T00:00:00.000Z",
        "state": "dead", "attempt": 5, "reason": "why", "due_at": "1970-01-01T00:00:01.000Z", "body": {"a": 1},
    }  # fmt: skip
    assert (second["body_b64"], second["content_type"], second["due_at"]) == ("/w==", "x/y", None)
    assert (third["body"], third["reason"]) == (None, "damaged in the store")
    await ask_json(app, "GET", "/topics/t/messages")
    assert engine.asked == [("peek", "t", "g", "dead", 4, 7), ("peek", "t", "default", "ready", 0, PEEK)]
    assert (await ask_json(app, "GET", "/topics/t/messages?state=odd"))[0] == 400


@pytest.mark.parametrize(
    "path", ["/topics/t/groups/", "/topics/t/groups", "/topics//purge", "/topics/t/odd", "/topics/"]
)
async def test_what_is_no_call_is_not_found(app: App, path: str) -> None:
    assert (await ask(app, "POST", path)).status == 404


async def test_a_wrong_method_names_the_right_ones(app: App) -> None:
    answer = await ask(app, "GET", "/topics/t/purge")
    assert (answer.status, answer.headers[b"allow"]) == (405, b"POST")
    assert answer.headers[b"content-type"] == b"application/problem+json"
