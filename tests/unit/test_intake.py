"""Bodies that come in parts: how many bytes of them are held, who is read on, and who is not waited for."""

from collections import deque
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from wakeq_server.errors import ConsumerGone, QueueError, RequestTimeout
from wakeq_server.http.intake import Body, Intake
from wakeq_server.http.wire import read_body

pytestmark = pytest.mark.anyio
LIMIT = 100


@pytest.fixture
def anyio_backend() -> str:
    return "trio"


class Sender:
    """A client, and its connection."""

    gone, read_whole, kept_alive, incoming = False, False, True, True
    fault: QueueError | None = None
    unsent = 0

    def __init__(self, intake: Intake, *, kept: bool = True) -> None:
        self.parts: deque[dict[str, Any]] = deque()
        self.sent = anyio.Event()
        self.body: bytes | None = None
        self.reader: Body = intake.body(self.receive, self, kept=kept)

    async def flushed(self) -> None:
        raise AssertionError("nothing is written here")

    def abandon(self) -> None:
        raise AssertionError("nothing is answered here")

    async def receive(self) -> dict[str, Any]:
        while not self.parts:
            self.sent = anyio.Event()
            await self.sent.wait()
        return self.parts.popleft()

    async def send(self, size: int, *, more: bool = True) -> None:
        """Some more comes; returns when whoever can has read it."""
        self.parts.append({"type": "http.request", "body": b"x" * size, "more_body": more})
        self.sent.set()
        await wait_all_tasks_blocked()

    async def hang_up(self) -> None:
        self.parts.append({"type": "http.disconnect"})
        self.sent.set()
        await wait_all_tasks_blocked()

    async def read(self) -> None:
        try:
            self.body = await read_body(self.reader, 1_000, {})
        finally:
            self.reader.close()


async def test_over_the_limit_only_the_first_is_read_on() -> None:
    intake = Intake(LIMIT)
    first, second, third = (Sender(intake) for _ in range(3))
    async with anyio.create_task_group() as tasks:
        for sender in (first, second, third):
            tasks.start_soon(sender.read)
        await wait_all_tasks_blocked()
        await second.send(LIMIT)
        await first.send(1)
        assert intake.bytes == LIMIT + 1
        for sender in (second, third, first):
            await sender.send(10)
        # What one read had begun before it was over the limit is still taken.
        assert (len(first.parts), len(second.parts), len(third.parts)) == (0, 0, 0)
        for sender in (second, third, first):
            await sender.send(10)
        assert (len(first.parts), len(second.parts), len(third.parts)) == (0, 1, 1)
        await first.send(0, more=False)
        assert first.body is not None
        assert (len(second.parts), len(third.parts)) == (0, 1)
        await second.send(0, more=False)
        await third.send(0, more=False)
    assert [len(sender.body or b"") for sender in (first, second, third)] == [21, LIMIT + 20, 20]
    assert intake.bytes == 0


async def test_one_that_waits_may_be_cancelled_and_one_that_hangs_up_makes_room() -> None:
    intake = Intake(LIMIT)
    first, second = Sender(intake), Sender(intake)
    async with anyio.create_task_group() as tasks:

        async def read_first() -> None:
            with pytest.raises(ConsumerGone):
                await first.read()

        tasks.start_soon(read_first)
        tasks.start_soon(second.read)
        await wait_all_tasks_blocked()
        await first.send(LIMIT + 1)
        await second.send(1)
        await second.send(1, more=False)
        assert len(second.parts) == 1
        await first.hang_up()
        assert second.body == b"xx"
    third, fourth = Sender(intake), Sender(intake)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(third.read)
        tasks.start_soon(fourth.read)
        await wait_all_tasks_blocked()
        await third.send(LIMIT + 1)
        await fourth.send(1)
        tasks.cancel_scope.cancel()
    assert intake.bytes == 0


async def test_what_is_whole_at_once_is_not_counted() -> None:
    intake = Intake(LIMIT)
    sender = Sender(intake)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sender.read)
        await sender.send(500, more=False)
    assert (len(sender.body or b""), intake.bytes) == (500, 0)


async def test_what_nobody_keeps_is_not_counted() -> None:
    intake = Intake(LIMIT)
    sender = Sender(intake, kept=False)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sender.read)
        await sender.send(50)
        assert intake.bytes == 0
        await sender.send(0, more=False)


async def test_one_that_is_late_is_not_waited_for() -> None:
    intake = Intake(LIMIT)
    sender = Sender(intake)

    async def read() -> None:
        with pytest.raises(RequestTimeout):
            await sender.read()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await sender.send(50)
        sender.fault = RequestTimeout("slow")
        await sender.send(0)
    assert intake.bytes == 0
