"""Workers run the workflows of llama-index-workflows 1.x, too: the version that llama_deploy 0.8 used."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.under_test import python_of
from tests.e2e.test_control_plane import Control, running
from tests.e2e.test_worker import FLOWS, answer, begin, lines, more, show, wait_for_event
from tests.support.raw import wait_until
from tests.support.server import LoggedProcess, start_worker

pytestmark = [pytest.mark.compat, pytest.mark.slow]


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    with running(tmp_path_factory.mktemp("control")) as both:
        yield both


@pytest.fixture
def worker(control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoggedProcess]:
    """Its own libraries, but for that one."""
    (library,) = python_of("0.8.1").parents[1].glob("lib/python3*/site-packages/workflows")
    (tmp_path / "workflows").symlink_to(library)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    with start_worker(control.server, f"{FLOWS}:flow") as running:
        yield running


def test_a_workflow_streams_and_asks_and_remembers(control: Control, worker: LoggedProcess) -> None:
    session = begin(control, "flow", user_msg="hello", events=40)
    assert control.result(session, "flow") == "echo: hello, run 1"
    assert [line["number"] for line in lines(control, session, "flow") if "number" in line] == list(range(40))
    more(control, session, "asks", user_msg="hello", ask=True)
    wait_for_event(control, session, "asks")
    event = {"_data": {"response": "Ann"}}
    name = "workflows.events.HumanResponseEvent"
    answer(control, session, "asks", {"__is_pydantic": True, "value": event, "qualified_name": name})
    assert control.result(session, "asks") == "answer: Ann"
    more(control, session, "fails", user_msg="fail")
    assert "it failed" in control.result(session, "fails")
    assert show(control, session, "fails")["status"] == "failed"
    more(control, session, "again", user_msg="hello")
    assert control.result(session, "again") == "echo: hello, run 3"
    more(control, session, "cancelled", user_msg="hello", ask=True)
    wait_for_event(control, session, "cancelled")
    control.post(f"/sessions/{session}/tasks/cancelled/cancel")
    more(control, session, "last", user_msg="hello")
    assert control.result(session, "last") == "echo: hello, run 4"
    wait_until(
        lambda: ("cancelled", "cancelled") in [(line["task"], line["how"]) for line in worker.events("task ended")]
    )
