"""What a scrape shows: totals of everything, and of many topics only the busiest by themselves."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from tests.support.asgi import ask
from tests.support.stores import KeepingStore
from wakeq_server.app import build_app
from wakeq_server.core.model import NewMessage, Settle, TopicConfig
from wakeq_server.engine.clocks import Clocks
from wakeq_server.engine.embedded import EmbeddedEngine, open_engine
from wakeq_server.settings import Settings

pytestmark = pytest.mark.anyio
X = NewMessage(b"x" * 100)
JSON = {"content-type": "application/json"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Server:
    def __init__(self, engine: EmbeddedEngine) -> None:
        self.engine = engine
        self.app = build_app(engine, Settings(durability="fsync"), "0")

    async def scrape(self) -> dict[str, float]:
        text = (await ask(self.app, "GET", "/metrics")).body.decode()
        pairs = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("wakeq_"))
        return {name: float(value) for name, value in pairs}


@asynccontextmanager
async def a_server(store: KeepingStore | None = None, *, memory_budget: int = 1_000_000) -> AsyncIterator[Server]:
    clocks = Clocks(lambda: anyio.current_time() + 1_000_000, lambda: 0.0)
    async with open_engine(store or KeepingStore(), clocks, memory_budget=memory_budget) as engine:
        yield Server(engine)


def topics_in(samples: dict[str, float]) -> set[str]:
    return {found[1] for name in samples if (found := re.search(r'_topic_\w+\{.*topic="([^"]*)"', name))}


async def test_totals_are_of_all_topics_and_the_busiest_are_shown_by_themselves() -> None:
    async with a_server() as server:
        for number in range(150):
            await server.engine.create_topic(f"t{number:03}", TopicConfig())
        for number in range(25, 150):
            await server.engine.publish(f"t{number:03}", [X] * (1 + number % 3))
        samples = await server.scrape()
    assert samples["wakeq_topics"] == 150
    published = sum(1 + number % 3 for number in range(25, 150))
    assert samples['wakeq_messages{state="ready"}'] == samples["wakeq_held_messages"] == published
    assert samples["wakeq_held_bytes"] == published * 100
    shown = topics_in(samples)
    assert len(shown) == 100
    assert {f"t{number:03}" for number in range(25, 150) if number % 3} < shown
    rate = samples['wakeq_topic_published_per_second{topic="t026"}']
    assert rate == pytest.approx(3 / 60, abs=0.001)


async def test_what_happens_to_messages_is_counted() -> None:
    async with a_server() as server:
        engine = server.engine
        await engine.create_topic("t", TopicConfig())
        for _ in range(3):
            await engine.publish("t", [X], key="k")
        await engine.publish("t", [X._replace(ttl_s=30.0)])
        subscription = await engine.subscribe("t")
        (delivery,) = await subscription.take(1, 0.0)
        await engine.settle("t", [Settle("dead", delivery.lease.encode())])
        later = anyio.current_time() + 60.0
        engine.core.tick(later, later + 1_000_000)
        await ask(server.app, "POST", "/messages/nowhere/claim", JSON, b"{}")
        samples = await server.scrape()
    assert samples["wakeq_duplicate_publishes_total"] == 2
    assert samples["wakeq_dead_letters_total"] == 1
    assert samples["wakeq_expired_messages_total"] == 1
    assert samples['wakeq_messages{state="dead"}'] == 1
    assert samples['wakeq_refused_requests_total{code="TOPIC_NOT_FOUND"}'] == 1
    assert samples['wakeq_topic_delivered_per_second{group="default",topic="t"}'] > 0


async def test_keys_that_were_forgotten_early_are_shown_with_their_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wakeq_server.core.dedup.KEYS_MAX", 2)
    async with a_server() as server:
        for topic, keys in (("many", 7), ("few", 2)):
            await server.engine.create_topic(topic, TopicConfig())
            for key in range(keys):
                await server.engine.publish(topic, [X], key=str(key))
        samples = await server.scrape()
        assert samples["wakeq_forgotten_keys_total"] == samples['wakeq_topic_forgotten_keys{topic="many"}'] == 4
        assert 'wakeq_topic_forgotten_keys{topic="few"}' not in samples
        await server.engine.delete_topic("many")
        samples = await server.scrape()
        assert samples["wakeq_forgotten_keys_total"] == 4
        assert 'wakeq_topic_forgotten_keys{topic="many"}' not in samples


async def test_memory_is_shown_against_its_budget_and_an_unknown_age_not_at_all() -> None:
    store = KeepingStore()
    async with a_server(store, memory_budget=2_000) as server:
        await server.engine.create_topic("t", TopicConfig())
        await server.engine.create_topic("empty", TopicConfig())
        await server.engine.publish("t", [X] * 50)
        samples = await server.scrape()
        assert (samples["wakeq_memory_bytes"], samples["wakeq_memory_budget_bytes"]) == (2_000, 2_000)
        assert 'wakeq_topic_oldest_age_seconds{group="default",topic="t"}' in samples
    async with a_server(store) as server:
        samples = await server.scrape()
        assert samples["wakeq_memory_bytes"] == 0
        assert 'wakeq_topic_oldest_age_seconds{group="default",topic="t"}' not in samples
        assert samples['wakeq_topic_oldest_age_seconds{group="default",topic="empty"}'] == 0


async def test_others_run_while_many_topics_are_gone_through() -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        turns += 1

    async with open_engine(KeepingStore(), Clocks(lambda: 0.0, lambda: 0.0, turn=turn)) as engine:
        for number in range(1_200):
            transaction = engine.core.create(str(number), TopicConfig(), 0.0)
            transaction.commit(0.0)
        overview = await engine.overview(5)
    assert (overview.topics, len(overview.busiest), turns) == (1_200, 5, 3)
