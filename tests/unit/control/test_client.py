"""wakeq.AsyncControlPlane and the control plane behind it, on a clock that jumps, over a wire that breaks."""

import gc
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import httpx
import pytest
from anyio import wait_all_tasks_blocked

import wakeq
from tests.support.clock import virtual_trio
from tests.support.control import ControlWorld, Wire, control_world
from wakeq_control.app import build_app
from wakeq_control.http.services import About
from wakeq_control.model import Service
from wakeq_control.plane import End, Said
from wakeq_control.settings import Settings
from wakeq_control.streams import Event

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return virtual_trio()


@pytest.fixture
async def world() -> AsyncIterator[ControlWorld]:
    async with control_world() as world:
        yield world


async def task(client: wakeq.AsyncControlPlane, **more: Any) -> tuple[str, str]:
    session = await client.create_session()
    return session, await client.create_task(session, "wf", {"n": 1}, **more)


class Beside:
    """Something that runs beside the test, and its outcome."""

    def __init__(self, tasks: anyio.abc.TaskGroup, work: Callable[[], Any]) -> None:
        self.outcome: Any = None
        self.ended = anyio.Event()
        self.scope = anyio.CancelScope()
        self._work = work
        tasks.start_soon(self._run)

    async def _run(self) -> None:
        with self.scope:
            try:
                self.outcome = await self._work()
            except wakeq.WakeqError as error:
                self.outcome = error
        self.ended.set()


# Tasks


async def test_a_task_whose_answer_was_lost_is_one_task(world: ControlWorld) -> None:
    client = await world.client()
    session = await client.create_session()
    world.wire.lose_answers = 2
    created = await client.create_task(session, "wf")
    assert len(world.wire.asked("POST", "/tasks")) == 3
    assert [one.id for one in await client.tasks(session)] == [created]


async def test_whoever_has_no_patience_is_told_at_once(world: ControlWorld) -> None:
    client = await world.client(retry_s=0)
    session, task_id = await task(client)
    world.wire.is_down = True
    before = anyio.current_time()
    for ask in (lambda: client.create_task(session, "wf"), lambda: client.wait(session, task_id)):
        with pytest.raises(wakeq.ServerUnavailable):
            await ask()
    with pytest.raises(wakeq.ServerUnavailable):
        await anext(client.events(session, task_id))
    assert anyio.current_time() == before


async def test_patience_ends(world: ControlWorld) -> None:
    client = await world.client(retry_s=30)
    session, task_id = await task(client)
    world.wire.is_down = True
    before = anyio.current_time()
    with pytest.raises(wakeq.ServerUnavailable):
        await client.result(session, task_id)
    with pytest.raises(wakeq.ServerUnavailable):
        await anext(client.events(session, task_id))
    assert 20 < anyio.current_time() - before < 60


async def test_a_wait_is_a_request_that_is_held(world: ControlWorld) -> None:
    client = await world.client()
    session, task_id = await task(client)
    before = anyio.current_time()
    standing = await client.wait(session, task_id, wait_s=150)
    assert (standing.status, standing.ended, standing.result) == ("queued", False, None)
    assert anyio.current_time() - before == pytest.approx(150)
    assert len(world.wire.asked("GET", task_id)) == 3
    assert (await client.wait(session, task_id, wait_s=0)).status == "queued"


async def test_a_wait_is_over_when_the_task_is(world: ControlWorld) -> None:
    client = await world.client()
    session, task_id = await task(client)
    async with anyio.create_task_group() as tasks:
        waiting = Beside(tasks, lambda: client.result(session, task_id))
        await wait_all_tasks_blocked()
        before = anyio.current_time()
        await world.end(task_id)
        await waiting.ended.wait()
    assert waiting.outcome == "done"
    assert anyio.current_time() == before
    assert len(world.wire.asked("GET", task_id)) == 1


async def test_a_wait_outlives_a_restart(world: ControlWorld) -> None:
    client = await world.client()
    session, task_id = await task(client)
    async with anyio.create_task_group() as tasks:
        waiting = Beside(tasks, lambda: client.result(session, task_id))
        await wait_all_tasks_blocked()
        world.app.lot.stop()
        await anyio.sleep(20)
        world.app.lot.stopping = False
        await world.end(task_id)
        await waiting.ended.wait()
    assert waiting.outcome == "done"


async def test_a_wait_for_a_task_that_goes_is_told(world: ControlWorld) -> None:
    client = await world.client()
    for wait_s in (1, 40):
        session, task_id = await task(client)
        async with anyio.create_task_group() as tasks:
            waiting = Beside(tasks, lambda: client.result(session, task_id))  # noqa: B023  it ends within the loop
            await anyio.sleep(wait_s)
            await client.delete_session(session)
            await waiting.ended.wait()
        assert isinstance(waiting.outcome, wakeq.SessionNotFound)


@pytest.mark.parametrize(
    ("end", "error", "code"),
    [
        (lambda world, session, task_id: world.end(task_id, "no", "ValueError: no"), wakeq.TaskFailed, "TASK_FAILED"),
        (
            lambda world, session, task_id: world.engine.cancel(session, task_id),
            wakeq.TaskCancelled,
            "TASK_CANCELLED",
        ),
        (lambda world, session, task_id: anyio.sleep(7), wakeq.TaskTimedOut, "TASK_TIMED_OUT"),
    ],
    ids=["failed", "cancelled", "timed_out"],
)
async def test_a_task_that_has_not_succeeded_is_an_error(
    world: ControlWorld, end: Any, error: type[wakeq.TaskFailed], code: str
) -> None:
    client = await world.client()
    session, task_id = await task(client, timeout_s=7)
    await end(world, session, task_id)
    with pytest.raises(error) as raised:
        await client.result(session, task_id)
    assert type(raised.value) is error
    assert (raised.value.code, raised.value.status, raised.value.task.id) == (code, None, task_id)
    assert raised.value.detail == raised.value.task.error
    assert raised.value.task.timeout_s == 7


async def test_a_service_is_waited_for_as_long_as_the_caller_likes(world: ControlWorld) -> None:
    client = await world.client()
    session = await client.create_session()
    for wait_s, waits in ((0, 0), (5, 5), (600, 100)):
        before = anyio.current_time()
        with pytest.raises(wakeq.ServiceNotFound, match="there are: wf"):
            await client.create_task(session, "none", service_wait_s=wait_s)
        assert anyio.current_time() - before == pytest.approx(waits)
    with pytest.raises(wakeq.BadRequest, match="wait"):
        await client.create_task(session, "none", service_wait_s=601)


async def test_what_a_service_does_not_take_is_refused(world: ControlWorld) -> None:
    client = await world.client()
    session = await client.create_session()
    with pytest.raises(wakeq.InvalidArguments, match="n: 'one' is not of type 'integer'"):
        await client.create_task(session, "wf", {"n": "one"})
    with pytest.raises(TypeError, match="arguments: set has no JSON form"):
        await client.create_task(session, "wf", {"n": {1}})
    with pytest.raises(wakeq.InvalidBody, match="task_id"):
        await client.create_task(session, "wf", task_id="a/b")
    await client.create_task(session, "wf", task_id="T")
    with pytest.raises(wakeq.TaskConflict):
        await client.create_task(session, "wf", {"n": 2}, task_id="T")


async def test_run_leaves_nothing_behind(world: ControlWorld) -> None:
    client = await world.client()
    async with anyio.create_task_group() as tasks:
        running = Beside(tasks, lambda: client.run("wf", task_id="T"))
        await wait_all_tasks_blocked()
        await world.end("T", "first")
        await running.ended.wait()
        assert running.outcome == "first"
        given_up = Beside(tasks, lambda: client.run("wf", task_id="T"))
        await wait_all_tasks_blocked()
        assert len([session async for session in client.sessions()]) == 1
        given_up.scope.cancel()
        await given_up.ended.wait()
    assert [session async for session in client.sessions()] == []


async def test_a_run_that_is_given_up_is_cancelled_in_its_session(world: ControlWorld) -> None:
    client = await world.client()
    session = await client.create_session()
    async with anyio.create_task_group() as tasks:
        running = Beside(tasks, lambda: client.run("wf", session_id=session, task_id="T"))
        await wait_all_tasks_blocked()
        running.scope.cancel()
        await running.ended.wait()
    assert (await client.task(session, "T")).status == "cancelled"


async def test_a_run_is_one_request_and_goes_on_where_that_is_not_enough(world: ControlWorld) -> None:
    client = await world.client()
    session = await client.create_session()
    async with anyio.create_task_group() as tasks:
        quick = Beside(tasks, lambda: client.run("wf", session_id=session, task_id="quick"))
        await wait_all_tasks_blocked()
        await world.end("quick")
        await quick.ended.wait()
        assert len(world.wire.requests) == 2
        long = Beside(tasks, lambda: client.run("wf", session_id=session, task_id="long"))
        await anyio.sleep(300)
        await world.end("long")
        await long.ended.wait()
        cut = Beside(tasks, lambda: client.run("wf", session_id=session, task_id="cut"))
        await anyio.sleep(20)
        world.wire.cut()
        await anyio.sleep(20)
        await world.end("cut")
        await cut.ended.wait()
    assert (quick.outcome, long.outcome, cut.outcome) == ("done", "done", "done")
    assert len(world.wire.asked("POST", "/tasks")) == 4
    assert [one.id for one in await client.tasks(session)] == ["quick", "long", "cut"]


async def test_an_event_reaches_the_task(world: ControlWorld) -> None:
    client = await world.client()
    session, task_id = await task(client)
    assert (await client.send_event(session, task_id, {"response": "Ann"})).id == task_id
    (message,) = [one for one in world.engine.unsent() if one.body["action"] == "send_event"]
    assert message.body["data"]["input"] == '{"response":"Ann"}'
    with pytest.raises(wakeq.TaskNotFound):
        await client.send_event(session, "none", 1)
    with pytest.raises(TypeError, match="event: set has no JSON form"):
        await client.send_event(session, task_id, {1})


# Sessions and services


async def test_sessions_have_states(world: ControlWorld) -> None:
    client = await world.client()
    session, task_id = await task(client)
    assert await client.session_state(session) == wakeq.SessionState({}, 0)
    assert await client.update_session_state(session, {"a": 1}) == 1
    assert await client.session_state(session) == wakeq.SessionState({"a": 1}, 1)
    shown = await client.session(session)
    assert (shown.id, shown.tasks, shown.unfinished_tasks, shown.version) == (session, 1, 1, 1)
    assert shown.state_bytes == len('{"a":1}')
    assert [found async for found in client.sessions()] == [shown]
    await world.end(task_id)
    assert (await client.session(session)).unfinished_tasks == 0
    await client.delete_session(session)
    await client.delete_session(session)
    with pytest.raises(wakeq.SessionNotFound):
        await client.session(session)


async def test_services_are_shown(world: ControlWorld) -> None:
    client = await world.client()
    (service,) = await client.services()
    assert (service.name, service.state, service.consumers, service.is_worker) == ("wf", "unknown", (), False)
    assert (service.retry["max_attempts"], service.max_concurrent_tasks) == (1, None)
    world.engine.registry.present_are([("wf", "me")])
    service = await client.service("wf")
    assert (service.state, service.consumers) == ("up", ("me",))
    with pytest.raises(wakeq.ServiceNotFound, match="no service 'w' is registered; there are: wf"):
        await client.service("w")


async def test_replicas_are_shown_with_what_they_have_of_a_task(world: ControlWorld) -> None:
    client = await world.client()
    await world.engine.register(Service("all", "d", [], None, None, is_worker=True, delivery="all"))
    world.engine.consumers_are([("all/a", "me"), ("all/b", "you")])
    session = await client.create_session()
    task_id = await client.create_task(session, "all", {})
    service = await client.service("all")
    assert (service.delivery, service.state, service.consumers) == ("all", "up", ("me", "you"))
    assert service.replicas == (wakeq.ServiceReplica("a", "up", 1), wakeq.ServiceReplica("b", "up", 1))
    link = world.engine.links.open("w", 1)
    for number in range(2):
        run = f"{task_id}/{number}"
        world.engine.begin_attempt(link, number, session, run, None)
        said = {"task_id": run, "history": [], "result": f"by {number}", "data": {}}
        events = [Event.make(0, {"n": number})]
        end = End(said, None if number else "E: no")
        world.engine.hear_attempt(link, number, Said(session, run, 1, events, end))
    task = await client.wait(session, task_id)
    assert (task.status, task.delivery, task.events) == ("failed", "all", 2)
    assert task.error == "1 of 2 replicas failed: a: E: no"
    shown = [(one.replica, one.status, one.attempt, one.worker, one.error, one.result) for one in task.replicas]
    assert shown == [("a", "failed", 1, "w", "E: no", "by 0"), ("b", "succeeded", 1, "w", None, "by 1")]
    assert [one.finished_at is not None for one in task.replicas] == [True, True]
    async with client.events(session, task_id) as coming:
        assert [(event.index, event.data["n"]) async for event in coming] == [(0, 0), (1, 1)]
        assert coming.end is not None
        assert len(coming.end.replicas) == 2
    assert [one.id for one in await client.tasks(session)] == [task_id]
    # A run is nobody's to look at or end.
    with pytest.raises(wakeq.WakeqError):
        await client.task(session, f"{task_id}/0")


async def test_what_an_earlier_control_plane_does_not_say_is_what_it_did(world: ControlWorld) -> None:
    client = await world.client()
    session, task_id = await task(client)
    found, service = await client.task(session, task_id), await client.service("wf")
    for info in (found, service):
        wire = {name: value for name, value in info.raw.items() if name not in ("delivery", "replicas")}
        assert type(info).from_wire(wire) == info


# Events


async def test_events_come_and_end_with_the_task(world: ControlWorld) -> None:
    client = await world.client()
    session, task_id = await task(client)
    await world.emit(session, task_id, 0)
    async with client.events(session, task_id) as events:
        assert await anext(events) == wakeq.TaskEvent(0, {"n": 0})
        async with anyio.create_task_group() as tasks:
            following = Beside(tasks, events.__anext__)
            await wait_all_tasks_blocked()
            assert not following.ended.is_set()
            await world.emit(session, task_id, 1)
            await following.ended.wait()
        assert following.outcome.index == 1
        await world.emit(session, task_id, 2)
        await world.end(task_id, "no", "ValueError: no")
        await wait_all_tasks_blocked()
        assert events.end is None
        assert [event.index async for event in events] == [2]
        assert events.end is not None
        assert (events.end.status, events.end.error, events.end.events) == ("failed", "ValueError: no", 3)
        with pytest.raises(StopAsyncIteration):
            await anext(events)
    assert world.wire.open == 0


async def test_a_stream_that_breaks_goes_on_where_it_was(world: ControlWorld) -> None:
    client = await world.client()
    session, task_id = await task(client)
    events = client.events(session, task_id)
    for index in range(5):
        await world.emit(session, task_id, index)
        assert (await anext(events)).index == index
        world.wire.cut()
    await world.emit(session, task_id, 5, 6)
    await world.end(task_id)
    assert [event.index async for event in events] == [5, 6]
    seen = [request.headers.get("last-event-id") for request in world.wire.asked("GET", "/result_stream")]
    assert seen == [None, "0", "1", "2", "3", "4"]


async def test_a_stream_outlives_a_restart(world: ControlWorld) -> None:
    client = await world.client()
    session, task_id = await task(client)
    events = client.events(session, task_id)
    await world.emit(session, task_id, 0)
    assert (await anext(events)).index == 0
    world.app.lot.stop()
    async with anyio.create_task_group() as tasks:
        following = Beside(tasks, events.__anext__)
        await anyio.sleep(20)
        world.app.lot.stopping = False
        await world.emit(session, task_id, 1)
        await following.ended.wait()
    assert following.outcome.index == 1


async def test_events_begin_behind_the_one_that_is_named(world: ControlWorld) -> None:
    client = await world.client()
    session, task_id = await task(client)
    # The third is lost for good.
    await world.emit(session, task_id, 0, 1, 3, 4)
    await world.end(task_id)
    for after, expected in ((None, [0, 1, 3, 4]), (0, [1, 3, 4]), (2, [3, 4]), (3, [4]), (4, []), (99, [])):
        assert [event.index async for event in client.events(session, task_id, after=after)] == expected


async def test_silence_is_no_end(world: ControlWorld) -> None:
    client = await world.client()
    session, task_id = await task(client)
    events = client.events(session, task_id)
    async with anyio.create_task_group() as tasks:
        following = Beside(tasks, events.__anext__)
        await anyio.sleep(1000)
        await world.emit(session, task_id, 0)
        await following.ended.wait()
    assert following.outcome.index == 0
    assert len(world.wire.asked("GET", "/result_stream")) == 1


@pytest.mark.parametrize("begun", [False, True])
async def test_a_watcher_is_told_that_its_task_is_gone(world: ControlWorld, begun: bool) -> None:
    client = await world.client()
    session, task_id = await task(client)
    events = client.events(session, task_id)
    if begun:
        await world.emit(session, task_id, 0)
        assert (await anext(events)).index == 0
    await client.delete_session(session)
    with pytest.raises(wakeq.SessionNotFound):
        await anext(events)
    with pytest.raises(wakeq.TaskNotFound):
        await anext(client.events(await client.create_session(), task_id))


async def test_who_reads_slowly_is_not_sent_everything(world: ControlWorld) -> None:
    client = await world.client()
    session, task_id = await task(client)
    events = client.events(session, task_id)
    await world.emit(session, task_id, 0)
    assert (await anext(events)).index == 0
    for first in range(1, 10_001, 100):
        await world.emit(session, task_id, *range(first, first + 100))
        await wait_all_tasks_blocked()
    assert 1_000 <= len(events._feed.ready) <= 1_200
    await world.end(task_id)
    assert [event.index async for event in events] == list(range(1, 10_001))


async def test_who_stops_watching_leaves_no_stream(world: ControlWorld) -> None:
    client = await world.client()
    session, task_id = await task(client)
    await world.emit(session, task_id, 0, 1)
    async for event in client.events(session, task_id):
        assert event.index == 0
        break
    gc.collect()
    await wait_all_tasks_blocked()
    assert world.wire.open == 0
    async with client.events(session, task_id) as events:
        assert (await anext(events)).index == 0
    await wait_all_tasks_blocked()
    assert world.wire.open == 0
    assert [event async for event in events] == []


async def test_an_unused_client_watches_nothing() -> None:
    client = wakeq.AsyncControlPlane("http://127.0.0.1:1")
    with pytest.raises(RuntimeError, match="context manager"):
        client.events("s", "t")


async def test_an_id_that_is_none_is_refused(world: ControlWorld) -> None:
    client = await world.client()
    session, task_id = await task(client)
    for bad in (b"-1", b"x", b"1" * 16, b"\xb2"):
        path = f"/sessions/{session}/tasks/{task_id}/result_stream"
        headers = [(b"accept", b"text/event-stream"), (b"last-event-id", bad)]
        with pytest.raises(wakeq.BadRequest, match="Last-Event-ID"):
            async with client._connection.stream(path, headers, 5):
                pass


async def test_services_elsewhere_are_told_the_name_that_they_used(world: ControlWorld) -> None:
    about = About("0.0.0.0", 1, "http://0.0.0.0:8001", "llama_deploy", "0")
    app = build_app(world.engine, Settings(host="0.0.0.0", durability="memory"), about)
    async with anyio.create_task_group() as tasks:
        wire = Wire(app, tasks)
        for asked, told in (("queue.example:8000", "queue.example"), ("[fd00::1]:8000", "fd00::1")):
            response = await wire.handle_async_request(httpx.Request("GET", f"http://{asked}/queue_config"))
            config = json.loads(await response.aread())["SimpleMessageQueueConfig"]
            await response.aclose()
            assert (config["host"], config["port"]) == (told, 8001)
        tasks.cancel_scope.cancel()
