"""The API server over sockets: a real queue, control plane and worker behind it; only its deployments are a test's."""

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.apiserver import ANSWER, FILE, Served, start_apiserver, start_deployment, task, upload
from tests.support.raw import FAIL_S, Client, wait_until
from tests.support.server import start_server

TOKEN = "s3cret"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with start_deployment(tmp_path_factory.mktemp("apiserver")) as deployment:
        yield deployment


# Deployments


def test_a_file_is_deployed_where_it_says_and_reloaded(served: Served) -> None:
    asked = served.server.deployments.deployed
    upload(served.http, "twice", base_path="/somewhere", reload=False, local=False).raise_for_status()
    again = upload(served.http, "twice")
    assert (again.status_code, again.json()["code"]) == (409, "DEPLOYMENT_EXISTS")
    upload(served.http, "twice", reload=True, base_path=".").raise_for_status()
    assert asked[-2:] == [("twice", Path("/somewhere"), False), ("twice", Path(), True)]
    missing = upload(served.http, "never", reload=True)
    assert (missing.status_code, missing.json()["code"]) == (404, "DEPLOYMENT_NOT_FOUND")


def test_a_broken_file_is_refused_in_a_sentence_which_is_in_the_status_line_too(served: Served) -> None:
    refused = served.http.post("/deployments/create", files={"config_file": "name: x"})
    sentence = "the deployment file: control-plane: is missing"
    assert (refused.status_code, refused.json()["code"], refused.json()["detail"]) == (
        400,
        "INVALID_DEPLOYMENT",
        sentence,
    )
    assert refused.reason_phrase == f"INVALID_DEPLOYMENT: {sentence} (hint: {refused.json()['hint']})"


@pytest.mark.parametrize("sent", [{}, {"json": {"a": 1}}, {"files": {"other": FILE}}, {"content": b"\x00\xff"}])
def test_what_is_no_upload_is_refused(served: Served, sent: dict[str, Any]) -> None:
    refused = served.http.post("/deployments/create", **sent)
    assert refused.status_code == 422
    assert refused.json()["detail"][0]["loc"] == ["body", "config_file"]


def test_it_says_what_there_is(served: Served) -> None:
    assert "echoes" in served.http.get("/status/").json()["deployments"]
    assert {"name": "echoes"} in served.http.get("/deployments/").json()
    assert served.http.get("/deployments/echoes").json()["services"][0]["name"] == "wf"
    assert served.http.get("/healthz").json()["status"] == "ok"


def test_there_are_no_pages(served: Served) -> None:
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert served.http.get(path).json()["code"] == "NOT_FOUND"


# Tasks


def test_a_task_runs_in_a_session_that_goes_with_it(served: Served) -> None:
    before = served.sessions()
    assert (served.run(user_msg="hello").json(), served.sessions()) == ("echo: hello, run 1", before)
    assert served.run("wf", "agent_id", user_msg="hello").json() == "echo: hello, run 1"


def test_a_session_that_was_there_stays_with_its_context(served: Served) -> None:
    session = served.http.post("/deployments/echoes/sessions/create").json()["session_id"]
    ran = [served.run(session=session, user_msg="hello").json() for _ in range(2)]
    assert ran == ["echo: hello, run 1", "echo: hello, run 2"]
    assert session in served.sessions()
    assert served.http.post("/deployments/echoes/sessions/delete", params={"session_id": session}).json() is None
    assert served.http.get(f"/deployments/echoes/sessions/{session}").status_code == 404


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"resume": "x"}, "unknown argument 'resume'; this service takes: user_msg (required, str)"),
        ({}, "missing argument 'user_msg'; this service takes: user_msg (required, str)"),
        ({"user_msg": "x", "events": "many"}, "events: 'many' is not of type 'integer'"),
    ],
)
def test_wrong_arguments_are_refused_and_leave_nothing(
    served: Served, arguments: dict[str, str], sentence: str
) -> None:
    before = served.sessions()
    for call in ("run", "create"):
        refused = served.http.post(f"/deployments/echoes/tasks/{call}", json=task(**arguments))
        assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_ARGUMENTS")
        assert refused.json()["detail"].startswith(sentence)
        assert refused.reason_phrase.startswith(f"INVALID_ARGUMENTS: {sentence}")
    assert served.sessions() == before


def test_text_is_a_number_where_only_a_number_will_do(served: Served) -> None:
    assert served.run(user_msg="5", events="3", ask="false").json() == "echo: 5, run 1"


def test_a_task_that_fails_gives_its_error_as_result(served: Served) -> None:
    assert served.run(user_msg="fail").json() == "it failed"


def test_unknown_names_are_refused(served: Served) -> None:
    refused = served.run("nope", user_msg="x")
    assert (refused.status_code, refused.json()["code"]) == (404, "SERVICE_NOT_FOUND")
    assert refused.json()["detail"] == "Service 'nope' not found in deployment 'echoes'; its services are: wf"
    assert served.run(session="nope", user_msg="x").json()["code"] == "SESSION_NOT_FOUND"
    elsewhere = served.http.post("/deployments/nope/tasks/run", json=task(user_msg="x"))
    assert (elsewhere.status_code, elsewhere.json()["detail"]) == (404, "Deployment not found")


def test_a_service_that_registered_itself_has_tasks_too(served: Served) -> None:
    with httpx.Client(base_url=served.control_plane.url) as control:
        control.put("/v1/services/other", json={}).raise_for_status()
    made = served.http.post("/deployments/echoes/tasks/create", json=task("other", anything=1))
    assert (made.status_code, made.json()["service_id"]) == (200, "other")


@pytest.mark.parametrize("text", ["{", "[1]", "null"])
def test_an_input_that_is_no_object_is_refused(served: Served, text: str) -> None:
    refused = served.http.post("/deployments/echoes/tasks/run", json={"input": text})
    assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_ARGUMENTS")


def test_a_human_answers_while_events_and_result_are_waited_for(served: Served) -> None:
    path, session = served.create(user_msg="x", events=3, ask=True)
    with ThreadPoolExecutor() as pool, served.http.stream("GET", f"{path}/events", params=session) as stream:
        lines = stream.iter_lines()
        assert [json.loads(next(lines)) for _ in range(4)][2:] == [{"number": 2}, {"_data": {"prefix": "who?"}}]
        result = pool.submit(httpx.get, f"{served.server.url}{path}/results", params=session, timeout=FAIL_S)
        event = json.dumps({**ANSWER, "value": {"_data": {"response": "Ann"}}})
        said = {"service_id": "wf", "event_obj_str": event}
        assert served.http.post(f"{path}/events", params=session, json=said).json() == said
        assert [json.loads(line) for line in lines] == [{"result": "answer: Ann"}]
        assert result.result().json()["result"] == "answer: Ann"


def test_who_waits_long_gets_signs_of_life(served: Served) -> None:
    path, session = served.create(user_msg="x", ask=True)
    with Client(served.server) as results, Client(served.server) as events:
        results.ask("GET", f"{path}/results?session_id={session['session_id']}")
        events.ask("GET", f"{path}/events?session_id={session['session_id']}")
        assert (results.head().status, results.chunk()) == (200, b" ")
        assert (events.head().status, events.chunk()[-1:]) == (200, b"\n")
        assert events.chunk() == b" "
    assert served.http.get(f"{path}/results", params={**session, "wait": 0}).json() is None


def test_calls_of_our_own_are_there(served: Served) -> None:
    path, session = served.create(user_msg="x", ask=True)
    wait_until(lambda: served.http.get(path, params=session).json()["status"] == "waiting_input")
    assert served.http.get(path, params={**session, "wait": 0.1}).json()["status"] == "waiting_input"
    assert served.http.get("/healthz").json()["status"] == "ok"


def test_what_is_asked_of_an_unknown_task_is_answered_once_and_for_all(served: Served) -> None:
    _, session = served.create(user_msg="x")
    assert served.http.get("/deployments/echoes/tasks/nope/results", params=session).json() is None
    # After a 404 clients would ask for its events twice a second, for ever.
    events = served.http.get("/deployments/echoes/tasks/nope/events", params=session)
    assert (events.status_code, events.json()["code"]) == (410, "TASK_NOT_FOUND")
    assert served.http.get("/deployments/nope/tasks/nope/events", params=session).status_code == 410
    for path in ("nope/events", "nope/results"):
        assert served.http.get(f"/deployments/echoes/tasks/{path}").json()["detail"][0]["loc"] == [
            "query",
            "session_id",
        ]


def test_a_client_that_hangs_up_leaves_its_task_to_be_done(served: Served) -> None:
    before = set(served.sessions())
    with Client(served.server) as client:
        body = json.dumps(task(user_msg="x", ask=True)).encode()
        client.ask("POST", "/deployments/echoes/tasks/run", body)
        wait_until(lambda: bool(set(served.sessions()) - before))
    (session,) = set(served.sessions()) - before
    (made,) = [one for one in served.http.get("/deployments/echoes/tasks").json() if one["session_id"] == session]
    path = f"/deployments/echoes/tasks/{made['task_id']}/events"
    with served.http.stream("GET", path, params={"session_id": session}) as stream:
        assert json.loads(next(stream.iter_lines())) == {"_data": {"prefix": "who?"}}
    event = json.dumps({**ANSWER, "value": {"_data": {"response": "Ann"}}})
    said = {"service_id": "wf", "event_obj_str": event}
    served.http.post(path, params={"session_id": session}, json=said).raise_for_status()
    wait_until(lambda: session not in served.sessions())


# Who may


def test_foreigners_are_refused(served: Served) -> None:
    for headers in ({"Origin": "http://example.org"}, {"Host": "example.org"}):
        refused = served.http.get("/deployments/", headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "ORIGIN_REFUSED")


def test_another_host_may_not_deploy(served: Served) -> None:
    refused = upload(served.http, "foreign", {"X-Forwarded-For": "192.0.2.1"})
    assert (refused.status_code, refused.json()["code"]) == (403, "DEPLOY_FORBIDDEN")
    assert "foreign" not in served.server.deployments.known


def test_another_host_may_deploy_with_the_token(served: Served, tmp_path: Path) -> None:
    with (
        start_server(tmp_path / "queue") as queue,
        start_apiserver(queue, served.control_plane, token=TOKEN) as server,
        httpx.Client(base_url=server.url, timeout=FAIL_S) as http,
    ):
        basic = base64.b64encode(f":{TOKEN}".encode()).decode()
        wrong = ("", f"Bearer {TOKEN}x", "Bearer", f"Basic {TOKEN}", "Basic !", f"Digest {TOKEN}")
        for shown in wrong:
            refused = upload(http, "x", {"Via": "1.1 proxy", "Authorization": shown})
            assert refused.json()["code"] == "DEPLOY_FORBIDDEN", shown
        for number, shown in enumerate((f"Bearer {TOKEN}", f"Basic {basic}")):
            upload(http, f"x{number}", {"Via": "1.1 proxy", "Authorization": shown}).raise_for_status()
        upload(http, "here").raise_for_status()
