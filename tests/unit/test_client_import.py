"""What `import wakeq` loads: a program that publishes pays for nothing else."""

import subprocess
import sys

LAZY = (
    "wakeq_server",
    "wakeq_control",
    "wakeq_bench",
    "pydantic",
    "opentelemetry",
    "httpx",
    "httpcore",
    "typer",
    "pytest",
)


def test_a_client_loads_no_server_and_no_extra() -> None:
    program = "import sys, wakeq; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded = done.stdout.splitlines()
    assert [name for name in loaded if name.startswith(LAZY)] == []
    assert "wakeq._client" in loaded
