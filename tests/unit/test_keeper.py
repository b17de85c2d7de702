"""When a consumer's leases are extended and its ends told: deadlines on a clock that stands still."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import orjson
import pytest
from trio.testing import MockClock

import wakeq
from wakeq._connection import Answer, Connection
from wakeq._delivery import Delivery
from wakeq._keeper import FLUSH_S, Keeper
from wakeq._settler import Settler

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return "trio", {"clock": MockClock(autojump_threshold=0)}


class Server(Connection):
    """Answers settles, each lease as the test says."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1", token=None, timeout=10.0, transport=None)
        self.asked: list[tuple[float, dict[str, Any]]] = []
        self.stale: set[str] = set()
        self.down = False
        self.slow_s = 0.0

    async def ask(self, method: str, path: str, *, content: bytes = b"", **more: Any) -> Answer:
        asked = {kind: lines for kind, lines in orjson.loads(content).items() if lines}
        self.asked.append((round(anyio.current_time() - self.began, 3), asked))
        await anyio.sleep(self.slow_s)
        if self.down:
            raise wakeq.ServerUnavailable("down")
        leases = [line if isinstance(line, str) else line["lease_id"] for lines in asked.values() for line in lines]
        results = [{"lease_id": lease, "status": "stale" if lease in self.stale else "ok"} for lease in leases]
        return Answer(200, {}, orjson.dumps({"results": results}), path)

    began = 0.0


@asynccontextmanager
async def keeping(server: Server, lease_s: float = 8.0, retry_s: float = 0.0) -> AsyncIterator[Keeper]:
    server.began = anyio.current_time()
    keeper = Keeper("t", Settler(server, "t", jitter=lambda: 1.0), lease_s=lease_s, retry_s=retry_s)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keeper.run)
        await anyio.wait_all_tasks_blocked()
        yield keeper
        keeper.end()


def deliveries(keeper: Keeper, *leases: str) -> list[Delivery]:
    taken = [Delivery("t", {"lease_id": lease, "body": lease, "seq": 1}, keeper) for lease in leases]
    keeper.take(taken)
    return taken


async def test_what_is_held_is_extended_when_half_of_its_lease_is_over() -> None:
    server = Server()
    async with keeping(server) as keeper:
        first = deliveries(keeper, "a", "b")
        await anyio.sleep(0.5)
        second = deliveries(keeper, "c")
        await anyio.sleep(9)
        keeper.drop("a")
        await anyio.sleep(4)
        assert (len(first), len(second)) == (2, 1)
    # c is due so little later that it is extended along.
    assert server.asked == [
        (4.0, {"extend": [{"lease_id": lease, "lease_s": 8.0} for lease in "abc"]}),
        (8.0, {"extend": [{"lease_id": lease, "lease_s": 8.0} for lease in "abc"]}),
        (12.0, {"extend": [{"lease_id": lease, "lease_s": 8.0} for lease in "bc"]}),
    ]


async def test_what_nobody_refers_to_any_more_is_extended_no_more() -> None:
    server = Server()
    async with keeping(server) as keeper:
        taken = deliveries(keeper, "a", "b")
        del taken[0]
        await anyio.sleep(5)
    assert [asked for _, asked in server.asked] == [{"extend": [{"lease_id": "b", "lease_s": 8.0}]}]


async def test_nothing_is_asked_and_no_timer_runs_while_nothing_is_held() -> None:
    server = Server()
    async with keeping(server) as keeper:
        for delivery in deliveries(keeper, "a"):
            async with delivery:
                pass
        await anyio.sleep(1_000)
        assert keeper._sleep.deadline == float("inf")
    assert len(server.asked) == 1


async def test_acks_wait_for_others_for_ten_milliseconds() -> None:
    server = Server()
    async with keeping(server) as keeper:
        *taken, held = deliveries(keeper, "a", "b", "c", "d")
        for delivery in taken:
            async with delivery:
                await anyio.sleep(0.004)
        assert server.asked == []
        await anyio.sleep(1)
        assert server.asked == [(0.004 + FLUSH_S, {"ack": ["a", "b", "c"]})]
        assert keeper.holds(held.lease_id)


async def test_an_ack_that_no_other_can_join_goes_at_once() -> None:
    server = Server()
    async with keeping(server) as keeper:
        for delivery in deliveries(keeper, "a", "b"):
            async with delivery:
                await anyio.sleep(0.004)
        await anyio.wait_all_tasks_blocked()
        assert server.asked == [(0.008, {"ack": ["a", "b"]})]


async def test_acks_go_at_once_when_the_consumer_would_wait() -> None:
    server = Server()
    async with keeping(server) as keeper:
        *taken, held = deliveries(keeper, "a", "b", "c")
        for delivery in taken:
            async with delivery:
                pass
        keeper.flush()
        await anyio.wait_all_tasks_blocked()
        assert server.asked == [(0.0, {"ack": ["a", "b"]})]
        assert keeper.holds(held.lease_id)


async def test_while_a_request_is_on_its_way_the_next_batch_fills() -> None:
    server = Server()
    server.slow_s = 1.0
    async with keeping(server) as keeper:
        for delivery in deliveries(keeper, *"abcdef"):
            async with delivery:
                await anyio.sleep(0.006)
        await anyio.sleep(3)
    assert [asked for _, asked in server.asked] == [{"ack": ["a", "b"]}, {"ack": ["c", "d", "e", "f"]}]


async def test_an_explicit_end_waits_for_its_answer_and_is_told_when_the_lease_is_lost() -> None:
    server = Server()
    server.slow_s = 0.5
    server.stale = {"b"}
    async with keeping(server) as keeper:
        first, second = deliveries(keeper, "a", "b")
        began = anyio.current_time()
        await first.ack()
        assert anyio.current_time() - began == 0.5
        with pytest.raises(wakeq.LeaseLost):
            await second.nack(delay_s=3, reason="\ud800")
        assert (first.settled, second.settled) == (True, False)
        assert not keeper.holds("b")
    assert server.asked[1][1] == {"nack": [{"lease_id": "b", "delay_s": 3, "reason": "?"}]}


async def test_a_cancelled_end_leaves_the_lease_with_its_holder() -> None:
    server = Server()
    server.slow_s = 1.0
    async with keeping(server) as keeper:
        (delivery,) = deliveries(keeper, "a")
        with anyio.move_on_after(0.1):
            await delivery.ack()
        assert not delivery.settled
        assert keeper.holds("a")


async def test_how_a_block_ends_decides_what_becomes_of_its_message() -> None:
    server = Server()
    async with keeping(server) as keeper:
        failed, cancelled, own = deliveries(keeper, "a", "b", "c")
        with pytest.raises(ValueError, match="no good"):
            async with failed:
                raise ValueError("no good")
        with anyio.move_on_after(0):
            async with cancelled:
                await anyio.sleep_forever()
        async with own:
            await own.dead(reason="never")
        await anyio.sleep(1)
    asked = [lines for _, asked in server.asked for lines in asked.items()]
    assert ("dead", [{"lease_id": "c", "reason": "never"}]) in asked
    nacks = [line for kind, lines in asked if kind == "nack" for line in lines]
    assert nacks == [
        {"lease_id": "a", "reason": "ValueError: no good"},
        {"lease_id": "b", "delay_s": 0.0, "reason": "cancelled"},
    ]
    assert len(asked) - len(nacks) <= 2


async def test_lost_leases_of_blocks_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    server.stale = {"a"}
    with caplog.at_level(logging.WARNING, "wakeq"):
        async with keeping(server) as keeper:
            for delivery in deliveries(keeper, "a", "b"):
                async with delivery:
                    pass
    assert "1 leases had ended before" in caplog.text


async def test_ends_are_told_as_long_as_their_leases_may_last() -> None:
    server = Server()
    server.down = True
    async with keeping(server, lease_s=60) as keeper:
        for delivery in deliveries(keeper, "a"):
            async with delivery:
                pass
        await anyio.sleep(20)
        server.down = False
        await anyio.sleep(30)
    assert len(server.asked) >= 2
    assert {tuple(asked["ack"]) for _, asked in server.asked} == {("a",)}


async def test_a_lease_that_is_found_to_have_ended_is_not_held() -> None:
    server = Server()
    server.stale = {"b"}
    async with keeping(server) as keeper:
        taken = deliveries(keeper, "a", "b")
        await keeper.renew()
        assert [keeper.holds(delivery.lease_id) for delivery in taken] == [True, False]


async def test_room_is_waited_for() -> None:
    server = Server()
    async with keeping(server) as keeper:
        taken = deliveries(keeper, "a", "b")
        with anyio.move_on_after(1) as waited:
            await keeper.room(2)
        assert waited.cancelled_caught
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keeper.room, 2)
            await anyio.wait_all_tasks_blocked()
            async with taken[0]:
                pass
