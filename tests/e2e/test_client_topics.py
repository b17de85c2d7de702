"""What operators do, by wakeq.AsyncClient on a real server, on asyncio and on trio."""

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, timedelta
from typing import Any

import anyio
import pytest

import wakeq
from tests.support.server import ServerProcess, start_server

pytestmark = pytest.mark.anyio

Queue = tuple[wakeq.AsyncClient, str]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with start_server(tmp_path_factory.mktemp("data"), durability="os") as server:
        yield server


@pytest.fixture
async def queue(server: ServerProcess, request: pytest.FixtureRequest) -> AsyncIterator[Queue]:
    """A client, and a topic for one test."""
    async with wakeq.AsyncClient(server.url) as client:
        await client.create_topic(request.node.name, lease_s=500, max_deliveries=1)
        yield client, request.node.name


async def die(client: wakeq.AsyncClient, topic: str, count: int) -> None:
    """Make dead letters of so many messages."""
    for delivery in await client.claim(topic, max=count):
        await delivery.nack()


async def test_a_topic_is_shown_with_its_configuration_and_groups(queue: Queue) -> None:
    client, topic = queue
    made = await client.topic(topic)
    assert (made.name, made.paused, made.messages, made.bytes) == (topic, False, 0, 0)
    assert made.created_at.tzinfo == UTC
    assert made.config == wakeq.TopicConfig(
        kind="queue",
        schema="json",
        lease_s=500.0,
        max_deliveries=1,
        retry_backoff_s=wakeq.RetryBackoff(1.0, 60.0),
        dead_ttl_s=1_209_600.0,
        dead_letter_topic=None,
        ttl_s=None,
        max_messages=None,
        max_bytes=None,
        max_message_bytes=None,
        dedup_window_s=120.0,
    )
    assert made.groups == {"default": wakeq.GroupInfo("default", 0, 0, 0, 0, 0, None)}
    await client.publish_many(topic, ["a", "bc", "d", "e"])
    await die(client, topic, 1)
    await client.claim(topic)
    await client.publish(topic, "later", delay_s=500)
    standing = await client.group(topic, "default")
    assert (standing.ready, standing.delayed, standing.leased, standing.dead) == (2, 1, 1, 1)
    assert standing.oldest_age_s is not None
    shown = await client.topic(topic)
    assert shown.bytes > 0
    assert shown.raw["groups"]["default"]["dead"] == 1


async def test_to_create_is_to_replace_and_to_configure_is_to_change(queue: Queue) -> None:
    client, topic = queue
    changed = await client.configure_topic(topic, ttl_s=60, retry_backoff_s={"max": 90})
    assert (changed.config.lease_s, changed.config.ttl_s) == (500.0, 60.0)
    assert changed.config.retry_backoff_s == wakeq.RetryBackoff(1.0, 90.0)
    assert (await client.configure_topic(topic, ttl_s=None)).config.ttl_s is None
    assert (await client.configure_topic(topic, retry_backoff_s={"min": 2})).config.retry_backoff_s == (2.0, 90.0)
    replaced = await client.create_topic(topic, schema={"type": "object"})
    assert (replaced.config.lease_s, replaced.config.schema) == (30.0, {"type": "object"})
    assert replaced == await client.topic(topic)


async def test_a_refused_change_changes_nothing(queue: Queue) -> None:
    client, topic = queue
    before = await client.topic(topic)
    with pytest.raises(wakeq.BadRequest, match="ttl_s"):
        await client.configure_topic(topic, lease_s=7, ttl_s=0)
    assert await client.topic(topic) == before


async def test_topics_go_by_name_over_all_pages(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    client, topic = queue
    names = {f"{topic} {number}" for number in range(5)}
    for name in names:
        await client.create_topic(name)
    for page in (1, 2, len(names), 100):
        monkeypatch.setattr("wakeq._administration._PAGE", page)
        found = [info.name async for info in client.topics()]
        behind = [info.name async for info in client.topics(after=found[1])]
        assert found == sorted(set(found))
        assert names < set(found)
        assert behind == found[2:]


async def test_a_deleted_topic_is_gone(queue: Queue) -> None:
    client, topic = queue
    await client.delete_topic(topic)
    with pytest.raises(wakeq.TopicNotFound):
        await client.topic(topic)


async def test_a_paused_topic_delivers_nothing_until_it_is_resumed(queue: Queue) -> None:
    client, topic = queue
    assert (await client.pause(topic)).paused
    await client.publish(topic, 1)
    assert await client.claim(topic) == []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.resume, topic)
        assert [d.body for d in await client.claim(topic, wait_s=20)] == [1]
    assert not (await client.topic(topic)).paused


async def test_to_peek_takes_nothing(queue: Queue) -> None:
    client, topic = queue
    for number in range(3):
        await client.publish(topic, number, key=f"k{number}", headers={"h": "v"}, idempotency_key=f"i{number}")
    peeked = await client.peek(topic)
    assert [(p.body, p.id, p.key, p.state, p.attempt) for p in peeked] == [
        (number, f"i{number}", f"k{number}", "ready", 0) for number in range(3)
    ]
    assert (peeked[0].headers, peeked[0].reason, peeked[0].due_at, peeked[0].content_type) == ({"h": "v"}, *[None] * 3)
    assert await client.peek(topic, after=peeked[0].seq, limit=1) == peeked[1:2]
    (claimed,) = await client.claim(topic)
    (leased,) = await client.peek(topic, state="leased", group="default")
    assert (leased.seq, leased.attempt, leased.published_at) == (claimed.seq, 1, claimed.published_at)
    assert leased.due_at is not None
    assert abs(leased.due_at - claimed.lease_expires_at) < timedelta(seconds=1)
    await claimed.nack()
    (dead,) = await client.peek(topic, state="dead")
    assert (dead.body, dead.state) == (0, "dead")
    assert dead.reason


async def test_bytes_are_peeked_as_bytes(queue: Queue) -> None:
    client, topic = queue
    await client.configure_topic(topic, schema="any")
    await client.publish(topic, b"\xff")
    (peeked,) = await client.peek(topic)
    assert (peeked.body, peeked.content_type) == (b"\xff", "application/octet-stream")


async def test_to_purge_drops_what_waits(queue: Queue) -> None:
    client, topic = queue
    await client.publish_many(topic, range(4))
    await die(client, topic, 1)
    await client.claim(topic)
    assert await client.purge(topic) == 2
    assert await client.purge(topic, group="default") == 0
    standing = await client.group(topic, "default")
    assert (standing.ready, standing.leased, standing.dead) == (0, 1, 1)


async def test_to_redrive_makes_dead_letters_ready(queue: Queue) -> None:
    client, topic = queue
    await client.publish_many(topic, range(3))
    await die(client, topic, 3)
    assert await client.redrive(topic, max=1) == wakeq.Redriven(1, 2)
    assert [(d.body, d.attempt) for d in await client.claim(topic, max=9)] == [(0, 1)]
    assert await client.redrive(topic, group="default") == (2, 0)


async def test_groups_are_made_and_dropped(queue: Queue) -> None:
    client, topic = queue
    await client.publish(topic, "before")
    made = await client.put_group(topic, "audit ü")
    assert made == wakeq.GroupInfo("audit ü", 0, 0, 0, 0, 0, None)
    await client.publish(topic, "after")
    assert (await client.put_group(topic, "audit ü")).ready == 1
    assert set((await client.topic(topic)).groups) == {"default", "audit ü"}
    await client.delete_group(topic, "audit ü")
    with pytest.raises(wakeq.GroupNotFound):
        await client.group(topic, "audit ü")


NO_TOPIC: list[Callable[[wakeq.AsyncClient], Any]] = [
    lambda c: c.topic("none"),
    lambda c: c.configure_topic("none", lease_s=9),
    lambda c: c.delete_topic("none"),
    lambda c: c.pause("none"),
    lambda c: c.resume("none"),
    lambda c: c.peek("none"),
    lambda c: c.purge("none"),
    lambda c: c.redrive("none"),
    lambda c: c.put_group("none", "g"),
    lambda c: c.group("none", "g"),
    lambda c: c.delete_group("none", "g"),
]
NO_GROUP: list[Callable[[wakeq.AsyncClient, str], Any]] = [
    lambda c, t: c.peek(t, group="none"),
    lambda c, t: c.purge(t, group="none"),
    lambda c, t: c.redrive(t, group="none"),
    lambda c, t: c.group(t, "none"),
    lambda c, t: c.delete_group(t, "none"),
]
OUT_OF_RANGE: list[Callable[[wakeq.AsyncClient, str], Any]] = [
    lambda c, t: c.peek(t, limit=101),
    lambda c, t: c.peek(t, after=-1),
    lambda c, t: c.redrive(t, max=0),
    lambda c, t: c.put_group(t, "x" * 256),
]


async def test_what_is_not_there_or_not_allowed_is_an_error_of_its_own(queue: Queue) -> None:
    client, topic = queue
    for call in NO_TOPIC:
        with pytest.raises(wakeq.TopicNotFound, match="none"):
            await call(client)
    for ask in NO_GROUP:
        with pytest.raises(wakeq.GroupNotFound, match="none"):
            await ask(client, topic)
    for ask in OUT_OF_RANGE:
        with pytest.raises(wakeq.BadRequest):
            await ask(client, topic)
