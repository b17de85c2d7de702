"""The load that every client is put under: what it counts, on a queue that can be made to fail."""

import argparse
import asyncio
import importlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from wakeq_bench.peers.environments import script


class FaultyQueue:
    """Loses the messages in `lost`, and delivers those in `doubled` twice."""

    def __init__(self, lost: set[int], doubled: set[int]) -> None:
        self._lost = lost
        self._doubled = doubled
        self._messages: asyncio.Queue[str] = asyncio.Queue()
        self.largest_take = 0

    async def create(self, _topic: str) -> None:
        pass

    async def publish(self, _topic: str, body: str) -> None:
        number = int(body[:12])
        times = 0 if number in self._lost else 2 if number in self._doubled else 1
        for _ in range(times):
            self._messages.put_nowait(body)
        await asyncio.sleep(0)

    async def publish_many(self, topic: str, bodies: Sequence[str]) -> None:
        for body in bodies:
            await self.publish(topic, body)

    async def consumer(self, _topic: str) -> "FaultyQueue":
        return self

    async def take(self, most: int) -> list[tuple[Any, str]]:
        taken = [await self._messages.get()]
        while len(taken) < most and not self._messages.empty():
            taken.append(self._messages.get_nowait())
        self.largest_take = max(self.largest_take, len(taken))
        return [(object(), body) for body in taken]

    async def ack(self, tokens: Sequence[Any]) -> None:
        await asyncio.sleep(0)

    async def deliveries(self, _topic: str, prefetch: int, _group: str | None = None) -> AsyncIterator[tuple[Any, str]]:
        while True:
            for one in await self.take(prefetch):
                yield one

    async def ack_one(self, token: Any) -> None:
        await asyncio.sleep(0)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(script("_load").parent))
    module = importlib.import_module("_load")
    monkeypatch.setattr(module, "_STALLED_S", 0.05)
    return module


def run(load: Any, queue: FaultyQueue, *, singly: bool, batch: int = 1) -> None:
    options = argparse.Namespace(batch=batch, in_flight=3, singly=singly, ahead=0, size=20, warm_up=0.01, seconds=0.05)

    async def until_finished() -> None:
        finished = asyncio.Event()
        loading = asyncio.create_task(load.load(queue, options))
        say = load.say_json

        def say_and_tell(record: dict[str, Any]) -> None:
            say(record)
            if "finished" in record:
                finished.set()

        load.say_json = say_and_tell
        try:
            async with asyncio.timeout(30):
                await finished.wait()
        finally:
            load.say_json = say
            loading.cancel()
            await asyncio.wait([loading])

    asyncio.run(until_finished())


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("singly", [True, False])
def test_a_sound_queue(load: Any, capsys: pytest.CaptureFixture[str], singly: bool) -> None:
    run(load, FaultyQueue(set(), set()), singly=singly, batch=4)
    opened, window, finished = records(capsys.readouterr().out)
    assert opened == {"opened": True}
    assert window["in_window"] > 0
    assert window["seconds"] >= 0.05
    assert finished["published"] == finished["acked"] > 0
    assert (finished["lost"], finished["doubled"]) == (0, 0)


@pytest.mark.parametrize("singly", [True, False])
def test_what_is_lost_or_comes_twice_is_counted(load: Any, capsys: pytest.CaptureFixture[str], singly: bool) -> None:
    run(load, FaultyQueue(lost={3, 5}, doubled={4}), singly=singly, batch=4)
    finished = records(capsys.readouterr().out)[-1]
    assert (finished["lost"], finished["doubled"]) == (2, 1)


def test_no_more_is_taken_than_a_batch(load: Any) -> None:
    queue = FaultyQueue(set(), set())
    run(load, queue, singly=False, batch=4)
    assert 1 < queue.largest_take <= 4


def test_publishers_wait_for_consumers_that_are_behind(load: Any) -> None:
    async def ahead() -> None:
        numbers = load.Numbers(size=20, ahead=4)
        assert len(await numbers.next_bodies(4)) == 4
        waiting = asyncio.ensure_future(numbers.next_bodies(4))
        await asyncio.sleep(0)
        assert not waiting.done()
        numbers.add_acked(1)
        assert [int(body[:12]) for body in await waiting] == [4, 5, 6, 7]
        late = asyncio.ensure_future(numbers.next_bodies(1))
        await asyncio.sleep(0)
        numbers.close()
        assert await late == []

    asyncio.run(ahead())


def test_messages_have_their_size(load: Any) -> None:
    async def bodies() -> list[str]:
        return list(await load.Numbers(size=100, ahead=10).next_bodies(2))

    assert [len(body) for body in asyncio.run(bodies())] == [100, 100]
