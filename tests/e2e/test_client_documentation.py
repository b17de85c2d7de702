"""Every program in docs/client.md runs, and prints what the document says."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import ServerProcess, start_server, start_up, start_worker

ROOT = Path(__file__).resolve().parents[2]
SERVICE = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs" / "control-plane.md").read_text(encoding="utf-8"), re.DOTALL
)
TEXT = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", TEXT, re.DOTALL)
OF_TASKS = [block for block in BLOCKS if "ControlPlane()" in block[0]]
OF_QUEUES = [block for block in BLOCKS if block not in OF_TASKS]
PATIENCE_S = 30.0

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with start_server(tmp_path / "data", durability="os") as server:
        yield server


def test_every_program_says_what_it_prints() -> None:
    assert len(BLOCKS) == len(OF_QUEUES) + len(OF_TASKS) == TEXT.count("```python") == 10


@pytest.mark.parametrize(("program", "expected"), OF_QUEUES, ids=range(len(OF_QUEUES)))
def test_runs_and_prints(server: ServerProcess, tmp_path: Path, program: str, expected: str) -> None:
    check(tmp_path, program, expected, {"WAKEQ_URL": server.url})


def test_those_about_tasks_run_and_print(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (function,) = SERVICE
    (tmp_path / "shop.py").write_text(function)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with start_up(tmp_path / "data") as server, start_worker(server, "shop:order", "--service", "orders"):
        for program, expected in OF_TASKS:
            check(tmp_path, program, expected, {"WAKEQ_CONTROL_PLANE": server.url})


def check(tmp_path: Path, program: str, expected: str, env: dict[str, str]) -> None:
    script = tmp_path / "program.py"
    script.write_text(program)
    with subprocess.Popen(
        [sys.executable, "-u", "-W", "error", script],
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            printed = "".join(process.stdout.readline() for _ in expected.splitlines())
            if "worker.run()" in program:
                process.send_signal(signal.SIGTERM)
            assert printed + process.stdout.read() == expected
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
