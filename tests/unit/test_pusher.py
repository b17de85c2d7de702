"""Serving pushes, with a target that answers when the test says so, on a clock that the test moves."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio
from anyio import wait_all_tasks_blocked
from structlog.testing import capture_logs

from tests.support.clock import jump_clock, standing_trio
from tests.support.stores import KeepingStore
from wakeq_server.core.model import DEFAULT_GROUP, Delivery, Message, NewMessage, Push, PushConfig, TopicConfig
from wakeq_server.core.topic import Group
from wakeq_server.engine.base import Watch
from wakeq_server.engine.clocks import Clocks
from wakeq_server.engine.embedded import EmbeddedEngine, open_engine
from wakeq_server.errors import Draining, PushNotFound, StorageError, StorageFull
from wakeq_server.push.posting import Answered, Failed, Outcome, Unreachable
from wakeq_server.push.pusher import Pusher
from wakeq_server.settings import PUSH_RETRY_MAX_S
from wakeq_server.store.base import Store
from wakeq_server.store.memory import MemoryStore

pytestmark = pytest.mark.anyio

REFUSED = Unreachable("connection refused")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return standing_trio()


async def stay() -> None:
    """A publish lets nobody run in between."""


class Request:
    def __init__(self, push: Push, delivery: Delivery) -> None:
        self.push = push
        self.delivery = delivery
        self.answered = anyio.Event()
        self.outcome: Outcome = Answered(200)

    async def answer(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.answered.set()
        await wait_all_tasks_blocked()


class Target:
    """A poster whose requests wait for the test, but where ``always`` says what each is answered."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.always: Outcome | None = None

    async def post(self, push: Push, delivery: Delivery) -> Outcome:
        request = Request(push, delivery)
        self.requests.append(request)
        # trio starts tasks in any order; leases are numbered as they were dealt.
        self.requests.sort(key=lambda one: one.delivery.lease.number)
        if self.always is not None:
            return self.always
        await request.answered.wait()
        return request.outcome

    @property
    def seqs(self) -> list[int]:
        return [request.delivery.message.seq for request in self.requests]

    async def answer(self, outcome: Outcome) -> None:
        """What has been asked last."""
        await self.requests[-1].answer(outcome)


class Consumer:
    """Parked until it gets one message, which it keeps."""

    def __init__(self, engine: EmbeddedEngine) -> None:
        self.engine = engine
        self.got: list[Delivery] = []

    async def run(self) -> None:
        self.got = await (await self.engine.subscribe("t", lease_s=1000.0)).take(1, 500.0)

    @property
    def seqs(self) -> list[int]:
        return [delivery.message.seq for delivery in self.got]


class World:
    """An engine, its pusher, and the target of every push."""

    def __init__(self, engine: EmbeddedEngine, tasks: anyio.abc.TaskGroup) -> None:
        self.engine = engine
        self.tasks = tasks
        self.target = Target()
        self.told: list[str] = []
        # All of what full jitter could take off is left.
        self.pusher = Pusher(engine, self.target, tasks, trio.current_time, jitter=lambda: 1.0)
        tasks.start_soon(self.watch, engine._presences.watch(None))
        engine.deliver_pushes(self.pusher)

    async def watch(self, watch: Watch) -> None:
        with suppress(Draining):
            while True:
                for event in await watch.take(100, anyio.sleep_forever):
                    self.told += [event.kind.removeprefix("push.")] if event.kind.startswith("push.") else []

    @property
    def group(self) -> Group:
        return self.engine.core.topic("t").groups[DEFAULT_GROUP]

    async def put(self, in_flight: int = 1, url: str = "http://a", group: str = DEFAULT_GROUP) -> None:
        await self.engine.put_push("t", "p", PushConfig(url, group, in_flight, 7.0))
        await wait_all_tasks_blocked()

    async def publish(self, count: int = 1, key: str | None = None) -> None:
        await self.engine.publish("t", [NewMessage(b"x", key=key)] * count)
        await wait_all_tasks_blocked()

    async def park(self) -> Consumer:
        consumer = Consumer(self.engine)
        self.tasks.start_soon(consumer.run)
        await wait_all_tasks_blocked()
        return consumer

    async def state(self) -> tuple[str, int, int, int, str | None]:
        _, standing = await self.engine.describe_push("t", "p")
        state = "up" if standing.suspended_until is None else f"until {standing.suspended_until:g}"
        return state, standing.in_flight, standing.delivered, standing.failed, standing.last_error

    async def written(self) -> None:
        """The store's thread is no task that could be waited for."""
        await self.engine._commits.written()
        await wait_all_tasks_blocked()

    def attempts(self) -> dict[int, int]:
        return self.group.attempts


async def jump(seconds: float) -> None:
    jump_clock(seconds)
    await wait_all_tasks_blocked()


@asynccontextmanager
async def a_world(config: TopicConfig | None = None, store: Store | None = None) -> AsyncIterator[World]:
    clocks = Clocks(lambda: 1_000_000.0, lambda: 0.0, turn=stay)
    async with open_engine(store or MemoryStore(1), clocks, lambda: 1.0) as engine:
        await engine.create_topic("t", config or TopicConfig())
        async with anyio.create_task_group() as tasks:
            yield World(engine, tasks)
            tasks.cancel_scope.cancel()


async def test_an_answer_of_200_to_299_acks_and_the_next_is_posted() -> None:
    async with a_world() as world:
        await world.put()
        await world.publish(3)
        assert world.target.seqs == [1]
        await world.target.answer(Answered(200))
        await world.target.answer(Answered(204))
        assert world.target.seqs == [1, 2, 3]
        assert await world.state() == ("up", 1, 2, 0, None)
        await world.target.answer(Answered(299))
        assert world.group.topic.held_messages == 0
        stats = world.engine.stats
        assert (stats.pushes_delivered, stats.pushes_failed, stats.pushes_suspended) == (3, 0, 0)


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (Answered(500), "HTTP 500"),
        (Answered(404), "HTTP 404"),
        (Answered(308), "HTTP 308, and redirects are not followed"),
        (Failed("no answer within 7 s"), "no answer within 7 s"),
    ],
)
async def test_any_other_answer_is_an_attempt_and_backs_off(outcome: Outcome, reason: str) -> None:
    async with a_world(TopicConfig(max_deliveries=2, retry_min_s=10.0)) as world:
        await world.put()
        await world.publish()
        await world.target.answer(outcome)
        assert await world.state() == ("up", 0, 0, 1, reason)
        assert (len(world.group.delays), world.target.seqs) == (1, [1])
        await jump(9.9)
        assert world.target.seqs == [1]
        await jump(0.1)
        assert [request.delivery.attempt for request in world.target.requests] == [1, 2]
        await world.target.answer(outcome)
        assert world.group.dead[1].reason == reason
        assert world.engine.stats.pushes_failed == 2
        assert world.told == ["up"]


@pytest.mark.parametrize("in_flight", [1, 3])
async def test_no_more_than_so_many_are_in_flight(in_flight: int) -> None:
    async with a_world() as world:
        await world.put(in_flight)
        await world.publish(5)
        assert world.target.seqs == list(range(1, in_flight + 1))
        await world.target.requests[0].answer(Answered(200))
        assert world.target.seqs == list(range(1, in_flight + 2))
        assert (await world.state())[1] == in_flight


async def test_a_push_with_room_parks_again_while_it_posts() -> None:
    async with a_world() as world:
        await world.put(2)
        await world.publish()
        consumer = await world.park()
        await world.publish()
        assert (world.target.seqs, consumer.seqs) == ([1, 2], [])


async def test_a_push_is_dealt_all_it_has_room_for_before_who_has_been_parked_longer() -> None:
    async with a_world() as world:
        consumer = await world.park()
        await world.put(2)
        await world.publish(3)
        assert (world.target.seqs, consumer.seqs) == ([1, 2], [3])


async def test_two_pushes_of_one_group_are_dealt_to_in_turn() -> None:
    async with a_world() as world:
        for name in ("p", "q"):
            await world.engine.put_push("t", name, PushConfig("http://a", max_in_flight=5))
            await wait_all_tasks_blocked()
        await world.publish(4)
        assert sorted(request.push.name for request in world.target.requests) == ["p", "p", "q", "q"]


async def test_the_next_message_of_a_key_does_not_wait_for_another_commit() -> None:
    store, writing = KeepingStore(), threading.Event()
    async with a_world(store=store) as world:
        await world.put()
        await world.publish(2, key="k")
        store.before_commit = lambda: writing.set()
        await world.target.answer(Answered(200))
        # The clock stands still: whoever waits for a commit to ride along with would wait for ever.
        assert await anyio.to_thread.run_sync(writing.wait, 5.0)
        await world.written()
        assert world.target.seqs == [1, 2]


# A target that can't be reached


async def test_what_was_not_received_goes_to_who_is_parked_and_is_no_attempt() -> None:
    async with a_world() as world:
        await world.put()
        await world.publish()
        consumer = await world.park()
        await world.target.answer(REFUSED)
        assert [(delivery.message.seq, delivery.attempt) for delivery in consumer.got] == [(1, 1)]
        assert await world.state() == ("until 1", 0, 0, 0, "connection refused")


async def test_while_suspended_others_are_served_then_one_message_is_tried() -> None:
    async with a_world() as world:
        await world.put(3)
        await world.publish()
        await world.target.answer(REFUSED)
        consumer = await world.park()
        assert consumer.seqs == [1]
        await world.publish(3)
        assert world.target.seqs == [1]
        await jump(1.0)
        assert world.target.seqs == [1, 2], "more than one was risked"
        await world.target.answer(Answered(200))
        assert world.target.seqs == [1, 2, 3, 4]
        assert (await world.state())[0] == "up"


async def test_a_push_that_is_tried_again_stands_in_line_like_anybody() -> None:
    async with a_world() as world:
        await world.put()
        await world.publish()
        await world.target.answer(REFUSED)
        first = await world.park()
        second = await world.park()
        await jump(1.0)
        third = await world.park()
        await world.publish(2)
        assert ([first.seqs, second.seqs], world.target.seqs, third.seqs) == ([[1], [2]], [1, 3], [])


async def test_each_further_failure_doubles_the_wait_up_to_its_bound_and_is_told_once() -> None:
    async with a_world() as world:
        with capture_logs() as log:
            world.target.always = REFUSED
            await world.put()
            await world.publish()
            waits = []
            for tries in range(2, 11):
                before = trio.current_time()
                (_, standing) = await world.engine.describe_push("t", "p")
                assert standing.suspended_until is not None
                await jump(standing.suspended_until - before)
                waits.append(trio.current_time() - before)
                assert len(world.target.requests) == tries
            world.target.always = Answered(200)
            await jump(PUSH_RETRY_MAX_S)
        assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
        assert {request.delivery.attempt for request in world.target.requests} == {1}
        assert world.told == ["up", "down", "up"]
        events = [(line["event"], line["log_level"]) for line in log]
        assert events == [("push suspended", "warning"), ("push up", "info")]
        assert await world.state() == ("up", 0, 1, 0, "connection refused")
        assert world.engine.stats.pushes_suspended == 0


async def test_requests_that_fail_together_count_once() -> None:
    async with a_world() as world:
        await world.put(3)
        await world.publish(3)
        for request in list(world.target.requests):
            await request.answer(REFUSED)
        assert (await world.state())[0] == "until 1"
        assert (world.engine.stats.pushes_suspended, world.told) == (1, ["up", "down"])
        assert world.group.ready == 3


async def test_an_answer_to_an_earlier_request_brings_nothing_up() -> None:
    async with a_world() as world:
        await world.put(2)
        await world.publish(2)
        await world.target.requests[1].answer(REFUSED)
        await world.target.requests[0].answer(Answered(200))
        assert (await world.state())[:3] == ("until 1", 0, 1)


async def test_a_failed_answer_brings_a_push_up() -> None:
    async with a_world() as world:
        await world.put()
        await world.publish()
        await world.target.answer(REFUSED)
        await jump(1.0)
        await world.target.answer(Answered(500))
        assert (await world.state())[0] == "up"


# Gone, replaced, deleted


async def test_410_removes_the_push_and_counts_no_attempt() -> None:
    async with a_world(store=KeepingStore()) as world:
        await world.put()
        await world.publish()
        with capture_logs() as log:
            await world.target.answer(Answered(410))
            await world.written()
        assert [line["event"] for line in log] == ["push removed"]
        with pytest.raises(PushNotFound):
            await world.engine.describe_push("t", "p")
        assert (len(world.target.requests), world.group.ready, world.attempts()) == (1, 1, {})
        assert world.told == ["up", "down"]
        assert world.engine.stats.pushes_suspended == 0


async def test_410_whose_record_is_refused_is_asked_again_later() -> None:
    store = KeepingStore()
    async with a_world(store=store) as world:
        await world.put()
        await world.publish()
        store.before_commit = lambda: StorageFull("full")
        await world.target.answer(Answered(410))
        await world.written()
        assert (len(world.target.requests), (await world.state())[4]) == (1, "full")
        store.before_commit = lambda: None
        await jump(1.0)
        await world.target.answer(Answered(410))
        await world.written()
        with pytest.raises(PushNotFound):
            await world.engine.describe_push("t", "p")


async def test_410_of_a_target_that_was_replaced_removes_nothing() -> None:
    async with a_world() as world:
        await world.put()
        await world.publish()
        await world.put(url="http://b")
        await world.target.answer(Answered(410))
        assert [request.push.config.url for request in world.target.requests] == ["http://a", "http://b"]
        assert world.target.requests[1].delivery.attempt == 1


async def test_a_new_target_is_used_at_once_and_forgives_the_old_one() -> None:
    async with a_world() as world:
        await world.put()
        await world.publish()
        await world.target.answer(REFUSED)
        await world.put(url="http://b")
        assert [request.push.config.url for request in world.target.requests] == ["http://a", "http://b"]
        assert (await world.state())[0] == "up"
        assert world.engine.stats.pushes_suspended == 0


async def test_a_replaced_push_has_no_more_in_flight_than_before() -> None:
    async with a_world() as world:
        await world.put(2)
        await world.publish(4)
        old = list(world.target.requests)
        await world.put(2, url="http://b")
        assert world.target.seqs == [1, 2]
        await old[0].answer(REFUSED)
        assert (await world.state())[0] == "up", "a failure of the old target was taken for one of the new"
        assert [request.push.config.url for request in world.target.requests[2:]] == ["http://b"]
        assert world.target.seqs == [1, 2, 1]


@pytest.mark.parametrize("what", ["push", "group", "topic"])
async def test_a_deleted_push_takes_no_more_and_finishes_what_it_has(what: str) -> None:
    async with a_world() as world:
        await world.engine.put_group("t", "g")
        await world.put(2, group="g")
        await world.publish()
        group = world.engine.core.topic("t").groups["g"]
        with capture_logs() as log:
            if what == "push":
                await world.engine.delete_push("t", "p")
            elif what == "group":
                await world.engine.delete_group("t", "g")
            else:
                await world.engine.delete_topic("t")
            await wait_all_tasks_blocked()
            assert world.engine.parked() == 0
            await world.target.answer(Answered(200))
        assert log == []
        assert world.told == ["up", "down"]
        if what == "push":
            assert (group.leased, group.ready) == (0, 0)


async def test_a_deleted_push_that_fails_at_last_says_nothing() -> None:
    async with a_world() as world:
        await world.put()
        await world.publish()
        await world.engine.delete_push("t", "p")
        with capture_logs() as log:
            await world.target.answer(REFUSED)
        assert (log, world.told, world.engine.stats.pushes_suspended) == ([], ["up", "down"], 0)
        assert (world.group.ready, world.attempts()) == (1, {})


async def test_a_push_made_anew_is_another() -> None:
    async with a_world() as world:
        await world.put()
        await world.publish()
        await world.target.answer(Answered(200))
        await world.engine.delete_push("t", "p")
        await world.put()
        assert await world.state() == ("up", 0, 0, 0, None)
        await world.publish()
        assert world.target.seqs == [1, 2]


# Waiting, draining, stopping


async def test_waiting_pushes_keep_no_timer() -> None:
    async with a_world() as world:
        await world.put(5)
        await world.publish()
        await world.target.answer(Answered(200))
        # The lease that is over by now has left its place among the deadlines, which is looked at once.
        await jump(60.0)
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf")
        assert world.engine.parked() == 1


async def test_a_suspended_push_waits_without_a_timer_once_it_may_be_tried() -> None:
    async with a_world() as world:
        await world.put()
        await world.publish()
        consumer = await world.park()
        await world.target.answer(REFUSED)
        assert consumer.seqs == [1]
        await jump(100.0)
        assert world.engine.parked() == 1
        deadline = trio.lowlevel.current_statistics().seconds_to_next_deadline
        assert deadline == pytest.approx(900.0), "something else than the consumer's lease"


async def test_a_paused_topic_is_not_pushed() -> None:
    async with a_world() as world:
        await world.put()
        await world.engine.pause_topic("t", True)
        await world.publish()
        assert world.target.seqs == []
        await world.engine.pause_topic("t", False)
        await wait_all_tasks_blocked()
        assert world.target.seqs == [1]


@pytest.mark.parametrize("outcome", [Answered(200), Answered(500), Answered(410), REFUSED])
async def test_a_drain_hands_out_no_more_and_waits_for_answers(outcome: Outcome) -> None:
    async with a_world() as world:
        await world.put(2)
        await world.publish()
        ended = anyio.Event()

        async def wait() -> None:
            await world.engine.leases_ended()
            ended.set()

        world.tasks.start_soon(wait)
        world.engine.drain()
        await world.publish()
        assert (world.target.seqs, ended.is_set(), world.engine.parked()) == ([1], False, 0)
        await world.target.answer(outcome)
        assert ended.is_set()
        await jump(100.0)
        assert world.target.seqs == [1]


@pytest.mark.parametrize("rounds", range(8))
async def test_stopped_at_any_point_nothing_is_lost(rounds: int) -> None:
    async with open_engine(MemoryStore(1), Clocks(lambda: 0.0, lambda: 0.0, turn=stay)) as engine:
        await engine.create_topic("t", TopicConfig())
        async with anyio.create_task_group() as tasks:
            world = World(engine, tasks)
            await world.put(2)
            group = world.group
            await engine.publish("t", [NewMessage(b"x")] * 3)
            for _ in range(rounds):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        assert (group.leased, group.ready, group.attempts) == (0, 3, {})
        assert engine.parked() == 0


async def test_bodies_that_cannot_be_read_suspend_the_push() -> None:
    asked = threading.Event()

    class Unreadable(KeepingStore):
        def read_bodies(self, topic_id: int, first: int, last: int) -> list[Message]:
            asked.set()
            raise StorageFull("the disk is gone")

    clocks = Clocks(lambda: 1_000_000.0, lambda: 0.0, turn=stay)
    async with open_engine(Unreadable(), clocks, memory_budget=0) as engine, anyio.create_task_group() as tasks:
        await engine.create_topic("t", TopicConfig())
        world = World(engine, tasks)
        await world.put()
        await world.publish()
        await anyio.to_thread.run_sync(asked.wait, 10.0)
        while (await world.state())[0] == "up":
            await anyio.lowlevel.checkpoint()
        assert await world.state() == ("until 1", 0, 0, 0, "the disk is gone")
        assert (world.group.ready, world.attempts()) == (1, {})
        tasks.cancel_scope.cancel()


async def test_a_settle_that_is_refused_is_shown_and_leaves_the_message_to_its_lease() -> None:
    store = KeepingStore()
    async with a_world(store=store) as world:
        await world.put()
        await world.publish()

        def refuse() -> StorageError:
            return StorageFull("full")

        store.before_commit = refuse
        await world.target.answer(Answered(500))
        await world.written()
        assert (await world.state())[3:] == (1, "full")
        assert world.group.leased == 1
        store.before_commit = lambda: None
        await jump(7.0 + 20.0)
        assert [request.delivery.attempt for request in world.target.requests] == [1, 2]
