"""`wakeq deploy` over sockets: it starts all of a file, keeps it running, and leaves nothing behind."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.deployments import Deployed, deployed, deploying, none_left, quick_start
from tests.support.raw import wait_until
from tests.support.server import START_S


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Deployed]:
    with deployed(quick_start(tmp_path), tmp_path / "data") as one:
        yield one


def test_the_quick_start_of_llama_deploy_runs_unchanged(running: Deployed) -> None:
    assert running.run("echo_workflow", message="Hello!") == "Message received: Hello!"
    api = httpx.URL(str(running.wait_for_api()["url"]))
    assert httpx.get(api.join("/deployments/QuickStart")).json()["services"][0]["state"] == "running"
    shown = subprocess.run(
        [sys.executable, "-m", "wakeq", "status", "--api-server", str(api)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    first, second = shown.stdout.splitlines()
    assert first.startswith(f"QuickStart  control plane {running.url}  queue http://127.0.0.1:")
    parts = running.parts()
    assert second == f"  echo_workflow  running  process {parts['echo_workflow'].pid}  restarts 0  default"
    assert set(parts) == {"queue", "control-plane", "echo_workflow"}
    for part in parts.values():
        assert {each.laddr.ip for each in part.net_connections() if each.status == "LISTEN"} <= {"127.0.0.1"}
    assert running.terminate() == 0
    assert none_left(parts)


def test_without_a_file_deployments_come_by_the_api(tmp_path: Path) -> None:
    file = quick_start(tmp_path)
    file.write_text(file.read_text().replace("8000", "0"))
    with deploying("--data", str(tmp_path / "data"), "--api-port", "0", "--grace", "1") as server:
        api = str(server.wait_for_api()["url"])
        uploaded = httpx.post(
            f"{api}/deployments/create",
            files={"config_file": file.read_bytes()},
            params={"base_path": str(tmp_path)},
            timeout=START_S,
        )
        assert uploaded.json() == {"name": "QuickStart"}
        command = ["run", "--deployment", "QuickStart", "--arg", "message", "Hello!", "--api-server", api]
        ran = subprocess.run(
            [sys.executable, "-m", "wakeq", *command], capture_output=True, text=True, timeout=60, check=True
        )
        assert (ran.stdout, ran.stderr) == ("Message received: Hello!\n", "")
        parts = server.parts()
        assert server.terminate() == 0
    assert none_left(parts)


def test_a_port_without_a_file_is_told() -> None:
    command = [sys.executable, "-m", "wakeq", "deploy", "--port", "8000"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "wakeq: --port is the control plane's of a deployment file\nhint: name the file too, or leave --port out\n"
    )


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


def test_a_service_that_leaves_the_file_is_forgotten(running: Deployed, tmp_path: Path) -> None:
    file = tmp_path / "quick_start.yml"
    file.write_text(file.read_text().replace("echo_workflow:\n", "renamed:\n").replace(": echo_w", ": renamed # "))
    assert running.wait_for("reloaded")["services"] == ["renamed"]
    wait_until(lambda: set(running.get("/services").json()) == {"renamed"})
    assert running.run("renamed", message="x") == "Message received: x"


def test_a_broken_file_is_one_sentence_and_starts_nothing(tmp_path: Path) -> None:
    file = quick_start(tmp_path)
    (tmp_path / "src" / "workflow.py").write_text("import no_such_module\n")
    assert refusal(file, tmp_path, code=2) == (
        f"wakeq: {file}: services.echo_workflow.path: src/workflow.py can't be imported: "
        "ModuleNotFoundError: No module named 'no_such_module'\n"
        "hint: add the package that has 'no_such_module' to python-dependencies, or install it\n"
    )


def test_code_that_ends_its_process_is_told(tmp_path: Path) -> None:
    file = quick_start(tmp_path)
    (tmp_path / "src" / "workflow.py").write_text("import os\nos._exit(3)\n")
    said = "services.echo_workflow.path: its process has ended while it was imported: exit code 3\n"
    assert refusal(file, tmp_path, code=2).startswith(f"wakeq: {file}: {said}")


@pytest.mark.slow
def test_a_dependency_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = quick_start(tmp_path)
    file.write_text(
        file.read_text().replace("    source:\n", "    python-dependencies: [./nope.whl]\n    source:\n", 1)
    )
    said = refusal(file, tmp_path, code=1)
    assert said.startswith(f"wakeq: {file}: services.echo_workflow.python-dependencies: can't be installed: ")
    assert "nope.whl" in said


def test_an_api_port_that_is_taken_is_told_before_anything_begins(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert refusal(quick_start(tmp_path), tmp_path, code=1, api_port=port) == (
            f"wakeq: can't listen on 127.0.0.1:{port}: Address already in use\n"
            "hint: is another server running there? name another port with --api-port, or 0 for a free one\n"
        )


def refusal(file: Path, folder: Path, *, code: int, api_port: str = "0") -> str:
    """The last two lines of a deploy that starts nothing."""
    options = ["--data", str(folder / "data"), "--port", "0", "--api-port", api_port]
    command = [sys.executable, "-m", "wakeq", "deploy", str(file), *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, "Traceback" in ended.stderr) == (code, False), ended.stderr
    assert "listening" not in ended.stderr
    return "".join(ended.stderr.splitlines(keepends=True)[-2:])


def test_status_of_what_does_not_run_is_told() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        command = [sys.executable, "-m", "wakeq", "status", "--api-server", url]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"wakeq: the API server at {url} doesn't answer as one: ")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "wakeq", "deploy", str(tmp_path / "nope.yml")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "nope.yml can't be read: No such file or directory" in ended.stderr


def test_a_port_that_is_taken_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    file = quick_start(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        options = ["--data", str(tmp_path / "data"), "--port", str(taken.getsockname()[1])]
        command = [sys.executable, "-m", "wakeq", "deploy", str(file), *options]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert f"wakeq: {file}: control-plane: can't listen on 127.0.0.1:" in ended.stderr
    assert "hint: its host must be an address of this machine, and its port one that nobody has" in ended.stderr
    assert "Traceback" not in ended.stderr
