"""Requests that callers share: who sends, who waits, and what cancelling one of them means to the others."""

from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from trio.testing import MockClock

import wakeq
from wakeq._lane import Lane, Part

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    if request.param == "trio":
        return "trio", {"clock": MockClock(autojump_threshold=0)}
    return "asyncio"


# asyncio's clock can't be held still.
on_a_clock_that_stands_still = pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)


class Named(Part):
    """A part that one can tell from others."""

    def __init__(self, name: str, size: int = 1, retry_s: float = 60.0) -> None:
        super().__init__()
        self.name = name
        self.bytes = size
        self.patience_s = retry_s
        self.sent_at: list[float] = []

    @property
    def size(self) -> int:
        return self.bytes

    def sent(self, at: float) -> None:
        self.sent_at.append(at)


class Requests(Lane[Named]):
    """Each request is answered when the test says so, as the test says."""

    def __init__(self, most: int = 10, max_bytes: int = 100, jitter: Callable[[], float] = lambda: 1.0) -> None:
        super().__init__(jitter=jitter, most=most, max_bytes=max_bytes)
        self.made: list[str] = []
        self.times: list[float] = []
        self.answers: list[wakeq.WakeqError | None] = []
        self.gate: anyio.Event | None = None

    async def send(self, parts: list[Named]) -> None:
        self.made.append("".join(part.name for part in parts))
        self.times.append(anyio.current_time())
        if self.gate is not None:
            await self.gate.wait()
        else:
            await anyio.lowlevel.checkpoint()
        if self.answers and (error := self.answers.pop(0)) is not None:
            raise error
        for part in parts:
            part.end()


async def test_one_alone_goes_at_once() -> None:
    lane = Requests()
    await lane.submit(Named("a"))
    await lane.submit(Named("b"))
    assert lane.made == ["a", "b"]
    assert not lane._led


async def test_those_that_come_while_one_is_on_its_way_share_the_next() -> None:
    lane = Requests()
    async with anyio.create_task_group() as tasks:
        for name in "abcdefghijkl":
            tasks.start_soon(lane.submit, Named(name))
    first, *rest = lane.made
    # trio starts tasks in any order.
    assert len(first) == 1
    assert [len(request) for request in rest] == [10, 1]
    assert sorted("".join(lane.made)) == list("abcdefghijkl")


async def test_those_that_were_answered_together_ask_again_together() -> None:
    lane = Requests()

    async def ask(name: str) -> None:
        for _ in range(4):
            await lane.submit(Named(name))

    async with anyio.create_task_group() as tasks:
        for name in "abc":
            tasks.start_soon(ask, name)
    assert [len(made) for made in lane.made[1:]] == [3] * 3 + [2]
    await lane.submit(Named("d"))
    await lane.submit(Named("e"))
    assert lane.made[-2:] == ["d", "e"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
def test_a_lane_may_be_used_on_one_event_loop_after_another(anyio_backend: Any) -> None:
    lane = Requests()

    async def ask() -> None:
        async with anyio.create_task_group() as tasks:
            for name in "abc":
                tasks.start_soon(lane.submit, Named(name))

    for _ in range(2):
        anyio.run(ask, backend=anyio_backend)
    assert lane.made == ["a", "bc", "abc"]


async def test_a_request_has_at_most_its_bytes_and_what_is_larger_goes_alone() -> None:
    lane = Requests(max_bytes=10)
    lane.gate = anyio.Event()
    async with anyio.create_task_group() as tasks:
        for name, size in (("a", 1), ("b", 6), ("c", 4), ("d", 1), ("e", 11), ("f", 1)):
            tasks.start_soon(lane.submit, Named(name, size))
            await anyio.wait_all_tasks_blocked()
        lane.gate.set()
    assert lane.made == ["a", "bc", "d", "e", "f"]


async def started(tasks: Any, lane: Requests, names: str) -> dict[str, anyio.CancelScope]:
    """Callers that wait, in that order, each in a scope of its own."""
    scopes = {}
    for name in names:
        scope = scopes[name] = anyio.CancelScope()

        async def call(name: str = name, scope: anyio.CancelScope = scope) -> None:
            with scope:
                await lane.submit(Named(name))

        tasks.start_soon(call)
        await anyio.wait_all_tasks_blocked()
    return scopes


async def test_who_waits_and_is_cancelled_takes_only_its_own_part_along() -> None:
    lane = Requests()
    lane.gate = anyio.Event()
    async with anyio.create_task_group() as tasks:
        scopes = await started(tasks, lane, "abc")
        scopes["b"].cancel()
        await anyio.wait_all_tasks_blocked()
        lane.gate.set()
    assert lane.made == ["a", "c"]


async def test_who_leads_and_is_cancelled_hands_the_lead_on() -> None:
    lane = Requests()
    gate = lane.gate = anyio.Event()
    async with anyio.create_task_group() as tasks:
        scopes = await started(tasks, lane, "abc")
        scopes["a"].cancel()
        await anyio.wait_all_tasks_blocked()
        # The request of those that were left is on its way by now.
        assert lane.made == ["a", "bc"]
        scopes["b"].cancel()
        await anyio.wait_all_tasks_blocked()
        assert lane.made == ["a", "bc", "c"]
        gate.set()
    assert not lane._led


async def test_what_was_on_its_way_for_another_is_sent_again_by_him_alone() -> None:
    lane = Requests()
    lane.gate = anyio.Event()
    async with anyio.create_task_group() as tasks:
        scopes = await started(tasks, lane, "abcd")
        lane.gate.set()
        lane.gate = anyio.Event()
        await anyio.wait_all_tasks_blocked()
        assert lane.made == ["a", "bcd"]
        # c's own part was in the request, and is not sent again once nobody waits for it.
        scopes["c"].cancel()
        await anyio.wait_all_tasks_blocked()
        scopes["b"].cancel()
        await anyio.wait_all_tasks_blocked()
        assert lane.made == ["a", "bcd", "d"]
        lane.gate.set()


async def test_who_is_given_the_lead_and_is_cancelled_at_once_hands_it_on() -> None:
    lane = Requests()
    lane.gate = anyio.Event()
    async with anyio.create_task_group() as tasks:
        scopes = await started(tasks, lane, "abc")
        scopes["a"].cancel()
        scopes["b"].cancel()
        await anyio.wait_all_tasks_blocked()
        assert lane.made[-1] == "c"
        lane.gate.set()
    assert not lane._led


@on_a_clock_that_stands_still
async def test_a_part_without_an_answer_is_sent_again() -> None:
    lane = Requests()
    lost = wakeq.ServerUnavailable("lost")
    refused = wakeq.ServerUnavailable("refused")
    refused.may_have_happened = False
    draining = wakeq.Draining("d")
    draining.retry_after_s = 5.0
    lane.answers = [lost, refused, draining, None]
    began = anyio.current_time()
    part = Named("a")
    await lane.submit(part)
    # 0.1 s, doubled with each failure, as jitter is 1; and what the server asks for besides.
    assert [round(at - began, 3) for at in lane.times] == [0, 0.1, 0.3, 5.7]
    assert [round(at - began, 3) for at in part.sent_at] == [0]


@on_a_clock_that_stands_still
async def test_a_part_is_given_up_when_it_would_be_too_late() -> None:
    lane = Requests()
    lost = wakeq.ServerUnavailable("lost")
    lane.answers = [lost] * 20
    began = anyio.current_time()
    with pytest.raises(wakeq.ServerUnavailable, match="lost") as raised:
        await lane.submit(Named("a", retry_s=1.0))
    assert raised.value is not lost
    assert len(lane.made) == 4
    assert anyio.current_time() - began < 1
    # Who comes then doesn't wait for what others have seen.
    at = anyio.current_time()
    lane.answers = []
    await lane.submit(Named("b"))
    assert anyio.current_time() == at


@on_a_clock_that_stands_still
async def test_who_waits_is_not_kept_by_a_leader_that_gives_up() -> None:
    lane = Requests()
    lane.answers = [wakeq.ServerUnavailable("lost")] * 4
    outcomes: list[str] = []

    async def call(name: str, retry_s: float) -> None:
        try:
            await lane.submit(Named(name, retry_s=retry_s))
            outcomes.append(name)
        except wakeq.ServerUnavailable:
            outcomes.append(f"{name} gave up")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, "a", 0.0)
        tasks.start_soon(call, "b", 60.0)
    assert outcomes == ["a gave up", "b"]


async def test_a_refusal_that_is_one_parts_fault_reaches_that_one() -> None:
    class Picky(Requests):
        async def send(self, parts: list[Named]) -> None:
            self.made.append("".join(part.name for part in parts))
            await anyio.lowlevel.checkpoint()
            if any(part.name == "c" for part in parts):
                raise wakeq.BadRequest("c is wrong")
            for part in parts:
                part.end()

    lane = Picky()
    outcomes: dict[str, object] = {}

    async def call(name: str) -> None:
        try:
            await lane.submit(Named(name))
            outcomes[name] = None
        except wakeq.BadRequest as error:
            outcomes[name] = error.detail

    async with anyio.create_task_group() as tasks:
        for name in "abcd":
            tasks.start_soon(call, name)
    assert outcomes == {"a": None, "b": None, "c": "c is wrong", "d": None}


async def test_a_proxy_that_takes_less_is_given_less() -> None:
    class Narrow(Requests):
        async def send(self, parts: list[Named]) -> None:
            self.made.append("".join(part.name for part in parts))
            await anyio.lowlevel.checkpoint()
            if len(parts) > 2:
                raise wakeq.WakeqError("too large", status=413)
            for part in parts:
                part.end()

    lane = Narrow()
    async with anyio.create_task_group() as tasks:
        for name in "abcdefghi":
            tasks.start_soon(lane.submit, Named(name))
    assert max(len(request) for request in lane.made[3:]) == 2
    assert sum(len(request) for request in lane.made if len(request) <= 2) == 9


async def test_each_is_told_by_an_error_of_its_own() -> None:
    lane = Requests()
    missing = wakeq.TopicNotFound("t")
    lane.answers = [None, missing]
    errors: list[wakeq.WakeqError] = []

    async def call(name: str) -> None:
        try:
            await lane.submit(Named(name))
        except wakeq.TopicNotFound as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for name in "abc":
            tasks.start_soon(call, name)
    assert len({id(error) for error in (*errors, missing)}) == 3
    assert {(error.code, error.status) for error in errors} == {("TOPIC_NOT_FOUND", 404)}
