"""The real `llamactl` of both lines, unmodified, with our API server."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.compat.under_test import python_of
from tests.support.deployments import deploying, none_left

pytestmark = [pytest.mark.compat, pytest.mark.slow]

FILE = """\
name: Greetings
control-plane:
  port: 0
default-service: greet
services:
  greet:
    name: Greets
    source:
      type: local
      name: src
    path: src/flows:greet
"""
CODE = """\
async def greet(user_msg: str, times: int = 1) -> str:
    return " ".join([f"hello {user_msg}"] * times)
"""
TOOK_MAX_S = 60.0

Llamactl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(params=["0.4.2", "0.8.1"])
def llamactl(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Llamactl]:
    """`llamactl` of a version, at an API server on which nothing is deployed."""
    command = Path(python_of(request.param)).with_name("llamactl")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "flows.py").write_text(CODE)
    (tmp_path / "greetings.yml").write_text(FILE)
    # 0.4.2 doesn't say where the file is, so sources are where the server is.
    monkeypatch.chdir(tmp_path)
    with deploying("--data", str(tmp_path / "data"), "--api-port", "0", "--grace", "1") as server:
        api = str(server.wait_for_api()["url"])

        def call(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [command, "-s", api, *arguments],
                capture_output=True, text=True, timeout=TOOK_MAX_S, check=False,
            )  # fmt: skip

        yield call
        parts = server.parts()
        assert server.terminate() == 0
    assert none_left(parts)


def test_a_deployment_is_made_run_shown_and_reloaded(llamactl: Llamactl, tmp_path: Path) -> None:
    assert "Greetings" not in llamactl("status").stdout
    deployed = llamactl("deploy", "greetings.yml")
    assert (deployed.returncode, "Greetings" in deployed.stdout) == (0, True), deployed
    assert "- Greetings" in llamactl("status").stdout
    ran = llamactl("run", "-d", "Greetings", "--arg", "user_msg", "Ann", "--arg", "times", "2")
    assert (ran.returncode, ran.stdout) == (0, "hello Ann hello Ann\n"), ran
    session = llamactl("sessions", "create", "-d", "Greetings")
    assert "session_id=" in session.stdout
    again = llamactl("deploy", "greetings.yml")
    assert (again.returncode, "409" in again.stderr + again.stdout) == (1, True), again
    (tmp_path / "src" / "flows.py").write_text(CODE.replace("hello", "goodbye"))
    reloaded = llamactl("deploy", "--reload", "greetings.yml")
    assert reloaded.returncode == 0, reloaded
    assert llamactl("run", "-d", "Greetings", "--arg", "user_msg", "Ann").stdout == "goodbye Ann\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(("--arg", "resume", "x"), "unknown argument 'resume'"), ((), "user_msg (required")],
    ids=["wrong", "none"],
)
def test_wrong_arguments_are_told(llamactl: Llamactl, arguments: tuple[str, ...], says: str) -> None:
    assert llamactl("deploy", "greetings.yml").returncode == 0
    refused = llamactl("run", "-d", "Greetings", *arguments)
    told = refused.stdout + refused.stderr
    assert refused.returncode != 0, json.dumps(told)
    assert "INVALID_ARGUMENTS" in told
    assert says in told
    assert "NoneType" not in told
