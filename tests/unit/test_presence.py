"""Who is present, for how long, and what watchers are told, by a clock that stands still until a test moves it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from tests.support.clock import jump_clock, standing_trio
from tests.support.stores import KeepingStore
from wakeq_server.core.model import Consumer, ConsumerInfo, NewMessage, TopicConfig
from wakeq_server.engine import presence
from wakeq_server.engine.clocks import Clocks
from wakeq_server.engine.dealing import EmbeddedSubscription
from wakeq_server.engine.embedded import EmbeddedEngine, open_engine
from wakeq_server.engine.presence import POLL_GRACE_S, Watch
from wakeq_server.errors import (
    BacklogOverflow,
    ConsumerGone,
    Draining,
    GroupNotFound,
    QueueError,
    StorageFailed,
    TopicNotFound,
)
from wakeq_server.store.memory import MemoryStore

pytestmark = pytest.mark.anyio

NEVER = float("inf")
A, B = Consumer("a", "10.0.0.1"), Consumer("b", "10.0.0.2")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return standing_trio()


async def jump(seconds: float) -> None:
    """Let everything happen that can happen now, then so much later."""
    await wait_all_tasks_blocked()
    jump_clock(seconds)
    await wait_all_tasks_blocked()


class Server:
    """An engine, and requests to it that stay open until they are told to end."""

    def __init__(self, engine: EmbeddedEngine, tasks: anyio.abc.TaskGroup) -> None:
        self.engine = engine
        self.tasks = tasks

    async def poll(self, consumer: Consumer | None = A, topic: str = "t", group: str = "default") -> anyio.CancelScope:
        """A parked poll; cancelling the scope is its client's hanging up."""
        subscription = await self.engine.subscribe(topic, group=group, consumer=consumer)
        scope = anyio.CancelScope()

        async def run() -> None:
            with scope:
                try:
                    await subscription.take(1, 1e6)
                except QueueError:
                    return

        self.tasks.start_soon(run)
        await wait_all_tasks_blocked()
        return scope

    async def stream(self, consumer: Consumer = A, grace_s: float = 5.0, prefetch: int = 32) -> anyio.CancelScope:
        """An open leased stream; cancelling the scope closes it."""
        subscription = await self.engine.subscribe("t", prefetch=prefetch, consumer=consumer, stream=True)
        scope = anyio.CancelScope()

        async def run() -> None:
            try:
                with scope:
                    while await subscription.take(prefetch, NEVER):
                        pass
            except QueueError:
                pass
            finally:
                subscription.close(grace_s)

        self.tasks.start_soon(run)
        await wait_all_tasks_blocked()
        return scope

    async def publish(self, count: int = 1, topic: str = "t") -> None:
        await self.engine.publish(topic, [NewMessage(b"x")] * count)
        await wait_all_tasks_blocked()

    async def present(self, topic: str = "t", group: str | None = None) -> list[tuple[str, int, int]]:
        """Id, parked, streams."""
        return [(one.id, one.parked, one.streams) for one in await self.engine.consumers(topic, group)]

    async def watch(self, *topics: str) -> Watch:
        return await self.engine.watch(frozenset(topics) or None)


@asynccontextmanager
async def a_server(store: MemoryStore | KeepingStore | None = None) -> AsyncIterator[Server]:
    clocks = Clocks(lambda: 1000.0 + anyio.current_time(), lambda: 0.0)
    async with open_engine(store or MemoryStore(1), clocks) as engine, anyio.create_task_group() as tasks:
        await engine.create_topic("t", TopicConfig(lease_s=1000.0))
        yield Server(engine, tasks)
        tasks.cancel_scope.cancel()


async def told(watch: Watch) -> list[tuple[str, ...]]:
    """What has been told and not taken: kind, topic, group, consumer."""
    events = []
    while watch._backlog:
        events += await watch.take(100, anyio.sleep_forever)
    assert [event.number for event in events] == sorted({event.number for event in events})
    return [(event.kind, event.topic, *filter(None, (event.group, event.consumer))) for event in events]


def came(consumer: str, topic: str = "t", group: str = "default") -> tuple[str, ...]:
    return ("consumer.parked", topic, group, consumer)


def went(consumer: str, topic: str = "t", group: str = "default") -> tuple[str, ...]:
    return ("consumer.gone", topic, group, consumer)


def nothing_is_kept(server: Server) -> bool:
    presences = server.engine._presences
    return not presences._present and not presences._ends


# Coming and going


async def test_a_parked_poll_is_present_until_its_grace_is_over() -> None:
    async with a_server() as server:
        watch = await server.watch()
        start = anyio.current_time()
        poll = await server.poll()
        assert await server.engine.consumers("t", None) == [
            ConsumerInfo("a", "10.0.0.1", "default", 1000.0 + start, 1, 0, 0)
        ]
        poll.cancel()
        await jump(POLL_GRACE_S - 0.1)
        assert await server.present() == [("a", 0, 0)]
        assert await told(watch) == [came("a")]
        await jump(0.1)
        assert await server.present() == []
        assert await told(watch) == [went("a")]
        assert nothing_is_kept(server)


async def test_events_say_who_where_and_when() -> None:
    async with a_server() as server:
        watch = await server.watch()
        start = anyio.current_time()
        (await server.poll()).cancel()
        await jump(POLL_GRACE_S)
        first, last = await watch.take(100, anyio.sleep_forever)
        assert first[1:] == ("consumer.parked", "t", "default", "a", "10.0.0.1", 1000.0 + start)
        assert last[1:] == ("consumer.gone", "t", "default", "a", "10.0.0.1", 1000.0 + start + POLL_GRACE_S)


async def test_who_asks_again_within_the_grace_was_never_gone() -> None:
    async with a_server() as server:
        watch = await server.watch()
        start = anyio.current_time()
        for _ in range(5):
            (await server.poll()).cancel()
            await jump(POLL_GRACE_S - 0.1)
        poll = await server.poll()
        await jump(1000)
        assert await told(watch) == [came("a")]
        (one,) = await server.engine.consumers("t", None)
        assert (one.since, one.parked) == (1000.0 + start, 1)
        poll.cancel()
        await jump(POLL_GRACE_S)
        assert await told(watch) == [went("a")]


async def test_a_poll_that_is_answered_is_in_its_grace() -> None:
    async with a_server() as server:
        await server.poll()
        await server.publish()
        assert await server.present() == [("a", 0, 0)]
        await jump(POLL_GRACE_S)
        assert await server.present() == []


async def test_a_poll_that_is_answered_at_once_makes_nobody_present() -> None:
    async with a_server() as server:
        watch = await server.watch()
        await server.publish(2)
        subscription = await server.engine.subscribe("t", consumer=A)
        assert len(await subscription.take(1, 10.0)) == 1
        assert await subscription.take(0, 0.0) == []
        assert (await server.present(), await told(watch), nothing_is_kept(server)) == ([], [], True)


async def test_but_it_is_a_sign_of_life_of_who_is_in_its_grace() -> None:
    async with a_server() as server:
        watch = await server.watch()
        (await server.poll()).cancel()
        await jump(POLL_GRACE_S - 0.1)
        await server.publish()
        assert len(await (await server.engine.subscribe("t", consumer=A)).take(1, 10.0)) == 1
        await jump(POLL_GRACE_S - 0.1)
        assert await told(watch) == [came("a")]
        await jump(0.1)
        assert await told(watch) == [went("a")]


async def test_one_consumer_may_have_several_requests_open() -> None:
    async with a_server() as server:
        watch = await server.watch()
        polls = [await server.poll() for _ in range(3)]
        stream = await server.stream()
        assert await server.present() == [("a", 3, 1)]
        for poll in polls:
            poll.cancel()
        await jump(100)
        assert await server.present() == [("a", 0, 1)]
        stream.cancel()
        await jump(4.9)
        assert await told(watch) == [came("a")]
        await jump(0.1)
        assert await told(watch) == [went("a")]


@pytest.mark.parametrize("grace_s", [0.0, 0.5, 60.0])
async def test_a_stream_has_the_grace_it_asked_for(grace_s: float) -> None:
    async with a_server() as server:
        watch = await server.watch()
        stream = await server.stream(grace_s=grace_s)
        stream.cancel()
        await wait_all_tasks_blocked()
        if grace_s:
            await jump(grace_s - 0.1)
            assert await told(watch) == [came("a")]
            await jump(0.1)
            assert await told(watch) == [went("a")]
        else:
            assert await told(watch) == [came("a"), went("a")]
        assert nothing_is_kept(server)


async def test_of_several_graces_the_longest_counts() -> None:
    async with a_server() as server:
        watch = await server.watch()
        (await server.stream(grace_s=60)).cancel()
        (await server.stream(grace_s=0)).cancel()
        (await server.poll()).cancel()
        await jump(59.9)
        assert await told(watch) == [came("a")]
        await jump(0.1)
        assert await told(watch) == [went("a")]


async def test_a_stream_is_present_whether_it_waits_or_not() -> None:
    async with a_server() as server:
        await server.publish(5)
        stream = await server.stream(prefetch=2)
        (one,) = await server.engine.consumers("t", "default")
        assert (one.parked, one.streams, one.in_flight) == (0, 1, 2)
        assert (await server.engine.describe_topic("t")).groups[0].parked == 0
        stream.cancel()
        await wait_all_tasks_blocked()
        (one,) = await server.engine.consumers("t", "default")
        assert (one.parked, one.streams, one.in_flight) == (0, 0, 0)


async def test_groups_and_topics_are_apart() -> None:
    async with a_server() as server:
        await server.engine.put_group("t", "g")
        await server.engine.create_topic("other", TopicConfig())
        watch, all_topics = await server.watch("t"), await server.watch()
        polls = [await server.poll(), await server.poll(group="g"), await server.poll(topic="other")]
        assert [(one.id, one.group) for one in await server.engine.consumers("t", None)] == [
            ("a", "default"),
            ("a", "g"),
        ]
        assert await server.present(group="g") == [("a", 1, 0)]
        for poll in polls[1:]:
            poll.cancel()
        await jump(POLL_GRACE_S)
        assert await server.present() == [("a", 1, 0)]
        assert await told(watch) == [came("a"), came("a", group="g"), went("a", group="g")]
        assert len(await told(all_topics)) == 5
        with pytest.raises(GroupNotFound):
            await server.engine.consumers("t", "nobody")
        with pytest.raises(TopicNotFound):
            await server.engine.consumers("nobody", None)


async def test_they_are_listed_by_when_they_came_then_by_id() -> None:
    async with a_server() as server:
        await server.poll(Consumer("later", "x"))
        await jump(1)
        for name in ("c", "a", "b"):
            await server.poll(Consumer(name, "x"))
        assert [name for name, _, _ in await server.present()] == ["later", "a", "b", "c"]


async def test_the_address_is_where_it_asked_from_last() -> None:
    async with a_server() as server:
        await server.poll()
        await server.poll(Consumer("a", "10.9.9.9"))
        (one,) = await server.engine.consumers("t", None)
        assert (one.address, one.parked) == ("10.9.9.9", 2)


async def test_who_is_not_named_is_not_present() -> None:
    async with a_server() as server:
        await server.poll(None)
        assert await server.present() == []
        assert (await server.engine.describe_topic("t")).groups[0].parked == 1


# Topics and groups


async def test_topics_are_told_when_they_come_and_go() -> None:
    async with a_server() as server:
        watch = await server.watch()
        assert await server.engine.create_topic("new", TopicConfig())
        assert not await server.engine.create_topic("new", TopicConfig())
        await server.engine.put_topic("new", TopicConfig(lease_s=5.0))
        await server.engine.pause_topic("new", True)
        await server.engine.delete_topic("new")
        assert await told(watch) == [("topic.created", "new"), ("topic.deleted", "new")]


async def test_a_topic_is_told_when_it_is_durable_and_not_if_it_fails() -> None:
    store = KeepingStore()
    async with a_server(store) as server:
        watch = await server.watch()
        store.before_commit = lambda: StorageFailed("no disk")
        with pytest.raises(StorageFailed):
            await server.engine.create_topic("new", TopicConfig())
        with pytest.raises(StorageFailed):
            await server.engine.delete_topic("t")
        assert await told(watch) == []
        store.before_commit = lambda: None
        await server.engine.create_topic("new", TopicConfig())
        assert await told(watch) == [("topic.created", "new")]


async def delete_topic(server: Server) -> None:
    await server.engine.delete_topic("t")


async def delete_group(server: Server) -> None:
    await server.engine.delete_group("t", "default")


@pytest.mark.parametrize("delete", [delete_topic, delete_group])
async def test_with_a_topic_or_a_group_everybody_is_gone_at_once(delete: Callable[[Server], object]) -> None:
    async with a_server() as server:
        await server.poll()
        await server.stream(B)
        (await server.poll(Consumer("in its grace", "x"))).cancel()
        await wait_all_tasks_blocked()
        watch = await server.watch()
        await delete(server)  # type: ignore[misc]
        await wait_all_tasks_blocked()
        events = await told(watch)
        assert sorted(events[:3]) == [went("a"), went("b"), went("in its grace")]
        assert events[3:] == ([("topic.deleted", "t")] if delete is delete_topic else [])
        assert nothing_is_kept(server)
        await jump(1000)
        assert await told(watch) == []


async def test_requests_of_a_deleted_topic_mean_nothing_to_its_successor() -> None:
    async with a_server() as server:
        await server.poll()
        watch = await server.watch()
        await server.engine.delete_topic("t")
        await server.engine.create_topic("t", TopicConfig())
        await server.poll()
        assert await told(watch) == [went("a"), ("topic.deleted", "t"), ("topic.created", "t"), came("a")]
        await jump(1000)
        assert await server.present() == [("a", 1, 0)]


async def test_pushes_are_told_by_whoever_makes_them() -> None:
    async with a_server() as server:
        watch = await server.watch("t")
        url = "http://127.0.0.1:1/"
        server.engine.push_changed("t", "default", "hook", url, up=True)
        server.engine.push_changed("other", "default", "hook", url, up=True)
        server.engine.push_changed("t", "default", "hook", url, up=False)
        assert [event[1:6] for event in await watch.take(100, anyio.sleep_forever)] == [
            ("push.up", "t", "default", "hook", url),
            ("push.down", "t", "default", "hook", url),
        ]


# Watching


async def test_a_watcher_is_shown_who_is_present() -> None:
    async with a_server() as server:
        start = anyio.current_time()
        await server.poll()
        (await server.stream(B)).cancel()
        await jump(1)
        await server.engine.create_topic("other", TopicConfig())
        await server.poll(topic="other")
        watch = await server.watch("t", "unknown")
        shown = list(watch.snapshot())
        assert [event[1:] for event in shown] == [
            ("consumer.parked", "t", "default", "a", "10.0.0.1", 1000.0 + start),
            ("consumer.parked", "t", "default", "b", "10.0.0.2", 1000.0 + start),
        ]
        assert list(watch.snapshot()) == []
        await jump(10)
        (gone,) = await watch.take(100, anyio.sleep_forever)
        assert (gone.kind, gone.consumer) == ("consumer.gone", "b")
        assert shown[0].number < shown[1].number < gone.number


async def test_a_watcher_wakes_for_what_it_watches_alone() -> None:
    async with a_server() as server:
        await server.engine.create_topic("other", TopicConfig())
        watch = await server.watch("t")
        got: list[str | None] = []

        async def take() -> None:
            got.extend(event.consumer for event in await watch.take(100, anyio.sleep_forever))

        server.tasks.start_soon(take)
        await server.poll(topic="other")
        assert got == []
        await server.poll(B)
        assert got == ["b"]


async def test_a_watcher_takes_no_more_than_it_asks_for() -> None:
    async with a_server() as server:
        watch = await server.watch()
        for name in "abc":
            await server.poll(Consumer(name, "x"))
        assert [event.consumer for event in await watch.take(2, anyio.sleep_forever)] == ["a", "b"]
        assert [event.consumer for event in await watch.take(2, anyio.sleep_forever)] == ["c"]


async def test_a_watcher_that_hangs_up_is_told_so() -> None:
    async with a_server() as server:
        watch = await server.watch()
        with pytest.raises(ConsumerGone):
            await watch.take(1, anyio.lowlevel.checkpoint)


async def test_a_backlog_that_is_full_is_dropped_and_ends_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "BACKLOG_MAX", 3)
    async with a_server() as server:
        slow, narrow = await server.watch(), await server.watch("unknown")
        for number in range(3):
            await server.engine.create_topic(f"n{number}", TopicConfig())
        assert len(await told(slow)) == 3
        for number in range(3, 10):
            await server.engine.create_topic(f"n{number}", TopicConfig())
        assert not slow._backlog
        with pytest.raises(BacklogOverflow):
            await slow.take(1, anyio.sleep_forever)
        assert await told(narrow) == []


async def test_a_closed_watch_is_told_nothing() -> None:
    async with a_server() as server:
        watch = await server.watch()
        watch.close()
        watch.close()
        await server.poll()
        assert await told(watch) == []
        assert not server.engine._presences._watches


async def test_a_drain_ends_watches_and_refuses_new_ones() -> None:
    async with a_server() as server:
        watches = [await server.watch(), await server.watch()]
        ended: list[str] = []

        async def take(watch: Watch) -> None:
            try:
                await watch.take(1, anyio.sleep_forever)
            except Draining:
                ended.append("draining")

        server.tasks.start_soon(take, watches[0])
        await wait_all_tasks_blocked()
        server.engine.drain()
        await wait_all_tasks_blocked()
        assert ended == ["draining"]
        await take(watches[1])
        assert ended == ["draining"] * 2
        with pytest.raises(Draining):
            await server.watch()


async def test_a_drain_leaves_a_streams_leases_as_they_are() -> None:
    async with a_server() as server:
        await server.publish()
        await server.stream(grace_s=5.0)
        server.engine.drain()
        await jump(900)
        assert (await server.engine.describe_topic("t")).groups[0].leased == 1
        await jump(100)
        assert (await server.engine.describe_topic("t")).groups[0].leased == 0


# What it costs


async def test_no_timer_runs_unless_somebody_is_in_its_grace() -> None:
    async with a_server() as server:
        engine = server.engine
        await wait_all_tasks_blocked()
        assert engine._ticks_at == NEVER
        await server.watch()
        poll, _ = await server.poll(), await server.stream(B)
        assert engine._ticks_at == NEVER
        poll.cancel()
        await wait_all_tasks_blocked()
        assert engine._ticks_at == anyio.current_time() + POLL_GRACE_S
        await server.poll()
        await jump(POLL_GRACE_S)
        assert engine._ticks_at == NEVER


async def test_there_is_one_end_of_grace_a_consumer_however_often_it_asks() -> None:
    async with a_server() as server:
        for _ in range(50):
            (await server.poll()).cancel()
            (await server.stream(grace_s=600)).cancel()
            await jump(0.01)
        assert len(server.engine._presences._ends) == 1
        await jump(600)
        assert nothing_is_kept(server)


async def test_random_ids_leave_nothing_behind() -> None:
    async with a_server() as server:
        for number in range(200):
            (await server.poll(Consumer(f"random {number}", "x"))).cancel()
        await wait_all_tasks_blocked()
        assert len(await server.present()) == 200
        await jump(POLL_GRACE_S)
        assert (await server.present(), nothing_is_kept(server)) == ([], True)


async def test_thousands_of_one_address_are_one_presence() -> None:
    async with a_server() as server:
        watch = await server.watch()

        async def park(subscription: EmbeddedSubscription) -> None:
            await subscription.take(1, 1000.0)

        for _ in range(3000):
            server.tasks.start_soon(park, await server.engine.subscribe("t", consumer=A))
        await wait_all_tasks_blocked()
        assert await server.present() == [("a", 3000, 0)]
        await jump(1000)
        assert await server.present() == [("a", 0, 0)]
        assert len(server.engine._presences._ends) == 1
        await jump(POLL_GRACE_S)
        assert await told(watch) == [came("a"), went("a")]
