"""The calls about sessions: versions of states in headers and JSON, pages, limits, and the token."""

import base64
import json
from typing import Any

import pytest

import wakeq
from tests.support.asgi import Answer, ask
from tests.support.clock import virtual_trio
from tests.support.control import ControlWorld, control_world
from wakeq_control.http.sessions import PAGE_MAX

pytestmark = pytest.mark.anyio
TOKEN = "s3cret-Token~+/="


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return virtual_trio()


class Caller:
    """Who asks the application, and reads JSON."""

    def __init__(self, world: ControlWorld) -> None:
        self._world = world

    async def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        answer = await self.ask(method, path, body, **headers)
        return answer.status, json.loads(answer.body)

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        named = {"host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
        content = b"" if body is None else json.dumps(body).encode()
        return await ask(self._world.app, method, path, named, content)

    async def session(self) -> str:
        status, session = await self("POST", "/sessions/create")
        assert status == 200
        return str(session)

    async def tag(self, path: str) -> str:
        return (await self.ask("GET", path)).headers[b"etag"].decode()


# Versions


@pytest.mark.parametrize("before", ["", "/v1"])
async def test_a_state_is_read_and_written_with_a_tag(before: str) -> None:
    async with control_world() as world:
        call = Caller(world)
        path = f"{before}/sessions/{await call.session()}/state"
        first = await call.tag(path)
        written = await call.ask("POST", path, {"k": 1}, if_match=first)
        assert (written.status, written.headers[b"etag"]) == (200, b'"1"')
        assert await call.tag(path) == '"1"'
        status, problem = await call("POST", path, {"k": 2, "other": 1}, if_match=first)
        assert (status, problem["code"]) == (412, "STATE_CONFLICT")
        assert problem["detail"] == "the state has changed since it was read: it is at version 1 now; read it again"
        state = {"k": 1}
        shown = {"version": 1, "state": state} if before else state
        assert await call("GET", path) == (200, shown)


async def test_who_says_nothing_of_versions_goes_on_as_ever() -> None:
    async with control_world() as world:
        call = Caller(world)
        session = await call.session()
        for number in range(3):
            assert await call("POST", f"/sessions/{session}/state", {"k": number}) == (200, None)
        assert await call("POST", f"/v1/sessions/{session}/state", {"k": 9}) == (200, {"version": 4})
        assert await call("GET", f"/sessions/{session}") == (
            200,
            {"session_id": session, "task_ids": [], "state": {"k": 9}},
        )


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ('"1"', 200),
        ("*", 200),
        ('"0", "1"', 200),
        ('"x" ,\t"1"', 200),
        ('W/"1"', 412),
        ('"2"', 412),
        ('"01"', 412),
        ('"x"', 412),
        ('""', 412),
        ("1", 400),
        ("", 400),
        ('"1', 400),
        ('"1" "1"', 400),
        ('"' + "9" * 5000 + '"', 412),
    ],
)
async def test_tags_are_those_of_rfc_9110(header: str, status: int) -> None:
    async with control_world() as world:
        call = Caller(world)
        path = f"/v1/sessions/{await call.session()}/state"
        assert await call("POST", path, {"k": 1}) == (200, {"version": 1})
        answer = await call.ask("PUT", path, {"k": 2}, if_match=header)
        assert answer.status == status
        assert json.loads((await call.ask("GET", path)).body)["state"] == {"k": 2 if status == 200 else 1}
        if status == 400:
            assert "If-Match" in json.loads(answer.body)["detail"]


async def test_what_tasks_show_is_in_llama_deploys_state_alone() -> None:
    async with control_world() as world:
        call = Caller(world)
        client = await world.client()
        session = await call.session()
        await client.create_task(session, "wf", task_id="T")
        await world.emit(session, "T", 0, 1)
        await world.end("T")
        await call("POST", f"/v1/sessions/{session}/state", {"k": 1})
        _, shown = await call("GET", f"/sessions/{session}/state")
        assert sorted(shown) == ["T", "k", "result_T", "retries", "stream_T"]
        # As services of llama_deploy do, and as a client of ours that has read that.
        for path in (f"/sessions/{session}/state", f"/v1/sessions/{session}/state"):
            status, _ = await call("POST", path, shown | {"stream_T": [], "result_T": None})
            assert status == 200
        assert await call("GET", f"/sessions/{session}/state") == (200, shown)
        assert await call("GET", f"/v1/sessions/{session}/state") == (200, {"version": 1, "state": {"k": 1}})


@pytest.mark.parametrize("body", [[], "x", None, 1])
async def test_a_state_is_an_object(body: Any) -> None:
    async with control_world() as world:
        call = Caller(world)
        path = f"/v1/sessions/{await call.session()}/state"
        for method in ("POST", "PUT"):
            assert (await call.ask(method, path, body)).status == 422
        assert (await call.ask("PUT", "/v1/sessions/none/state", {})).status == 404
        assert await call("GET", path) == (200, {"version": 0, "state": {}})


async def test_the_client_writes_with_the_version_that_it_has_read() -> None:
    async with control_world() as world:
        client, other = await world.client(), await world.client()
        session = await client.create_session()
        state = await client.session_state(session)
        assert await other.update_session_state(session, {"k": 1}) == 1
        with pytest.raises(wakeq.StateConflict) as conflict:
            await client.update_session_state(session, {"k": 2}, version=state.version)
        assert conflict.value.status == 412
        state = await client.session_state(session)
        assert await client.replace_session_state(session, {**state.values, "j": 2}, version=state.version) == 2
        assert await client.session_state(session) == wakeq.SessionState({"k": 1, "j": 2}, 2)


# Pages


async def test_sessions_are_listed_in_pages_without_their_states() -> None:
    async with control_world() as world:
        call = Caller(world)
        made = [await call.session() for _ in range(7)]
        await call("POST", f"/sessions/{made[0]}/state", {"big": "x" * 100_000})
        found, after = [], ""
        while after is not None:
            answer = await call.ask("GET", f"/v1/sessions?limit=3&after={after}")
            assert len(answer.body) < 1_000
            page = json.loads(answer.body)
            assert len(page["sessions"]) in (1, 3)
            found += [one["session_id"] for one in page["sessions"]]
            after = page["next"]
        assert sorted(found) == sorted(made)
        _, first = await call("GET", f"/v1/sessions/{made[0]}")
        assert first["state_bytes"] == len('{"big":""}') + 100_000
        assert (first["tasks"], first["unfinished_tasks"], first["version"]) == (0, 0, 1)
        assert (await call("GET", "/sessions"))[1][made[0]]["state"] == {"big": "x" * 100_000}


async def test_the_last_page_is_not_followed_by_an_empty_one() -> None:
    async with control_world() as world:
        call = Caller(world)
        assert await call("GET", "/v1/sessions") == (200, {"sessions": [], "next": None})
        for _ in range(4):
            await call.session()
        _, page = await call("GET", "/v1/sessions?limit=2")
        _, page = await call("GET", f"/v1/sessions?limit=2&after={page['next']}")
        assert (len(page["sessions"]), page["next"]) == (2, None)


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=-1", f"limit={PAGE_MAX + 1}", "after=x", "after=nan_x"])
async def test_pages_that_there_are_not_are_refused(query: str) -> None:
    async with control_world() as world:
        status, problem = await Caller(world)("GET", f"/v1/sessions?{query}")
        assert (status, problem["code"]) == (400, "BAD_REQUEST")
        assert problem["detail"].startswith(query.partition("=")[0])


# Limits


async def test_limits_are_told_by_their_codes() -> None:
    async with control_world(max_sessions=2, max_tasks=1, max_state_bytes=1_000, max_body_bytes=2_000) as world:
        call = Caller(world)
        session = await call.session()
        await call.session()
        task = {"input": "{}", "service_id": "wf", "task_id": "T"}
        assert await call("POST", f"/sessions/{session}/tasks", task) == (200, "T")
        message = {"action": "new_task", "data": task | {"task_id": "U"}}
        for path, body, status, code in [
            ("/sessions/create", None, 429, "TOO_MANY_SESSIONS"),
            (f"/sessions/{session}/tasks", task | {"task_id": "U"}, 429, "TOO_MANY_TASKS"),
            ("/process_message", message, 429, "TOO_MANY_TASKS"),
            (f"/sessions/{session}/state", {"k": "x" * 1_000}, 413, "STATE_TOO_LARGE"),
            (f"/sessions/{session}/state", {"k": "x" * 2_000}, 413, "BODY_TOO_LARGE"),
        ]:
            found, problem = await call("POST", path, body)
            assert (found, problem["code"]) == (status, code)
        # The task that there is is the same.
        assert await call("POST", f"/sessions/{session}/tasks", task) == (200, "T")
        assert await call("GET", f"/v1/sessions/{session}/state") == (200, {"version": 0, "state": {}})
        assert len((await call("GET", "/sessions"))[1]) == 2
        assert len((await call("GET", f"/sessions/{session}/tasks"))[1]) == 1


@pytest.mark.parametrize("says_so", [False, True])
async def test_a_body_has_as_many_bytes_as_it_may(says_so: bool) -> None:
    async with control_world(max_body_bytes=1_000) as world:
        call = Caller(world)
        path = f"/v1/sessions/{await call.session()}/state"
        for size, status in ((1_000, 200), (1_001, 413)):
            body = {"k": "x" * (size - len('{"k": ""}'))}
            said = {"content_length": str(size)} if says_so else {}
            assert (await call.ask("PUT", path, body, **said)).status == status


async def test_a_body_that_will_be_too_large_is_not_waited_for() -> None:
    async with control_world(max_body_bytes=1_000) as world:
        answer = await Caller(world).ask("POST", "/sessions/none/state", {}, content_length="1001")
        assert (answer.status, json.loads(answer.body)["code"]) == (413, "BODY_TOO_LARGE")


# The token


@pytest.mark.parametrize(
    ("shown", "is_right"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer   {TOKEN}", True),
        ("Basic " + base64.b64encode(f":{TOKEN}".encode()).decode(), True),
        ("Basic " + base64.b64encode(f"anyone:{TOKEN}".encode()).decode(), True),
        ("Basic " + base64.b64encode(TOKEN.encode()).decode(), False),
        (f"Basic {TOKEN}", False),
        (f"Bearer {TOKEN}x", False),
        (f"Bearer {TOKEN[:-1]}", False),
        (TOKEN, False),
        ("Bearer", False),
        ("", False),
    ],
)
async def test_a_token_is_shown_or_nothing_happens(shown: str, is_right: bool) -> None:
    async with control_world(token=TOKEN) as world:
        call = Caller(world)
        answer = await call.ask("POST", "/sessions/create", authorization=shown)
        if is_right:
            assert answer.status == 200
            return
        assert (answer.status, answer.headers[b"www-authenticate"]) == (401, b"Bearer")
        assert json.loads(answer.body)["code"] == "UNAUTHENTICATED"
        assert TOKEN not in answer.body.decode()
        assert world.engine.registry.all()
        assert await world.engine.sessions() == []


async def test_the_health_is_told_to_anyone() -> None:
    async with control_world(token=TOKEN) as world:
        call = Caller(world)
        assert (await call("GET", "/healthz"))[1]["status"] == "ok"
        for method, path in (("POST", "/healthz"), ("GET", "/healthz/"), ("GET", "/nowhere"), ("GET", "/")):
            assert (await call.ask(method, path)).status == 401


@pytest.mark.parametrize("name", ["WAKEQ_CONTROL_TOKEN", "WAKEQ_TOKEN"])
async def test_the_client_shows_what_the_environment_has(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv("WAKEQ_CONTROL_TOKEN", raising=False)
    monkeypatch.setenv(name, TOKEN)
    monkeypatch.setenv("WAKEQ_TOKEN", TOKEN if name == "WAKEQ_TOKEN" else "another")
    async with control_world(token=TOKEN) as world:
        client = await world.client()
        assert await client.session_state(await client.create_session()) == wakeq.SessionState({}, 0)
        stranger = await world.client(token="another")
        with pytest.raises(wakeq.Unauthenticated):
            await stranger.create_session()
