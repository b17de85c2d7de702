"""The jobs that every client is given, on a queue of this process that can be made to fail."""

import argparse
import asyncio
import importlib
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from wakeq_bench.peers.environments import script


class Topics:
    """Hands over what is published, but for the numbers in `lost`; those in `doubled` twice."""

    requests = None

    def __init__(self, lost: Sequence[int] = (), doubled: Sequence[int] = ()) -> None:
        self._lost = lost
        self._doubled = doubled
        self._groups: dict[str, dict[str | None, asyncio.Queue[str]]] = {}

    async def create(self, topic: str, groups: Sequence[str] = ()) -> None:
        self._groups[topic] = {group: asyncio.Queue() for group in (*groups, *([] if groups else [None]))}

    async def publish(self, topic: str, body: str) -> None:
        await asyncio.sleep(0)
        number = int(body[:12])
        for _ in range(0 if number in self._lost else 2 if number in self._doubled else 1):
            for queue in self._groups[topic].values():
                queue.put_nowait(body)

    async def publish_many(self, topic: str, bodies: Sequence[str]) -> None:
        for body in bodies:
            await self.publish(topic, body)

    async def deliveries(self, topic: str, prefetch: int, group: str | None = None) -> AsyncIterator[tuple[Any, str]]:
        while True:
            yield object(), await self._groups[topic][group].get()

    async def ack_one(self, token: Any) -> None:
        await asyncio.sleep(0)


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    monkeypatch.syspath_prepend(str(script("_jobs").parent))

    def imported(name: str) -> Any:
        module = importlib.import_module(f"_{name}")
        if hasattr(module, "_PATIENCE_S"):
            monkeypatch.setattr(module, "_PATIENCE_S", 0.05)
        return module

    return imported


def records(module: Any, name: str, queue: Topics, last: str, **options: object) -> list[dict[str, Any]]:
    """What a job says until a record has the key `last`."""
    said: list[dict[str, Any]] = []

    async def until_said() -> None:
        told = asyncio.Event()

        def say(record: dict[str, Any]) -> None:
            said.append(json.loads(json.dumps(record)))
            if last in record:
                told.set()

        module.say_json = say
        working = asyncio.create_task(getattr(module, name)(queue, argparse.Namespace(**options)))
        async with asyncio.timeout(30):
            await told.wait()
        working.cancel()
        await asyncio.wait([working])

    asyncio.run(until_said())
    return said


def latency(job: Any, queue: Topics) -> list[dict[str, Any]]:
    return records(
        job("latency"), "latency", queue, "finished", rates=[100.0, 200.0], size=20, warm_up=0.05, seconds=0.1
    )


def test_latency_counts_every_message_of_each_rate(job: Any) -> None:
    slow, fast, _ = latency(job, Topics())
    assert (slow["rate"], fast["rate"]) == (100, 200)
    assert (len(slow["came_us"]), len(fast["came_us"])) == (10, 20)
    for record in (slow, fast):
        assert all(0 < late <= came for late, came in zip(record["late_us"], record["came_us"], strict=True))
        assert (record["behind"], record["doubled"]) == (0, 0)


def test_what_never_comes_counts_as_it_stands_and_ends_the_rates(job: Any) -> None:
    slow, _ = latency(job, Topics(lost=[7], doubled=[8]))
    assert (slow["behind"], slow["doubled"]) == (1, 1)
    # It was due 80 ms before the end, and has been waited for since.
    assert max(slow["came_us"]) > 50_000


def test_a_stalled_queue_makes_everybody_late_who_was_due_meanwhile(job: Any) -> None:
    class Stalling(Topics):
        async def publish(self, topic: str, body: str) -> None:
            if int(body[:12]) == 6:
                # As a server would that answers nobody for a while: nothing else gets its turn.
                time.sleep(0.06)  # noqa: ASYNC251
            await super().publish(topic, body)

    slow, *_ = latency(job, Stalling())
    assert sum(came > 15_000 for came in slow["came_us"]) >= 4


def test_fanout_counts_until_the_last_group(job: Any) -> None:
    opened, found = records(job("fanout"), "fanout", Topics(), "last_us", groups=3, rate=100.0, size=20, seconds=0.1)
    assert opened == {"opened": True}
    assert (len(found["each_us"]), len(found["last_us"])) == (30, 10)
    assert (found["behind"], found["doubled"]) == (0, 0)
    assert found["last_us"] == [max(found["each_us"][at : at + 3]) for at in range(0, 30, 3)]


def test_fanout_misses_copies_and_sees_those_too_many(job: Any) -> None:
    queue = Topics(lost=[2], doubled=[3])
    found = records(job("fanout"), "fanout", queue, "last_us", groups=3, rate=100.0, size=20, seconds=0.1)[-1]
    assert (found["behind"], found["doubled"]) == (3, 3)


def test_a_backlog_is_drained_and_what_is_missing_is_seen(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job("drain"), "_STALLED_S", 0.05)
    queue = Topics(lost=[4], doubled=[1])
    for messages in (0, 250):
        (filled,) = records(job("fill"), "fill", queue, "filled", messages=messages, size=20, singly=False)
    assert filled["filled"] == 250
    (found,) = records(job("drain"), "drain", queue, "first_s", messages=250, singly=True)
    assert (found["lost"], found["doubled"]) == (1, 1)
    assert 0 < found["first_s"] <= found["seconds"]


def test_a_day_follows_from_its_seed(job: Any) -> None:
    day = job("day").day
    assert day(1, 200, 60.0) == day(1, 200, 60.0)
    assert day(1, 200, 60.0) != day(2, 200, 60.0)


def test_a_day_has_a_quiet_night_and_tasks_of_services(job: Any) -> None:
    module = job("day")
    tasks = module.day(3, 1_000, 24.0)
    assert len(tasks) == 1_000
    due = [task.due_s for task in tasks]
    assert due == sorted(due)
    assert 0 <= due[0] <= due[-1] <= 24
    night = sum(one < module.morning_s(24.0) for one in due)
    assert 50 < night < 200
    assert all(1 <= len(task.steps) <= 4 and task.messages >= 4 for task in tasks)
    assert all(100 <= step.size <= 100_000 and 0 < step.think_s <= 1 for task in tasks for step in task.steps)


def mixed(job: Any, queue: Topics, tasks: int) -> dict[str, Any]:
    said = records(job("mixed"), "mixed", queue, "waited_us", seed=1, tasks=tasks, seconds=0.4)
    assert [*said[0], *said[1]] == ["opened", "morning"]
    return said[-1]


def test_every_task_of_a_day_comes_back(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = job("mixed")
    monkeypatch.setattr(module, "_PATIENCE_S", 10.0)
    found = mixed(lambda _: module, Topics(), 10)
    assert (found["unfinished"], found["doubled"]) == (0, 0)
    assert len(found["waited_us"]) == 10
    plan = module.day(1, 10, 0.4)
    assert len(found["hops_us"]) == sum(task.messages for task in plan)


def test_a_task_whose_message_is_lost_is_unfinished_and_counts_as_it_stands(job: Any) -> None:
    found = mixed(job, Topics(lost=range(7, 10_000)), 10)
    assert found["unfinished"] == 10
    assert len(found["waited_us"]) == 10
