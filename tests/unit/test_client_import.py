"""What `import wakeq` loads: a program that publishes pays for nothing else."""

import subprocess
import sys

import pytest

import wakeq

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


def loaded_by(program: str) -> list[str]:
    program = f"import sys; {program}; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()


def test_a_client_loads_no_server_and_no_extra() -> None:
    loaded = loaded_by("import wakeq; wakeq.Client")
    assert [name for name in loaded if name.startswith(LAZY)] == []
    assert "wakeq._client" in loaded


def test_what_nobody_asks_for_is_not_loaded() -> None:
    assert not {"asyncio", "anyio", "wakeq._client"} & set(loaded_by("import wakeq"))
    assert "wakeq._async_client" not in loaded_by("import wakeq; wakeq.WakeqError")


def test_a_command_that_runs_a_task_loads_no_client_of_the_queue() -> None:
    loaded = loaded_by("import wakeq.cli.run")
    assert not {"wakeq._async_client", "wakeq._async_control", "wakeq._worker", "rich"} & set(loaded)


def test_every_name_is_to_be_had() -> None:
    assert {name for name in wakeq.__all__ if getattr(wakeq, name) is None} == set()
    assert set(wakeq._MODULES) == {*wakeq.__all__} - {"__version__"}
    assert {*wakeq.__all__} <= {*dir(wakeq)}


def test_a_name_that_is_none_is_told() -> None:
    with pytest.raises(AttributeError, match="module 'wakeq' has no attribute 'Cleint'"):
        _ = wakeq.Cleint  # type: ignore[attr-defined]
