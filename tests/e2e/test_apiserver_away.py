"""A control plane that dies behind the API server: who waits for a task is told its end all the same, and once."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

import wakeq
from tests.support.apiserver import ANSWER, Served, Standing, start_apiserver, task, upload
from tests.support.line import Break, line_to
from tests.support.raw import FAIL_S, wait_until
from tests.support.server import ServerProcess, start_control_plane, start_server, start_worker
from wakeq_control.apiserver import upstream


class Mortal:
    """A deployment `echoes` whose control plane can be killed, and started again on what it had stored."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._data = directory / "control"
        self._stack = stack
        self._queue = stack.enter_context(start_server(directory / "queue"))
        self._control_plane = self._started(0)
        stack.enter_context(start_worker(self._control_plane, "tests.e2e.worker_flows:flow"))
        server = stack.enter_context(start_apiserver(self._queue, self._control_plane))
        self.http = stack.enter_context(httpx.Client(base_url=server.url, timeout=FAIL_S))
        self.served = Served(server, self._control_plane, self.http)
        upload(self.http, "echoes").raise_for_status()

    def _started(self, port: int) -> ServerProcess:
        return self._stack.enter_context(start_control_plane(self._queue, self._data, port=port))

    def kill(self) -> None:
        self._control_plane.kill()

    def restart(self) -> None:
        self._control_plane = self._started(self._control_plane.port)

    def answer(self, path: str, session: dict[str, str], text: str) -> None:
        event = json.dumps({**ANSWER, "value": {"_data": {"response": text}}})
        said = {"service_id": "wf", "event_obj_str": event}
        self.http.post(f"{path}/events", params=session, json=said).raise_for_status()

    def standing(self, path: str, session: dict[str, str]) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(path, params=session).json()
        return found


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Mortal]:
    with ExitStack() as stack:
        yield Mortal(tmp_path, stack)


def test_who_waits_is_told_the_end(mortal: Mortal) -> None:
    served, http = mortal.served, mortal.http
    created, session = served.create(user_msg="x", ask=True)
    with ThreadPoolExecutor() as pool:
        run = pool.submit(served.run, user_msg="x", ask=True)
        wait_until(lambda: len(served.sessions()) == 2)
        (own,) = set(served.sessions()) - {session["session_id"]}
        (of_run,) = [one for one in http.get("/deployments/echoes/tasks").json() if one["session_id"] == own]
        asking = [(created, session), (f"/deployments/echoes/tasks/{of_run['task_id']}", {"session_id": own})]
        wait_until(lambda: all(mortal.standing(*one)["status"] == "waiting_input" for one in asking))
        result = pool.submit(http.get, f"{created}/results", params=session)
        stands = pool.submit(http.get, created, params={**session, "wait": 20})
        mortal.kill()
        # What is asked while it is away is answered when it is back.
        sessions = pool.submit(served.sessions)
        mortal.restart()
        assert set(sessions.result()) == {own, session["session_id"]}
        for path, of_session in asking:
            mortal.answer(path, of_session, "Ann")
        assert run.result().json() == "answer: Ann"
        assert result.result().json()["result"] == "answer: Ann"
        assert stands.result().json()["status"] == "succeeded"


def test_a_stream_goes_on_where_it_was(mortal: Mortal) -> None:
    path, session = mortal.served.create(user_msg="x", events=3, ask=True)
    with mortal.http.stream("GET", f"{path}/events", params=session) as stream:
        lines = (line for line in stream.iter_lines() if line.strip())
        before = [json.loads(next(lines)) for _ in range(4)]
        mortal.kill()
        mortal.restart()
        mortal.answer(path, session, "Ann")
        assert before == [*({"number": number} for number in range(3)), {"_data": {"prefix": "who?"}}]
        assert [json.loads(line) for line in lines] == [{"result": "answer: Ann"}]


def test_one_that_stays_away_is_told(mortal: Mortal, monkeypatch: pytest.MonkeyPatch) -> None:
    path, session = mortal.served.create(user_msg="x", ask=True)
    monkeypatch.setattr(upstream, "PATIENCE_S", 0.0)
    mortal.kill()
    for call in (f"{path}/results", f"{path}/events", path):
        away = mortal.http.get(call, params=session)
        assert (away.status_code, away.json()["code"]) == (503, "CONTROL_PLANE_UNAVAILABLE")
        assert away.reason_phrase.startswith(
            "CONTROL_PLANE_UNAVAILABLE: the deployment's control plane is away: no answer"
        )
    begun = mortal.http.post("/deployments/echoes/tasks/run", json=task(user_msg="x"))
    assert begun.json()["code"] == "CONTROL_PLANE_UNAVAILABLE"


def test_an_answer_whose_receipt_is_lost_is_not_given_twice(tmp_path: Path) -> None:
    with (
        start_server(tmp_path / "queue") as queue,
        start_control_plane(queue, tmp_path / "control", durability="memory") as control_plane,
        start_worker(control_plane, "tests.e2e.worker_flows:asking"),
        line_to(control_plane) as line,
        start_apiserver(queue, control_plane) as server,
        wakeq.ControlPlane(control_plane.url) as control,
        httpx.Client(base_url=f"{server.url}/deployments/asks", timeout=FAIL_S) as http,
    ):
        server.deployments.known["asks"] = Standing("asks", line.url, queue.url, "wf", ("wf",))
        session = control.create_session()
        control.create_task(session, "wf", task_id="asks")
        said = [{"service_id": "wf", "event_obj_str": json.dumps(text)} for text in ("first", "second")]
        line.breaks.append(Break("reset", answered=1))
        lost = http.post("/tasks/asks/events", params={"session_id": session}, json=said[0])
        assert (lost.status_code, lost.json()["code"]) == (503, "CONTROL_PLANE_UNAVAILABLE")
        assert "may have been done" in lost.json()["detail"]
        http.post("/tasks/asks/events", params={"session_id": session}, json=said[1]).raise_for_status()
        assert control.result(session, "asks") == "answers: ['first', 'second']"
