"""Every request recorded from llama_deploy's own API servers, made again to wakeq's, and answered as recorded.

The differences that are intended stand in `docs/api-server.md`. Any other fails here, and so does one that is listed
and doesn't show.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e import test_apiserver
from tests.support.apiserver_differences import DOCUMENT, differences
from tests.support.control_differences import Expected, documented
from tests.support.deployments import deploying, none_left
from tests.support.raw import FAIL_S
from tests.support.recordings import VERSIONS, Recorded, recording
from tests.support.replay import Ids, matches, named

WORKFLOW = """\
from workflows import Context, Workflow, step
from workflows.events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent


class Asked(StartEvent):
    user_msg: str
    events: int = 0
    ask: str = ""


class Progress(Event):
    number: int


class Echo(Workflow):
    @step
    async def start(self, context: Context, asked: Asked) -> InputRequiredEvent | StopEvent:
        for number in range(asked.events):
            context.write_event_to_stream(Progress(number=number))
        if asked.ask:
            return InputRequiredEvent(prefix=asked.ask)
        return StopEvent(result=f"echo: {asked.user_msg}")

    @step
    async def answered(self, answer: HumanResponseEvent) -> StopEvent:
        return StopEvent(result=f"answer: {answer.response}")


workflow = Echo(timeout=None)
"""
"""What the recorded deployments ran, with arguments that are checked."""
BEFORE_ITS_END = "results before the end"
"""The one result that isn't waited for: its task asks first."""
LINES = "application/x-ndjson"


class Replay(Ids):
    """One run through a recording."""

    def __init__(self, http: httpx.Client, base: Path) -> None:
        super().__init__()
        self.http = http
        self._base = base

    def ask(self, name: str, recorded: Recorded) -> tuple[httpx.Response, Any]:
        """The answer, and what its body says."""
        request = self.http.build_request(
            recorded.method, self._here(recorded.target), content=self._sent(recorded), headers=sent_headers(recorded)
        )
        if name == BEFORE_ITS_END:
            request.url = request.url.copy_merge_params({"wait": 0})
        answer = self.http.send(request, stream=True)
        try:
            if recorded.body.endswith(b"<<OPEN>>"):
                return answer, [json.loads(next(answer.iter_lines()))]
            return answer, content(answer.headers["content-type"], answer.read())
        finally:
            answer.close()

    def _sent(self, recorded: Recorded) -> str | None:
        if recorded.sent is None:
            return None
        sent = self._here(recorded.sent.decode())
        # Other servers may have the ports.
        for port in (8000, 8001, 60003):
            sent = sent.replace(f"port: {port}}}", "port: 0}")
        return sent

    def _here(self, text: str) -> str:
        return self.translated(text).replace("/BASE", str(self._base))


def sent_headers(recorded: Recorded) -> dict[str, str]:
    headers = {}
    if recorded.sent is not None:
        is_form = recorded.sent.startswith(b"--")
        headers["content-type"] = "multipart/form-data; boundary=boundary" if is_form else "application/json"
    if recorded.label in ("preflight", "of another origin"):
        headers["origin"] = "http://example.org"
    return headers


def content(kind: str, body: bytes) -> Any:
    if not body:
        return None
    if kind == LINES:
        return [json.loads(line) for line in body.splitlines()]
    return body.decode() if kind.startswith("text/plain") else json.loads(body)


def expected_of(recorded: Recorded) -> Expected:
    kind = recorded.headers.get("content-type", LINES)
    return Expected(recorded.status, content(kind, recorded.body.removesuffix(b"<<OPEN>>")))


def check_headers(recorded: Recorded, answer: httpx.Response) -> None:
    assert not {"server", "vary", "access-control-allow-origin"} & set(answer.headers)
    if answer.status_code == recorded.status:
        assert answer.headers["content-type"] == recorded.headers["content-type"]
        assert answer.headers.get("allow") == recorded.headers.get("allow")


def without_own_members(answer: httpx.Response, body: Any) -> Any:
    """An error as llama_deploy has it; what stands beside it, and in the status line, is checked here."""
    if answer.status_code < 400 or body is None:
        return body
    assert [name for name in body if name != "hint"] == ["detail", "type", "title", "status", "code"]
    assert body["status"] == answer.status_code
    if answer.status_code != httpx.codes.METHOD_NOT_ALLOWED:
        assert answer.reason_phrase.startswith(f"{body['code']}: ")
        if isinstance(body["detail"], str):
            assert " ".join(body["detail"].split())[:500] in answer.reason_phrase
    return {"detail": body["detail"]}


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """An API server on which nothing is deployed, in the folder of what is to be."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "echoing.py").write_text(WORKFLOW)
    # 0.4.2 doesn't say where the file is, so sources are where the server is.
    monkeypatch.chdir(tmp_path)
    with deploying("--data", str(tmp_path / "data"), "--api-port", "0", "--grace", "0") as server:
        url = str(server.wait_for_api()["url"])
        with httpx.Client(base_url=url, timeout=FAIL_S) as http:
            yield http
        parts = server.parts()
        assert server.terminate() == 0
    assert none_left(parts)


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_every_recorded_request_is_answered_as_recorded(api: httpx.Client, tmp_path: Path, version: str) -> None:
    replay = Replay(api, tmp_path)
    requests = dict(named(recording(version, "apiserver")))
    first_session = json.loads(requests["session create"].body)["session_id"]
    listed = [one for one in differences(first_session) if version in one.versions]
    for name, recorded in requests.items():
        answer, said = replay.ask(name, recorded)
        expected = expected_of(recorded)
        for difference in listed:
            if name in difference.answers:
                before, expected = expected, difference.answers[name](expected)
                assert before != expected, f"{difference.name} does not show in {name!r}"
        where = f"line {recorded.line}: {name}: {recorded.method} {recorded.target}"
        assert answer.status_code == expected.status, f"{where}: {said}"
        check_headers(recorded, answer)
        ours = without_own_members(answer, said)
        replay.learn(expected.body, ours)
        assert matches(replay.translate(expected.body), ours), f"{where}: {ours} is not {expected.body}"


@pytest.mark.parametrize(("version", "requests"), [("0.4.2", 84), ("0.8.1", 88)])
def test_a_recording_is_read_to_its_last_line(version: str, requests: int) -> None:
    assert len(recording(version, "apiserver")) == requests


# What no recording has


NOT_RECORDED: dict[str, Callable[..., None]] = {
    "`GET …/results` of a task without one": test_apiserver.test_who_waits_long_gets_signs_of_life,
    "an answer that takes longer than 3 s": test_apiserver.test_who_waits_long_gets_signs_of_life,
    "arguments that are text": test_apiserver.test_text_is_a_number_where_only_a_number_will_do,
    "a service that registered itself": test_apiserver.test_a_service_that_registered_itself_has_tasks_too,
    "`POST /deployments/create` from another host": test_apiserver.test_another_host_may_not_deploy,
    "`GET …/tasks/{task}`, `/healthz`": test_apiserver.test_calls_of_our_own_are_there,
    "`/docs`, `/redoc`, `/openapi.json`": test_apiserver.test_there_are_no_pages,
}
"""By what each is held."""
EVERYWHERE = ["any answer", "any error"]
"""Checked with each recorded answer."""


def test_every_difference_is_documented_once() -> None:
    assert documented(DOCUMENT) == [*EVERYWHERE, *(one.name for one in differences("")), *NOT_RECORDED]
