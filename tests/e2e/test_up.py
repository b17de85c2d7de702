"""`wakeq up`: both servers in one process."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import wakeq
from tests.support.server import STOP_S, start_control_plane, start_server, start_up, start_worker

ECHO = "tests.e2e.worker_flows:echo"


def test_a_task_goes_through_and_both_end_in_order(tmp_path: Path) -> None:
    with start_up(tmp_path) as server:
        with start_worker(server, ECHO), wakeq.ControlPlane(server.url) as control:
            assert control.run("wf", {"user_msg": "hello", "events": 3}) == "echo: hello"
        with wakeq.Client(server.queue_url) as queue:
            assert {info.name for info in queue.topics()} == {"llama_deploy.control_plane", "llama_deploy.wf"}
        assert server.terminate() == 0
        assert [len(server.events(name)) for name in ("listening", "stopping", "draining", "stopped")] == [2, 1, 1, 2]
        assert [entry for entry in server.log if entry["event"] == "raw" or entry["level"] == "error"] == []


def test_what_one_process_kept_is_there_for_two(tmp_path: Path) -> None:
    with start_up(tmp_path, durability="fsync") as server:
        with start_worker(server, ECHO), wakeq.ControlPlane(server.url) as control:
            session = control.create_session()
            task = control.create_task(session, "wf", {"user_msg": "kept", "events": 2})
            assert control.result(session, task) == "echo: kept"
        with wakeq.Client(server.queue_url) as queue:
            queue.create_topic("mine")
            queue.publish("mine", 1)
        server.kill()
    with start_server(tmp_path, durability="fsync") as queue_server, wakeq.Client(queue_server.url) as queue:
        assert queue.topic("mine").messages == 1
        with (
            start_control_plane(queue_server, tmp_path / "control-plane") as control_plane,
            wakeq.ControlPlane(control_plane.url) as control,
        ):
            assert control.result(session, task) == "echo: kept"
            assert [event.data for event in control.events(session, task)] == [{"n": 0}, {"n": 1}]


def test_a_second_signal_waits_for_nothing(tmp_path: Path) -> None:
    with start_up(tmp_path, "--drain", "600") as server, wakeq.Client(server.queue_url) as queue:
        queue.create_topic("held", lease_s=600)
        queue.publish("held", 1)
        assert len(queue.claim("held")) == 1
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("draining")
        assert server.terminate() == 0


def test_a_token_is_for_both(tmp_path: Path) -> None:
    with start_up(tmp_path, "--token", "secret") as server, wakeq.Client(server.queue_url, token="secret") as queue:
        assert queue.topic("llama_deploy.control_plane").name == "llama_deploy.control_plane"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ("--queue-port 65536", 2, "wakeq: port: must be from 0 to 65535"),
        ("--keep-tasks 1", 2, "wakeq: keep-tasks: must be from 100 to 10000000"),
        ("--queue nowhere", 2, "wakeq: queue: 'nowhere' is no address of a server; write http://HOST:PORT"),
        ("--token-file /nonexistent", 1, "wakeq: the token can't be read from /nonexistent: No such file or directory"),
        ("--control-port {port} --queue-port 0", 1, "wakeq: can't listen on 127.0.0.1:{port}: Address already in use"),
        ("--control-port 0 --queue-port {port}", 1, "wakeq: can't listen on 127.0.0.1:{port}: Address already in use"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(tmp_path: Path, arguments: str, code: int, says: str) -> None:
    with start_server(tmp_path / "other") as other:
        words = ["up", "--durability", "memory", *arguments.format(port=other.port).split()]
        done = subprocess.run([sys.executable, "-m", "wakeq", *words], capture_output=True, text=True, timeout=STOP_S)
    told = [line for line in done.stderr.splitlines() if line.startswith(("wakeq: ", "hint: ", "Traceback"))]
    assert done.returncode == code
    assert told[0] == says.format(port=other.port)
    assert len(told) == 2
    assert told[1].startswith("hint: ")
