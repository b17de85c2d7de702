"""What docs/control-plane.md says of calls and codes, asked of the application."""

import re
from pathlib import Path

import anyio
import httpx
import pytest

import wakeq
from tests.support.clock import virtual_trio
from tests.support.control import control_world
from wakeq._errors import error_of
from wakeq_control import errors
from wakeq_control.http.wire import STATUS

TEXT = (Path(__file__).parents[3] / "docs" / "control-plane.md").read_text(encoding="utf-8")
CALL = re.compile(r"`(?:(GET|POST|PUT|DELETE) )?((?:/|…/)[^` ]*)")
OF_PATHS = {"NOT_FOUND", "METHOD_NOT_ALLOWED"}
OWN = {error.code for error in errors.ControlError.__subclasses__() if error.__module__ == errors.__name__} - OF_PATHS


def calls() -> list[tuple[str, str]]:
    """Method and path of each call in the table."""
    table = TEXT.partition("## Calls")[2].partition("\n\nA service's name")[0]
    found = []
    for row in table.splitlines():
        method = ""
        for named, path in CALL.findall(row.partition(" | ")[0]):
            method = named or method
            if method:
                found.append((method, path.replace("…", "/sessions/{session}")))
    return found


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return virtual_trio()


@pytest.mark.anyio
async def test_every_call_is_there() -> None:
    assert len(calls()) > 25
    async with control_world() as world:
        client = await world.client()
        for method, path in calls():
            session = await client.create_session()
            task = await client.create_task(session, "wf")
            await world.end(task)
            for name, value in (("session", session), ("task", task), ("name", "wf")):
                path = path.replace(f"{{{name}}}", value)
            path = re.sub(r"(wait|service_name)=$", r"\1=0", path)
            request = httpx.Request(method, f"http://127.0.0.1{path}", content=b"{}" if method != "GET" else b"")
            with anyio.fail_after(1_000):
                response = await world.wire.handle_async_request(request)
                body = await response.aread()
                await response.aclose()
            missing = [code for code in OF_PATHS if code.encode() in body]
            assert not missing, f"{method} {path}: {body!r}"


def test_the_codes_are_those_that_there_are() -> None:
    said = TEXT.partition("stable `code`:")[2].partition("refused request has changed nothing")[0]
    stated = {
        code: int(status)
        for codes, status in re.findall(r"((?:`[A-Z_]+`,?\s*)+)\((\d+)", said)
        for code in re.findall("[A-Z_]+", codes)
    }
    assert stated == {code: STATUS[code] for code in OWN | OF_PATHS}


@pytest.mark.parametrize("code", sorted(OWN))
def test_clients_have_an_error_for_each(code: str) -> None:
    error = error_of(code, "d", STATUS[code])
    assert type(error) is not wakeq.WakeqError
    assert (error.code, error.status) == (code, type(error).STATUS)
