"""Under which keys messages go that are published together, and what becomes of each."""

from collections.abc import Sequence
from typing import Any

import anyio
import orjson
import pytest

import wakeq
from wakeq._connection import Answer, Connection
from wakeq._publisher import Message, Publisher
from wakeq._wire import Header

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


class Server(Connection):
    """Answers each request when it is let, as it is told to; at first as a server that takes everything."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1", token=None, timeout=1.0)
        self.asked: list[tuple[dict[bytes, bytes], list[Any]]] = []
        self.asked_for_window = 0
        self.looks: list[Answer] = []
        self.answers: list[Answer | wakeq.WakeqError | None] = []
        self.gate = anyio.Event()
        self.seq = 0

    async def ask(
        self, method: str, path: str, *, content: bytes = b"", headers: Sequence[Header] = (), **_: Any
    ) -> Answer:
        if method == "GET":
            self.asked_for_window += 1
            if self.looks:
                return self.looks.pop()
            return Answer(200, {}, orjson.dumps({"config": {"dedup_window_s": 600}}), path)
        said, lines = dict(headers), [orjson.loads(line) for line in content.split(b"\n")]
        self.asked.append((said, lines))
        await self.gate.wait()
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, wakeq.WakeqError):
            raise answer
        return answer or self._taken(said, lines)

    def _taken(self, said: dict[bytes, bytes], lines: list[Any]) -> Answer:
        first, self.seq = self.seq + 1, self.seq + len(lines)
        if b"prefer" in said:
            results = [{"seq": seq, "duplicate": False} for seq in range(first, self.seq + 1)]
            return Answer(200, {}, orjson.dumps({"results": results}), "")
        if said[b"content-type"] == b"application/x-ndjson":
            return Answer(200, {}, orjson.dumps({"first_seq": first, "last_seq": self.seq}), "")
        return Answer(200, {b"wakeq-seq": b"%d" % first}, b"null", "")

    async def all_wait(self) -> None:
        await anyio.wait_all_tasks_blocked()

    async def let(self) -> None:
        """Answer what has been asked, and wait until nothing else goes on."""
        gate, self.gate = self.gate, anyio.Event()
        gate.set()
        await anyio.wait_all_tasks_blocked()


def refused(status: int, code: str) -> Answer:
    return Answer(status, {}, orjson.dumps({"code": code, "detail": "line 2: no"}), "")


class Callers:
    """Each publishes its number."""

    def __init__(self, server: Server, tasks: Any) -> None:
        self.lane = Publisher(server, "t", jitter=lambda: 0.0)
        self.outcomes: dict[int, int | str] = {}
        self.scopes: dict[int, anyio.CancelScope] = {}
        self._tasks = tasks

    async def publish(self, *numbers: int, is_free: bool = True) -> None:
        for number in numbers:
            self._tasks.start_soon(self._one, number, is_free)
            # trio starts tasks in any order.
            await anyio.wait_all_tasks_blocked()

    async def _one(self, number: int, is_free: bool) -> None:
        key = f"k{number}"
        message = Message(number, [(b"idempotency-key", key.encode())], lambda: {"id": key}, is_free=is_free)
        message.patience_s = 60.0
        with anyio.CancelScope() as self.scopes[number]:
            try:
                await self.lane.submit(message)
                self.outcomes[number] = message.result.first_seq
            except wakeq.WakeqError as error:
                self.outcomes[number] = error.code or type(error).__name__


def keys(asked: tuple[dict[bytes, bytes], list[Any]]) -> list[str]:
    said, lines = asked
    return [said[b"idempotency-key"].decode()] if b"idempotency-key" in said else [line["id"] for line in lines]


async def test_those_that_say_nothing_but_their_bodies_share_a_key() -> None:
    server = Server()
    async with anyio.create_task_group() as tasks:
        callers = Callers(server, tasks)
        await callers.publish(1, 2, 3)
        await server.let()
        await server.let()
    assert [lines for _, lines in server.asked] == [[1], [2, 3]]
    assert keys(server.asked[0]) == ["k1"]
    (shared,) = keys(server.asked[1])
    assert len(shared) == 32
    assert callers.outcomes == {1: 1, 2: 2, 3: 3}


async def test_who_has_a_key_of_its_own_keeps_it() -> None:
    server = Server()
    async with anyio.create_task_group() as tasks:
        callers = Callers(server, tasks)
        await callers.publish(1, 2)
        await callers.publish(3, is_free=False)
        await server.let()
        await server.let()
    assert keys(server.asked[1]) == ["k2", "k3"]
    assert callers.outcomes == {1: 1, 2: 2, 3: 3}


@pytest.mark.parametrize(
    ("status", "code"), [(422, "INVALID_MESSAGE"), (429, "TOPIC_FULL"), (413, "MESSAGE_TOO_LARGE")]
)
async def test_where_one_is_refused_each_hears_for_itself(status: int, code: str) -> None:
    server = Server()
    results = {"results": [{"seq": 2}, {"code": code, "detail": "no"}]}
    server.answers = [None, refused(status, code), Answer(200, {}, orjson.dumps(results), "")]
    async with anyio.create_task_group() as tasks:
        callers = Callers(server, tasks)
        await callers.publish(1, 2, 3)
        for _ in range(3):
            await server.let()
    assert keys(server.asked[2]) == ["k2", "k3"]
    assert callers.outcomes == {1: 1, 2: 2, 3: code}


async def test_without_an_answer_they_go_again_as_they_went() -> None:
    server = Server()
    server.answers = [None, wakeq.ServerUnavailable("lost")]
    async with anyio.create_task_group() as tasks:
        callers = Callers(server, tasks)
        await callers.publish(1, 2, 3)
        await server.let()
        # Comes in between, and leaves again: what the server may have is not his to change.
        await callers.publish(4)
        callers.scopes[3].cancel()
        for _ in range(3):
            await server.let()
    assert [lines for _, lines in server.asked] == [[1], [2, 3], [2, 3], [4]]
    assert keys(server.asked[1]) == keys(server.asked[2])
    assert callers.outcomes == {1: 1, 2: 2, 4: 4}


async def test_they_go_again_as_they_went_when_the_leader_is_cancelled() -> None:
    server = Server()
    async with anyio.create_task_group() as tasks:
        callers = Callers(server, tasks)
        await callers.publish(1, 2, 3)
        await server.let()
        callers.scopes[2].cancel()
        await server.all_wait()
        await server.let()
    assert [lines for _, lines in server.asked] == [[1], [2, 3], [2, 3]]
    assert keys(server.asked[1]) == keys(server.asked[2])
    assert callers.outcomes == {1: 1, 3: 3}
    # They may have been enqueued, so whether their key is still known matters.
    assert server.asked_for_window == 1


@pytest.mark.parametrize("was_sent", [True, False])
def test_what_was_sent_once_is_not_said_to_have_never_been_sent(was_sent: bool) -> None:
    message = Message(1, [], dict)
    if was_sent:
        message.sent(1.0)
    unsent = wakeq.ServerUnavailable("refused")
    unsent.may_have_happened = False
    message.end(unsent)
    assert unsent.may_have_happened is was_sent


async def test_a_refused_look_at_the_topic_is_nobodys_refusal() -> None:
    server = Server()
    server.answers = [None, wakeq.ServerUnavailable("lost")]
    server.looks = [refused(413, "BODY_TOO_LARGE")]
    async with anyio.create_task_group() as tasks:
        callers = Callers(server, tasks)
        await callers.publish(1, 2, 3)
        for _ in range(3):
            await server.let()
        await callers.publish(4)
        await server.let()
    assert [lines for _, lines in server.asked] == [[1], [2, 3], [2, 3], [4]]
    assert keys(server.asked[1]) == keys(server.asked[2])
    assert callers.outcomes == {1: 1, 2: 2, 3: 3, 4: 4}


async def test_what_the_server_has_not_begun_with_may_go_with_others() -> None:
    server = Server()
    unsent = wakeq.ServerUnavailable("refused")
    unsent.may_have_happened = False
    server.answers = [None, unsent, wakeq.Draining("soon")]
    async with anyio.create_task_group() as tasks:
        callers = Callers(server, tasks)
        await callers.publish(1, 2, 3)
        await server.let()
        await callers.publish(4)
        await server.let()
        await callers.publish(5)
        await server.let()
        await server.let()
    assert [lines for _, lines in server.asked] == [[1], [2, 3], [2, 3, 4], [2, 3, 4, 5]]
    assert len({keys(asked)[0] for asked in server.asked}) == 4
    assert callers.outcomes == {1: 1, 2: 2, 3: 3, 4: 4, 5: 5}


async def test_what_went_under_its_own_key_never_goes_under_another() -> None:
    server = Server()
    server.answers = [wakeq.ServerUnavailable("lost")]
    async with anyio.create_task_group() as tasks:
        callers = Callers(server, tasks)
        await callers.publish(1, 2, 3)
        await server.let()
        await server.let()
    assert [keys(asked) for asked in server.asked] == [["k1"], ["k1", "k2", "k3"]]
    assert callers.outcomes == {1: 1, 2: 2, 3: 3}


async def test_what_is_refused_the_second_time_goes_in_no_other_way() -> None:
    server = Server()
    server.answers = [None, wakeq.ServerUnavailable("lost"), refused(422, "INVALID_MESSAGE")]
    async with anyio.create_task_group() as tasks:
        callers = Callers(server, tasks)
        await callers.publish(1, 2, 3)
        for _ in range(3):
            await server.let()
        await callers.publish(4)
        await server.let()
    assert len(server.asked) == 4
    assert callers.outcomes == {1: 1, 2: "INVALID_MESSAGE", 3: "INVALID_MESSAGE", 4: 2}


async def test_how_long_keys_are_remembered_is_asked_anew_another_time() -> None:
    server = Server()
    server.answers = [wakeq.ServerUnavailable("lost"), None, None, wakeq.ServerUnavailable("lost")]
    async with anyio.create_task_group() as tasks:
        callers = Callers(server, tasks)
        for number in (1, 2, 3):
            await callers.publish(number)
            await server.let()
            await server.let()
    assert callers.outcomes == {1: 1, 2: 2, 3: 3}
    assert server.asked_for_window == 2
