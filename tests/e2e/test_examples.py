"""Every example runs as its first line says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import start_server

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_runs(example: Path, tmp_path: Path) -> None:
    with start_server(tmp_path, durability="fsync") as server:
        done = subprocess.run(
            [sys.executable, "-W", "error", str(example)],
            env={**os.environ, "WAKEQ_URL": server.url},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "worked on job 3, attempt 1" in done.stdout
    assert done.stderr == ""
