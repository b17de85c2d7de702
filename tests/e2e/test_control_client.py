"""wakeq.AsyncControlPlane and wakeq.ControlPlane against real servers and workers."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest
from workflows.events import HumanResponseEvent

import wakeq
from tests.support.relay import relay
from tests.support.server import ServerProcess, start_control_plane, start_server, start_up, start_worker

PATIENCE_S = 20.0
FLOWS = "tests.e2e.worker_flows"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with (
        start_up(tmp_path_factory.mktemp("data")) as server,
        start_worker(server, f"{FLOWS}:echo"),
        start_worker(server, f"{FLOWS}:asking", "--service", "asking"),
        start_worker(server, f"{FLOWS}:flow", "--service", "flow"),
    ):
        yield server


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.mark.anyio
async def test_a_task_from_its_arguments_to_its_result(server: ServerProcess) -> None:
    with anyio.fail_after(PATIENCE_S):
        async with wakeq.AsyncControlPlane(server.url) as control:
            session = await control.create_session()
            task = await control.create_task(session, "asking")
            said = []
            async with control.events(session, task) as events:
                async for event in events:
                    said.append(event.data)
                    await control.send_event(session, task, f"answer {event.index}")
            assert said == [{"prefix": "question 0"}, {"prefix": "question 1"}]
            assert events.end is not None
            assert events.end.result == await control.result(session, task) == "answers: ['answer 0', 'answer 1']"
            services = {service.name: service for service in await control.services()}
            assert {"wf", "asking", "flow"} == set(services)
            assert all(service.state == "up" and len(service.consumers) == 1 for service in services.values())
            with pytest.raises(wakeq.InvalidArguments, match=r"Did you mean 'user_msg'\?"):
                await control.run("wf", {"resume": 1})
            assert [found.id async for found in control.sessions()] == [session]
            await control.delete_session(session)


@pytest.mark.anyio
async def test_an_event_of_a_workflow_goes_as_itself(server: ServerProcess) -> None:
    with anyio.fail_after(PATIENCE_S):
        async with wakeq.AsyncControlPlane(server.url) as control:
            session = await control.create_session()
            task = await control.create_task(session, "flow", {"user_msg": "hello", "ask": True})
            async for event in control.events(session, task):
                if event.index == 0:
                    await control.send_event(session, task, HumanResponseEvent(response="Ann"))
            assert await control.result(session, task) == "answer: Ann"
            await control.delete_session(session)


@pytest.mark.anyio
async def test_of_two_workflows_at_a_time_one_leaves_its_context(server: ServerProcess) -> None:
    with anyio.fail_after(PATIENCE_S):
        async with wakeq.AsyncControlPlane(server.url) as control:
            session = await control.create_session()
            tasks = [await control.create_task(session, "flow", {"user_msg": "hello", "ask": True}) for _ in range(2)]
            for task in tasks:
                # Both have begun when either ends.
                await anext(aiter(control.events(session, task)))
            for task in tasks:
                await control.send_event(session, task, HumanResponseEvent(response="Ann"))
                assert await control.result(session, task) == "answer: Ann"
            first, second = [await control.task(session, task) for task in tasks]
            assert first.context_error is None
            assert second.context_error is not None
            assert second.context_error.startswith("STATE_CONFLICT: ")
            assert await control.run("flow", {"user_msg": "on"}, session_id=session) == "echo: on, run 2"
            assert (await control.session_state(session)).version == 2
            await control.delete_session(session)


@pytest.mark.anyio
async def test_watching_goes_on_where_the_line_broke(server: ServerProcess) -> None:
    async with relay(server.port) as line, wakeq.AsyncControlPlane(line.url) as control:
        with anyio.fail_after(PATIENCE_S):
            session = await control.create_session()
            task = await control.create_task(session, "asking")
            indices = []
            async for event in control.events(session, task):
                indices.append(event.index)
                line.cut()
                async with wakeq.AsyncControlPlane(server.url) as direct:
                    await direct.send_event(session, task, "go on")
            assert indices == [0, 1]
            line.cut()
            assert (await control.result(session, task)).startswith("answers: ")
            await control.delete_session(session)


@pytest.mark.anyio
async def test_a_task_whose_answer_the_line_lost_is_one_task(server: ServerProcess) -> None:
    async with relay(server.port) as line, wakeq.AsyncControlPlane(line.url) as control:
        with anyio.fail_after(PATIENCE_S):
            session = await control.create_session()
            line.lose_answers = True
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(control.create_task, session, "wf", {"user_msg": "once"})
                await line.lost.wait()
                line.lose_answers = False
            (task,) = await control.tasks(session)
            assert await control.result(session, task.id) == "echo: once"
            await control.delete_session(session)


def test_threads_share_a_client(server: ServerProcess) -> None:
    with wakeq.ControlPlane(server.url) as control, ThreadPoolExecutor(8) as threads:
        session = control.create_session()
        results = threads.map(lambda n: control.run("wf", {"user_msg": str(n)}, session_id=session), range(40))
        assert list(results) == [f"echo: {n}" for n in range(40)]
        task = control.create_task(session, "wf", {"user_msg": "last", "events": 5})
        with control.events(session, task) as events:
            assert [event.data for event in events] == [{"n": n} for n in range(5)]
            assert events.end is not None
        assert control.wait(session, task, wait_s=0).status == "succeeded"
        control.delete_session(session)


def test_a_control_plane_that_is_killed_is_waited_for(tmp_path: Path) -> None:
    with (
        start_server(tmp_path / "queue", durability="os") as queue,
        start_control_plane(queue, tmp_path / "control") as first,
        start_worker(first, f"{FLOWS}:asking"),
        wakeq.ControlPlane(first.url) as control,
        ThreadPoolExecutor() as threads,
    ):
        session = control.create_session()
        task = control.create_task(session, "wf")
        events = control.events(session, task)
        assert next(events).data == {"prefix": "question 0"}
        result = threads.submit(control.result, session, task)
        first.kill()
        with start_control_plane(queue, tmp_path / "control", port=first.port):
            control.send_event(session, task, "one")
            assert next(events).data == {"prefix": "question 1"}
            control.send_event(session, task, "two")
            assert list(events) == []
            assert result.result(PATIENCE_S) == "answers: ['one', 'two']"
