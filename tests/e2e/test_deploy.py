"""`wakeq deploy` over sockets: it starts all of a file, keeps it running, and leaves nothing behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deployments import Deployed, deployed, none_left, quick_start
from tests.support.raw import wait_until


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Deployed]:
    with deployed(quick_start(tmp_path), tmp_path / "data") as one:
        yield one


def test_the_quick_start_of_llama_deploy_runs_unchanged(running: Deployed) -> None:
    assert running.run("echo_workflow", message="Hello!") == "Message received: Hello!"
    parts = running.parts()
    assert set(parts) == {"queue", "control-plane", "echo_workflow"}
    for part in parts.values():
        assert {each.laddr.ip for each in part.net_connections() if each.status == "LISTEN"} <= {"127.0.0.1"}
    assert running.terminate() == 0
    assert none_left(parts)


def test_a_service_that_dies_is_started_again(running: Deployed) -> None:
    before = running.parts()["echo_workflow"]
    before.kill()
    ended = running.wait_for("it ended, and is started again")
    assert (ended["service"], ended["how"]) == ("echo_workflow", "killed by SIGKILL")
    assert running.run("echo_workflow", message="again") == "Message received: again"
    assert running.parts()["echo_workflow"].pid != before.pid


def test_nothing_outlives_a_supervisor_that_was_killed(running: Deployed) -> None:
    parts = running.parts()
    assert len(parts) == 3
    running.kill()
    assert none_left(parts)


def test_changed_code_replaces_what_runs(running: Deployed, tmp_path: Path) -> None:
    before = running.parts()["echo_workflow"]
    code = tmp_path / "src" / "workflow.py"
    good = code.read_text()
    code.write_text("import no_such_module\n")
    broken = running.wait_for("what ran before runs on")
    assert str(broken["reason"]).endswith(
        "services.echo_workflow.path: src/workflow.py can't be imported: "
        "ModuleNotFoundError: No module named 'no_such_module'"
    )
    assert running.run("echo_workflow", message="still") == "Message received: still"
    code.write_text(good.replace("received", "changed"))
    running.wait_for("reloaded")
    assert none_left({"echo_workflow": before})
    wait_until(lambda: running.run("echo_workflow", message="x") == "Message changed: x")
