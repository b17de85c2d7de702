"""Every program in docs/client.md runs, and prints what the document says."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import ServerProcess, start_server

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", TEXT, re.DOTALL)
PATIENCE_S = 30.0

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with start_server(tmp_path / "data", durability="os") as server:
        yield server


def test_every_program_says_what_it_prints() -> None:
    assert len(BLOCKS) == TEXT.count("```python") == 8


@pytest.mark.parametrize(("program", "expected"), BLOCKS, ids=range(len(BLOCKS)))
def test_runs_and_prints(server: ServerProcess, tmp_path: Path, program: str, expected: str) -> None:
    script = tmp_path / "program.py"
    script.write_text(program)
    with subprocess.Popen(
        [sys.executable, "-u", "-W", "error", script],
        env={**os.environ, "WAKEQ_URL": server.url},
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
