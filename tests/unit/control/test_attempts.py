"""A worker's attempt, told by its link in whatever order answers and lines arrive."""

from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from tests.support.clock import standing_trio
from wakeq_control.service.attempt import Attempt, Start
from wakeq_control.service.context import TaskContext
from wakeq_control.service.link import Follower, Link
from wakeq_control.service.runnable import Outcome

pytestmark = pytest.mark.anyio
BEGUN: dict[str, Any] = {"attempt": 1, "context": None}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return standing_trio()


def an_input(number: int) -> dict[str, Any]:
    return {"ref": 1, "number": number, "event": f"input {number}", "after": 0}


class Told(Link):
    """A link that tells an attempt what a test wants, before its announcement returns."""

    def __init__(self, *said: dict[str, Any]) -> None:
        super().__init__(None, "worker", None)  # type: ignore[arg-type]
        self._tells = said
        self.words: list[dict[str, Any]] = []
        self.held = 0
        """So many of the first words are answered when `go_on` says so."""
        self.go_on = anyio.Event()

    async def announce(self, attempt: Follower) -> None:
        for said in self._tells:
            attempt.told(said)

    async def say(self, said: dict[str, Any]) -> dict[str, Any]:
        self.words.append(said)
        await checkpoint()
        if len(self.words) <= self.held:
            await self.go_on.wait()
        return {}


class Reads:
    """A service whose tasks read three inputs."""

    schema: dict[str, Any] | None = None

    def __init__(self) -> None:
        self.read: list[str] = []

    async def run(self, arguments: dict[str, Any], task: TaskContext, context: dict[str, Any] | None) -> Outcome:
        while len(self.read) < 3:
            self.read.append(await task.receive_text())
        return Outcome("done")


@pytest.mark.parametrize(
    "said",
    [
        [{**BEGUN, "inputs": [an_input(1), an_input(2), an_input(3)]}],
        [{**BEGUN, "inputs": []}, an_input(1), an_input(2), an_input(3)],
        [an_input(1), an_input(2), an_input(3), {**BEGUN, "inputs": []}],
        [an_input(1), an_input(2), {**BEGUN, "inputs": []}, an_input(3)],
        [an_input(3), {**BEGUN, "inputs": [an_input(1), an_input(2)]}],
        [an_input(2), an_input(3), {**BEGUN, "inputs": [an_input(1), an_input(2), an_input(3)]}],
        [{**BEGUN, "inputs": [an_input(1)]}, {**BEGUN, "inputs": [an_input(1), an_input(2)]}, an_input(2), an_input(3)],
    ],
)
async def test_inputs_come_once_and_in_order_whatever_overtakes_what(said: list[dict[str, Any]]) -> None:
    link, service = Told(*said), Reads()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Attempt(Start("T", "S", "{}", "P", 0), link).run, service, tasks)
        await wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert service.read == ["input 1", "input 2", "input 3"]


class Shows:
    """A service that shows so many events, and one with its end."""

    schema: dict[str, Any] | None = None

    def __init__(self, events: int) -> None:
        self._events = events

    async def run(self, arguments: dict[str, Any], task: TaskContext, context: dict[str, Any] | None) -> Outcome:
        for number in range(self._events):
            task.emit({"n": number})
        return Outcome("done", last={"n": self._events})


@pytest.mark.parametrize("anyio_backend", ["asyncio", standing_trio()])
@pytest.mark.parametrize("events", [0, 2])
async def test_what_is_shown_at_the_end_is_one_word_with_it(events: int) -> None:
    link = Told({**BEGUN, "inputs": []})
    async with anyio.create_task_group() as tasks:
        await Attempt(Start("T", "S", "{}", "P", 0), link).run(Shows(events), tasks)
    (word,) = link.words
    assert (word["index"], word["events"], word["end"]["result"]) == (0, [{"n": n} for n in range(events + 1)], "done")


class Talks(Shows):
    """The same, one event at a time."""

    def __init__(self, events: int) -> None:
        super().__init__(events)
        self.over = anyio.Event()

    async def run(self, arguments: dict[str, Any], task: TaskContext, context: dict[str, Any] | None) -> Outcome:
        for number in range(self._events):
            task.emit({"n": number})
            await wait_all_tasks_blocked()
        self.over.set()
        return Outcome("done", last={"n": self._events})


@pytest.mark.parametrize("anyio_backend", ["asyncio", standing_trio()])
async def test_what_is_said_while_a_word_is_on_its_way_is_one_word_with_the_end() -> None:
    link, service = Told({**BEGUN, "inputs": []}), Talks(3)
    link.held = 1
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Attempt(Start("T", "S", "{}", "P", 0), link).run, service, tasks)
        await service.over.wait()
        await wait_all_tasks_blocked()
        assert len(link.words) == 1
        link.go_on.set()
    first, last = link.words
    assert (first["index"], first["events"], "end" in first) == (0, [{"n": 0}], False)
    assert (last["index"], last["events"], last["end"]["result"]) == (1, [{"n": n} for n in (1, 2, 3)], "done")
