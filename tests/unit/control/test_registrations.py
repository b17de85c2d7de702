"""What workers say of their service and ask of their tasks, on a clock that jumps."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from anyio import wait_all_tasks_blocked

import wakeq
from tests.support.clock import virtual_trio
from tests.support.control import ControlWorld, control_world
from wakeq._connection import Connection
from wakeq_control.errors import StartupError
from wakeq_control.service.control import ControlPlane
from wakeq_control.service.link import Link
from wakeq_control.service.registering import Registration

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return virtual_trio()


@pytest.fixture
async def world() -> AsyncIterator[ControlWorld]:
    async with control_world() as world:
        yield world


@asynccontextmanager
async def asked(world: ControlWorld, method: str, path: str, body: Any) -> AsyncIterator[httpx.Response]:
    request = httpx.Request(method, f"http://127.0.0.1{path}", content=json.dumps(body).encode())
    response = await world.wire.handle_async_request(request)
    try:
        yield response
    finally:
        await response.aclose()


async def said(world: ControlWorld, method: str, path: str, body: Any) -> Any:
    async with asked(world, method, path, body) as response:
        return json.loads(await response.aread())


def parts_of(response: httpx.Response) -> AsyncIterator[bytes]:
    return aiter(response.stream)  # type: ignore[arg-type]


async def shown(world: ControlWorld, name: str) -> dict[str, Any]:
    found: dict[str, Any] = await said(world, "GET", f"/v1/services/{name}", None)
    return found


async def test_what_a_registration_leaves_out_is_as_it_was_before_there_was_such_a_thing(world: ControlWorld) -> None:
    answer = await said(world, "PUT", "/v1/services/bare", {})
    assert answer == {"service": "bare", "topic_namespace": "llama_deploy"}
    service = await shown(world, "bare")
    assert service["retry"] == {"max_attempts": 1, "backoff_s": 1.0, "max_backoff_s": 60.0}
    assert (service["schema"], service["max_concurrent_tasks"], service["is_worker"]) == (None, None, True)


async def test_the_last_registration_is_shown(world: ControlWorld) -> None:
    for number in (3, 5):
        body = {"retry": {"max_attempts": number}, "max_concurrent_tasks": number}
        await said(world, "PUT", "/v1/services/one", body)
    service = await shown(world, "one")
    assert (service["retry"]["max_attempts"], service["max_concurrent_tasks"]) == (5, 5)


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "attempts": ({"retry": {"max_attempts": 0}}, "retry.max_attempts", "greater than or equal to 1"),
    "too many": ({"retry": {"max_attempts": 21}}, "retry.max_attempts", "less than or equal to 20"),
    "backoff": ({"retry": {"backoff_s": -1}}, "retry.backoff_s", "greater than or equal to 0"),
    "no number": ({"retry": {"backoff_s": float("nan")}}, "retry.backoff_s", "less than or equal to 86400"),
    "order": ({"retry": {"backoff_s": 90}}, "retry", "max_backoff_s must be at least backoff_s, which is 90"),
    "unknown": ({"retry": {"backof_s": 1}}, "retry.backof_s", "not permitted"),
    "cap": ({"max_concurrent_tasks": 0}, "max_concurrent_tasks", "greater than or equal to 1"),
    "schema": (
        {"schema": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}}},
        "schema",
        "properties.n refers to '#/$defs/n', which is no schema in it",
    ),
}


@pytest.mark.parametrize(("body", "field", "problem"), WRONG.values(), ids=WRONG)
async def test_what_is_wrong_is_named_and_nothing_is_registered(
    world: ControlWorld, body: dict[str, Any], field: str, problem: str
) -> None:
    refused = await said(world, "PUT", "/v1/services/wrong", body)
    assert refused["code"] == "INVALID_BODY"
    (one,) = refused["detail"]
    assert ".".join(one["loc"]) == f"body.{field}"
    assert problem in one["msg"]
    assert (await shown(world, "wrong"))["code"] == "SERVICE_NOT_FOUND"


UNKNOWN = {"ref": 1, "session_id": "S", "task_id": "T"}


def a_worker(world: ControlWorld, about: dict[str, Any] | None = None) -> tuple[Registration, Link]:
    control = ControlPlane(Connection("http://127.0.0.1", token=None, timeout=10.0, transport=world.wire))
    registration = Registration(control, "linked", about or {"description": "d"})
    return registration, Link(control, "me", registration)


async def test_a_worker_registers_with_each_link_before_anything_else(world: ControlWorld) -> None:
    registration, link = a_worker(world)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(link.run)
        assert await registration.namespace() == "llama_deploy"
        assert (await shown(world, "linked"))["description"] == "d"
        for number in (1, 2):
            # As if it had lost its data.
            await world.engine.deregister("linked")
            world.wire.cut()
            await wait_all_tasks_blocked()
            asked = len(world.wire.requests)
            with pytest.raises(wakeq.SessionNotFound):
                await link.say(UNKNOWN)
            again = [(one.method, one.url.path) for one in world.wire.requests[asked:]]
            assert again == [
                ("GET", f"/v1/workers/me/links/{number + 1}"),
                ("PUT", "/v1/services/linked"),
                ("POST", f"/v1/workers/me/links/{number + 1}"),
            ]
            assert (await shown(world, "linked"))["description"] == "d"
        assert world.wire.open == 1
        tasks.cancel_scope.cancel()


async def test_a_worker_waits_for_a_control_plane_that_is_away(world: ControlWorld) -> None:
    registration, link = a_worker(world)
    world.wire.is_down = True
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(link.run)
        await anyio.sleep(60.0)
        assert world.wire.asked("PUT") == []
        world.wire.is_down = False
        assert await registration.namespace() == "llama_deploy"
        tasks.cancel_scope.cancel()


async def test_who_is_refused_at_first_is_told_why() -> None:
    async with control_world(token="hush") as world:
        _, link = a_worker(world)
        with pytest.RaisesGroup(pytest.RaisesExc(StartupError, match="registering: ")) as refused:
            await link.run()
    (error,) = refused.value.exceptions
    assert isinstance(error, StartupError)
    assert error.hint == "WAKEQ_CONTROL_TOKEN, else WAKEQ_TOKEN, has the token that it is shown"


async def test_who_runs_goes_on_when_it_is_refused(world: ControlWorld) -> None:
    about: dict[str, Any] = {"description": "d"}
    registration, link = a_worker(world, about)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(link.run)
        await registration.namespace()
        about["retry"] = "broken"
        world.wire.cut()
        await anyio.sleep(60.0)
        assert len(world.wire.asked("PUT")) > 3
        about |= {"description": "new", "retry": {}}
        with pytest.raises(wakeq.SessionNotFound):
            await link.say(UNKNOWN)
        assert (await shown(world, "linked"))["description"] == "new"
        await wait_all_tasks_blocked()
        # Those without a registration are gone.
        assert world.wire.open == 1
        tasks.cancel_scope.cancel()


async def test_topics_of_another_name_end_a_worker(world: ControlWorld) -> None:
    registration, link = a_worker(world)

    async def cut_when_registered() -> None:
        await registration.namespace()
        world.app._services._about = world.app._services._about._replace(namespace="other")
        world.wire.cut()

    other = pytest.RaisesExc(StartupError, match="begin with other now, and no longer with llama_deploy")
    with pytest.RaisesGroup(other, flatten_subgroups=True):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cut_when_registered)
            await link.run()


LINK = "/v1/workers/me/links/1"


@asynccontextmanager
async def linked(world: ControlWorld) -> AsyncIterator[AsyncIterator[bytes]]:
    """What is told over an open link."""
    async with asked(world, "GET", LINK, None) as response:
        yield parts_of(response)


async def begin(world: ControlWorld, session: str, task: str, **about: Any) -> dict[str, Any]:
    """The answer to an attempt that is begun."""
    word = {"ref": 1, "session_id": session, "task_id": task, **about}
    (answer,) = (await said(world, "POST", LINK, {"words": [word]}))["answers"]
    assert isinstance(answer, dict)
    return answer


async def test_a_task_that_is_gone_was_deleted_where_it_was_this_control_plane_s(world: ControlWorld) -> None:
    own = world.engine.publisher
    client = await world.client()
    session = await client.create_session()
    async with linked(world):
        for where in ("nowhere", session):
            code = "TASK_NOT_FOUND" if where == session else "SESSION_NOT_FOUND"
            abouts: list[dict[str, Any]] = [{}, {"events": []}]
            for about in abouts:
                assert await begin(world, where, "T", publisher=own, retries=0, **about) == {"ended": "deleted"}
                for other in ({}, {"publisher": "ControlPlaneServer-other", "retries": 0}):
                    assert (await begin(world, where, "T", **other, **about))["code"] == code


async def test_whoever_works_on_a_task_is_told_that_it_is_deleted(world: ControlWorld) -> None:
    client = await world.client()
    session = await client.create_session()
    task = await client.create_task(session, "wf", {})
    async with linked(world) as parts:
        begun = await begin(world, session, task, publisher="ControlPlaneServer-other")
        assert begun == {"attempt": 1, "context": None, "inputs": []}
        await client.delete_session(session)
        assert json.loads(await anext(parts)) == {"ref": 1, "ended": "deleted"}


async def test_an_attempt_that_has_failed_is_told_that_another_follows(world: ControlWorld) -> None:
    await said(world, "PUT", "/v1/services/worker", {"retry": {"max_attempts": 2}})
    client = await world.client()
    session = await client.create_session()
    task = await client.create_task(session, "worker", {})
    async with linked(world):
        assert (await begin(world, session, task, retries=0))["attempt"] == 1
        end = {"events": [], "end": {"result": "no", "error": "E: no", "retryable": True}}
        assert await begin(world, session, task, attempt=1, **end) == {}
        # The same once more, by a message that comes again, and by an attempt that goes on.
        assert await begin(world, session, task, attempt=1, **end) == {"ended": "retried"}
        assert await begin(world, session, task, retries=0) == {"ended": "retried"}
        assert await begin(world, session, task, attempt=1, retries=0) == {"ended": "retried"}
    info = await client.task(session, task)
    assert (info.status, info.attempt, info.worker) == ("queued", 2, None)
    assert [(one.attempt, one.worker, one.error) for one in info.failures] == [(1, "me", "E: no")]
    assert info.retry_at is not None
    assert 0.5 <= (info.retry_at - info.failures[0].failed_at).total_seconds() <= 1.0


async def test_a_link_that_is_not_open_hears_nothing(world: ControlWorld) -> None:
    assert (await said(world, "POST", LINK, {"words": []}))["code"] == "NOT_FOUND"
    async with linked(world):
        assert await said(world, "POST", LINK, {"words": []}) == {"answers": []}
        # One that can't be understood leaves the others alone.
        wrong = await said(world, "POST", LINK, {"words": [{"ref": 1}, {"ref": -1}, 3]})
        assert [one["code"] for one in wrong["answers"]] == ["INVALID_BODY"] * 3
        assert (await said(world, "POST", LINK, {"said": []}))["code"] == "INVALID_BODY"
    await wait_all_tasks_blocked()
    assert (await said(world, "POST", LINK, {"words": []}))["code"] == "NOT_FOUND"
    for wrong_link in (
        f"/v1/workers/{'w' * 256}/links/1",
        "/v1/workers/w/links/one",
        f"/v1/workers/w/links/{'1' * 16}",
    ):
        assert (await said(world, "POST", wrong_link, {"words": []}))["code"] == "BAD_REQUEST"
