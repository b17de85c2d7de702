"""Every operation, stopped at each of its awaits: cancelled as it goes to sleep or as it goes on, before and after
whatever it waits for, its client gone, its storage failing. Whatever it was, it is wholly there or not at all, nothing
is leased to nobody, and the next in line is served."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from tests.support.cancelling import Client, Stepped, World, a_world, check_consistent
from tests.support.clock import virtual_trio
from tests.support.stores import KeepingStore
from wakeq_server.core.leases import Lease
from wakeq_server.core.lifecycle import State
from wakeq_server.core.model import NewMessage, Settle, TopicConfig
from wakeq_server.core.queue import Effects, QueueCore
from wakeq_server.core.restore import restore
from wakeq_server.errors import StorageError
from wakeq_server.store.base import Store
from wakeq_server.store.memory import MemoryStore
from wakeq_server.store.sqlite import SqliteStore

HOWS = ("before", "after", "awake", "native", "gone", "broken", "storage")
ENDLESS = 200

Prepare = Callable[[World], Awaitable[None]]
Meanwhile = Callable[[World, Client], None]
Check = Callable[[World, Client], Awaitable[None]]


async def nothing(*_: object) -> None:
    pass


def no_event(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Case:
    """An operation: what is there before, what happens beside it, and what must hold after it, wherever it ended."""

    name: str
    client: Callable[[World], Client]
    prepare: Prepare = nothing
    meanwhile: Meanwhile = no_event
    check: Check = nothing
    config: TopicConfig = field(default_factory=TopicConfig)
    cold: bool = False
    operation: Callable[[World, Client], Coroutine[Any, Any, object]] = World.ask

    def __str__(self) -> str:
        return self.name


# What is there before


def published(count: int) -> Prepare:
    async def prepare(world: World) -> None:
        await world.engine.publish("t", [NewMessage(b"{}")] * count)
        world.published += count

    return prepare


async def leased(world: World) -> None:
    """Four messages, leased to whoever will settle them."""
    await published(4)(world)
    answer = await world.call("POST", "/messages/t/claim", {"max": 4})
    world.known = [one["lease_id"] for one in answer["messages"]]


async def dead(world: World) -> None:
    """Two dead letters, one message that is ready, and another group that wants them all."""
    await world.call("PUT", "/topics/t/groups/g")
    await published(3)(world)
    answer = await world.call("POST", "/messages/t/claim", {"max": 2})
    await world.call(
        "POST", "/messages/t/settle", {"dead": [{"lease_id": one["lease_id"]} for one in answer["messages"]]}
    )


async def another_topic(world: World) -> None:
    await world.engine.create_topic("u", TopicConfig())


async def full(world: World) -> None:
    """A topic that takes two messages, and has them."""
    await world.engine.publish("t", [NewMessage(b"{}")] * 2)


# What happens beside it


def publish_now(world: World, count: int = 1) -> None:
    """At this very moment where nothing is stored, else as soon as it is."""
    if world.disk.durable:
        world.start(publish_till_it_is_stored, world, count)
        return
    publish = world.engine.publish("t", [NewMessage(b"{}")] * count)
    world.published += count
    with contextlib.suppress(StopIteration):
        publish.send(None)
    publish.close()


async def publish_till_it_is_stored(world: World, count: int) -> None:
    with contextlib.suppress(StorageError):
        await world.engine.publish("t", [NewMessage(b"{}")] * count)
        world.published += count
        return
    await publish_till_it_is_stored(world, count)


def when_parked(world: World, client: Client) -> None:
    if world.engine.parked() and world.once("publish"):
        publish_now(world)
        world.start(world.compete)


def when_beaten(world: World, client: Client) -> None:
    if client.sends >= 3:
        when_parked(world, client)


def a_rival(world: World, client: Client) -> None:
    if world.group.leased and world.once("rival"):
        world.start(world.compete)


def leave_after(frames: int) -> Meanwhile:
    def meanwhile(world: World, client: Client) -> None:
        a_rival(world, client)
        written = client.text.count(b"event: message")
        if written >= frames or (written and not world.group.ready):
            client.leave()

    return meanwhile


def make_room(world: World, client: Client) -> None:
    if world.engine._holding._held and world.once("second"):
        world.start(two_places, world)


async def two_places(world: World) -> None:
    """Room for two at once, for the one under test and another who waits behind it."""
    world.start(second_held, world)
    for _ in range(5):
        await anyio.lowlevel.checkpoint()
    await world.engine.purge("t", "default")
    world.done.add("room")


async def second_held(world: World) -> None:
    await world.engine.publish("t", [NewMessage(b"{}")], hold_s=1000.0)
    world.done.add("second is in")


# What must hold after it


def held(world: World) -> set[str]:
    return {place.key.encode() for place in world.group.open.values() if isinstance(place, Lease)}


async def check_taken(world: World, client: Client) -> None:
    """Each message is with the client, with its rival, or ready with nobody waiting."""
    rivals = [delivery.lease.encode() for delivery in world.rivals]
    assert held(world) == {*client.leases, *rivals}, "leased to nobody"
    assert not (world.group.ready and world.engine.parked()), "parked beside a ready message"
    assert world.engine.parked() == int(bool({"rival", "publish"} & world.done)), "parked, and gone"
    assert (
        len(world.topic.messages) + (world.topic.cold.count if world.topic.cold else 0)
        == len(held(world)) + world.group.ready
    )


async def check_read(world: World, client: Client) -> None:
    """A plain GET: acked if it was answered whole, and else with its rival, or ready."""
    rivals = {delivery.lease.encode() for delivery in world.rivals}
    assert held(world) == rivals, "leased to nobody"
    assert not (world.group.ready and world.engine.parked())
    acked = world.published - len(rivals) - world.group.ready
    assert acked <= client.text.count(b"{}"), "acked, and never read"


async def check_streamed(world: World, client: Client) -> None:
    """What was written keeps its lease for the grace, and what wasn't is free at once."""
    rivals = {delivery.lease.encode() for delivery in world.rivals}
    # What is sent to one who is gone goes nowhere, but nobody can know: it is free after the grace.
    assert held(world) <= {*client.leases, *rivals} or client.leaves_at is not None, "leased to nobody"
    left_s = [
        place.deadline - anyio.current_time()
        for place in world.group.open.values()
        if isinstance(place, Lease) and place.key.encode() not in rivals
    ]
    assert all(one <= 5.0 for one in left_s)
    assert all(place.owner is None for place in world.group.open.values() if isinstance(place, Lease))
    assert not (world.group.ready and world.engine.parked())


def check_published(count: int, *, key: str = "") -> Check:
    async def check(world: World, client: Client) -> None:
        there = len(world.topic.messages)
        assert there in (0, count), "a publish is there in part"
        assert there == count or client.status != 200
        if key:
            published = await world.engine.publish("t", [NewMessage(b"1", id=key)] * count, key=key)
            assert (published.duplicate, len(world.topic.messages)) == (there == count, count)

    return check


async def check_each(world: World, client: Client) -> None:
    there = len(world.topic.messages)
    if client.answered and client.status == 200:
        results = json.loads(client.text)["results"]
        assert there == sum("seq" in result for result in results)
    assert there in ((0, 1, 2) if world.done & {"storage"} else (0, 2))


async def check_settled(world: World, client: Client) -> None:
    """Each line has come true, or its lease is alive and can still be settled."""
    acked, nacked, extended, killed = world.known
    standing = [world.group.standing(seq) for seq in (1, 2, 3, 4)]
    done = [State.GONE, State.DELAYED, State.LEASED, State.DEAD]
    assert standing in (done, [State.LEASED] * 4), "a settle came true in part"
    assert standing == done or client.status != 200
    if standing != done:
        lines = [Settle("ack", one) for one in (acked, nacked, extended, killed)]
        assert [result.status for result in await world.engine.settle("t", lines)] == ["ok"] * 4
        assert world.engine.core.leased == 0


def check_admin(holds: Callable[[World], bool]) -> Check:
    async def check(world: World, client: Client) -> None:
        assert holds(world) or client.status not in (200, 201, 204)

    return check


async def check_room(world: World, client: Client) -> None:
    if "room" in world.done:
        assert "second is in" in world.done, "room was made for two, and one was told"


async def check_moved(world: World, client: Client) -> None:
    """A dead letter is in one of the two topics, and never in both."""
    target = world.engine.core.topic("d")
    assert len(world.group.dead) + target.held_messages == 1


# The operations


def asks(method: str, path: str, value: object = None, **said: Any) -> Callable[[World], Client]:
    body = b"" if value is None else value if isinstance(value, bytes) else json.dumps(value).encode()
    return lambda _: Client(method, path, body, **said)


def settling(world: World) -> Client:
    ack, nack, extend, kill = world.known
    lines = {
        "ack": [ack],
        "nack": [{"lease_id": nack, "delay_s": 100.0}],
        "extend": [{"lease_id": extend, "lease_s": 900.0}],
        "dead": [{"lease_id": kill}],
    }
    return Client("POST", "/messages/t/settle", json.dumps(lines).encode())


async def dead_to_move(world: World) -> None:
    await world.engine.create_topic("d", TopicConfig())
    await published(1)(world)
    (lease,) = (await world.call("POST", "/messages/t/claim", {}))["messages"]
    await world.call("POST", "/messages/t/settle", {"dead": [{"lease_id": lease["lease_id"]}]})
    await world.engine.put_topic("t", TopicConfig(dead_letter_topic="d"))


async def move(world: World, client: Client) -> None:
    await world.engine._move_dead(world.group, 1)


CLAIM_TWO = asks("POST", "/messages/t/claim", {"max": 2})
CLAIM_PARKED = asks("POST", "/messages/t/claim", {"max": 2, "wait_s": 20.0})
EVENTS = {"accept": "text/event-stream"}
ENVELOPES = "application/vnd.wakeq.envelopes+x-ndjson"
QUEUE_MESSAGE = TopicConfig(schema="queue_message")

CASES = [
    Case("claim", CLAIM_TWO, published(2), a_rival, check_taken),
    Case("claim-cold", CLAIM_TWO, published(2), a_rival, check_taken, cold=True),
    Case("claim-parked", CLAIM_PARKED, meanwhile=when_parked, check=check_taken),
    Case("claim-parked-cold", CLAIM_PARKED, meanwhile=when_parked, check=check_taken, cold=True),
    Case("get", asks("GET", "/messages/t"), published(2), a_rival, check_read),
    Case("get-closed", asks("GET", "/messages/t", kept_alive=False), published(2), a_rival, check_read),
    Case("get-cold", asks("GET", "/messages/t"), published(2), a_rival, check_read, cold=True),
    Case("get-parked", asks("GET", "/messages/t?wait=20"), meanwhile=when_parked, check=check_read),
    Case("get-beaten", asks("GET", "/messages/t"), meanwhile=when_beaten, check=check_read, config=QUEUE_MESSAGE),
    Case(
        "get-beaten-cold",
        asks("GET", "/messages/t", kept_alive=False),
        meanwhile=when_beaten,
        check=check_read,
        config=QUEUE_MESSAGE,
        cold=True,
    ),
    Case(
        "stream", asks("GET", "/messages/t?lease=60&prefetch=2", **EVENTS), published(3), leave_after(2), check_streamed
    ),
    Case(
        "stream-cold",
        asks("GET", "/messages/t?lease=60&prefetch=2", **EVENTS),
        published(3),
        leave_after(2),
        check_streamed,
        cold=True,
    ),
    Case(
        "stream-bodies", asks("GET", "/messages/t?prefetch=2", **EVENTS), published(3), leave_after(3), check_streamed
    ),
    Case("publish", asks("POST", "/messages/t", b"1", key="k"), check=check_published(1, key="k")),
    Case("publish-legacy", asks("POST", "/messages/t", b"{}"), check=check_published(1), config=QUEUE_MESSAGE),
    Case(
        "publish-held",
        asks("POST", "/messages/t", b"{}"),
        full,
        make_room,
        check_room,
        config=TopicConfig(schema="queue_message", max_messages=2),
    ),
    Case("batch", asks("POST", "/messages/t", b"1\n1\n1", kind="application/x-ndjson"), check=check_published(3)),
    Case(
        "envelopes",
        asks("POST", "/messages/t", b'{"body":1}\n{"body":1,"key":"a"}', kind=ENVELOPES),
        check=check_published(2),
    ),
    Case(
        "lenient",
        asks("POST", "/messages/t", b'{"body":1}\n{"body":1,"id":"a"}', kind=ENVELOPES, prefer="handling=lenient"),
        check=check_each,
    ),
    Case("settle", settling, leased, check=check_settled),
    Case(
        "put-group",
        asks("PUT", "/topics/t/groups/g"),
        published(1),
        check=check_admin(lambda world: "g" in world.topic.groups),
    ),
    Case(
        "delete-group",
        asks("DELETE", "/topics/t/groups/g"),
        dead,
        check=check_admin(lambda world: "g" not in world.topic.groups),
    ),
    Case(
        "delete-default",
        asks("DELETE", "/topics/t/groups/default"),
        dead,
        check=check_admin(lambda world: "default" not in world.topic.groups),
    ),
    Case("purge", asks("POST", "/topics/t/purge"), dead, check=check_admin(lambda world: not world.group.ready)),
    Case("redrive", asks("POST", "/topics/t/redrive"), dead, check=check_admin(lambda world: world.group.ready == 3)),
    Case("pause", asks("POST", "/topics/t/pause"), published(1), check=nothing),
    Case(
        "configure",
        asks("PUT", "/topics/t", {"lease_s": 7.0}),
        published(1),
        check=check_admin(lambda world: world.topic.config.lease_s == 7.0),
    ),
    Case("create", asks("PUT", "/topics/u", {}), check=check_admin(lambda world: "u" in world.engine.core.topics)),
    Case(
        "delete",
        asks("DELETE", "/topics/u"),
        another_topic,
        check=check_admin(lambda world: "u" not in world.engine.core.topics),
    ),
    Case("peek-cold", asks("GET", "/topics/t/messages"), published(3), cold=True),
    Case("move", asks("GET", "/"), dead_to_move, check=check_moved, operation=move),
    Case("move-cold", asks("GET", "/"), dead_to_move, check=check_moved, operation=move, cold=True),
]


async def stopped(case: Case, how: str, at: int, store: Store, patch: pytest.MonkeyPatch) -> tuple[bool, QueueCore]:
    """Run it, stopped at the ``at``-th await; whether it got so far."""
    async with a_world(store, patch, memory_budget=0 if case.cold and store.durable else 1 << 62) as world:
        await world.engine.create_topic("t", case.config)
        await case.prepare(world)
        client = case.client(world)
        reached = await run(case, how, at, world, client)
        await world.settle_down()
        check_consistent(world.engine.core)
        await case.check(world, client)
        await world.settle_down()
        check_consistent(world.engine.core)
        return reached, world.engine.core


async def run(case: Case, how: str, at: int, world: World, client: Client) -> bool:
    scope, awaits = anyio.CancelScope(), 0
    tasks: list[asyncio.Task[Any]] = []
    if how in ("gone", "broken"):
        client.leaves_at, client.breaks = at, how == "broken"
    if how == "storage":
        world.done.add("storage")
        world.disk.commits = 0
        # The batch, what rides along, and each of its requests by itself.
        world.disk.failing = range(at, at + 4)

    def asleep(number: int) -> None:
        nonlocal awaits
        awaits = number
        assert number < ENDLESS, "it waits for ever"
        if how == "before" and number == at:
            scope.cancel()
        case.meanwhile(world, client)
        if how == "after" and number == at:
            scope.cancel()
        if how == "native" and number == at:
            tasks[0].cancel()

    def awake(number: int) -> None:
        if how == "awake" and number == at:
            scope.cancel()

    async def operation() -> None:
        if how == "native":
            task = asyncio.current_task()
            assert task is not None
            tasks.append(task)
        with scope, contextlib.suppress(OSError):
            await Stepped(case.operation(world, client), asleep, awake)

    async with anyio.create_task_group() as group:
        group.start_soon(operation)
    return {"gone": client.sends, "broken": client.sends, "storage": world.disk.commits}.get(how, awaits) >= at


def standings(core: QueueCore) -> dict[tuple[str, str], dict[int, State]]:
    return {
        (topic.name, group.name): {seq: group.standing(seq) for seq in sorted(topic.seqs())}
        for topic in core.topics.values()
        for group in topic.groups.values()
    }


def every_await(
    case: Case, how: str, backend: str, make_store: Callable[[], Store], after: Callable[[Store], Store]
) -> None:
    name, options = virtual_trio() if backend == "trio" else ("asyncio", {})
    for at in range(1, ENDLESS):
        store = make_store()
        with pytest.MonkeyPatch.context() as patch:
            reached, core = anyio.run(
                partial(stopped, case, how, at, store, patch), backend=name, backend_options=options
            )
        if store.durable:
            check_restart(after(store), core)
        if not reached:
            assert at > 1 or how == "storage" or case.operation is move, "it was never stopped"
            return


def check_restart(store: Store, before: QueueCore) -> None:
    core = restore(store.load(), now=0.0, wall=1_000_000_000.0, jitter=lambda: 0.0, durable=True)
    store.close()
    core.effects = Effects()
    check_consistent(core)
    assert standings(core) == standings(before), "a restart finds it otherwise"


def ways(case: Case) -> Iterator[tuple[type[Store], str, str]]:
    """On what store, on what backend and how it can be stopped."""
    for store, backend, how in itertools.product((MemoryStore, KeepingStore), ("asyncio", "trio"), HOWS):
        on_disk = case.cold or how == "storage" or case.operation is move
        if (store is KeepingStore or not on_disk) and (backend == "asyncio" or how != "native"):
            yield store, backend, how


@pytest.mark.parametrize(
    ("case", "store", "backend", "how"),
    [
        pytest.param(case, *way, id=f"{case.name}-{way[0].__name__}-{way[1]}-{way[2]}")
        for case in CASES
        for way in ways(case)
    ],
)
def test_stopped_at_every_await(case: Case, store: type[Store], backend: str, how: str) -> None:
    make = KeepingStore if store is KeepingStore else partial(MemoryStore, 1)
    every_await(case, how, backend, make, lambda kept: kept)


@pytest.mark.parametrize("how", ["after", "storage"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_stopped_at_every_await_on_a_database(case: Case, how: str, tmp_path: Path) -> None:
    folders = iter(tmp_path / str(number) for number in range(ENDLESS))
    used: list[Path] = []

    def make() -> Store:
        used.append(next(folders))
        return SqliteStore(used[-1], "os")

    every_await(case, how, "trio", make, lambda _: SqliteStore(used[-1], "os"))
