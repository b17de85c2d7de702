"""What of the llama_deploy plug-in needs no llama_deploy."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from wakeq.integrations.llama_deploy._options import client_options

USAGE = "usage: python -m wakeq.integrations.llama_deploy COMMAND [ARGUMENT]...\n"
HTTP, HTTPS = "http://queue:8001/", "https://queue:8001/"


@pytest.mark.parametrize(
    ("client_kwargs", "options"),
    [
        ({}, {"token": None}),
        ({"timeout": 60}, {"token": None, "timeout": 60.0}),
        ({"timeout": None}, {"token": None}),
        ({"headers": {"Authorization": "bearer secret"}}, {"token": "secret"}),
    ],
)
def test_client_kwargs_become_options(client_kwargs: dict[str, Any], options: dict[str, Any]) -> None:
    assert client_options(HTTP, client_kwargs, None)() == options


def test_a_token_of_its_own_comes_first() -> None:
    assert client_options(HTTP, {"headers": {"authorization": "Bearer theirs"}}, "ours")()["token"] == "ours"


@pytest.mark.parametrize("client_kwargs", [{"verify": False}, {"proxy": "http://proxy:3128"}])
def test_what_is_of_the_transport_makes_one_for_each_client(client_kwargs: dict[str, Any]) -> None:
    options = client_options(HTTPS, client_kwargs, None)
    first, second = options()["transport"], options()["transport"]
    assert isinstance(first, httpx.AsyncHTTPTransport)
    assert first is not second


@pytest.mark.parametrize(
    ("client_kwargs", "complaint"),
    [
        (
            {"http2": True},
            "client_kwargs: http2 has no meaning for wakeq; allowed are cert, headers, proxy, timeout, verify",
        ),
        ({"timeout": True}, "client_kwargs: timeout must be a number of seconds above 0"),
        ({"timeout": 0}, "client_kwargs: timeout must be a number of seconds above 0"),
        ({"timeout": "5"}, "client_kwargs: timeout must be a number of seconds above 0"),
        ({"headers": {"x": "y"}}, "client_kwargs: headers has x; allowed is authorization, as Bearer TOKEN"),
        (
            {"headers": {"authorization": "Basic secret"}},
            "client_kwargs: headers has authorization; allowed is authorization, as Bearer TOKEN",
        ),
    ],
)
def test_what_can_not_be_obeyed_is_named(client_kwargs: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError) as raised:
        client_options(HTTP, client_kwargs, None)
    assert str(raised.value) == complaint


def plugged(*command: str, path: Path) -> subprocess.CompletedProcess[str]:
    """A command by way of the plug-in, with ``path`` in front of what it can import."""
    paths = [str(path), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, "-m", "wakeq.integrations.llama_deploy", *command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def packaged(directory: Path, version: str) -> None:
    """A package that calls itself llama_deploy of that version."""
    (directory / "llama_deploy").mkdir()
    (directory / "llama_deploy" / "__init__.py").write_text("")
    about = directory / f"llama_deploy-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: llama-deploy\nVersion: {version}\n")


def test_a_command_without_llama_deploy_runs_as_ever(tmp_path: Path) -> None:
    program = "import sys; print(sys.argv, [name for name in sys.modules if name.startswith(('wakeq', 'httpx'))])"
    done = plugged(sys.executable, "-c", program, "an argument", path=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "['-c', 'an argument'] []\n", "")


def test_another_sitecustomize_runs_too(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('customized')\n")
    done = plugged(sys.executable, "-c", "import sitecustomize; print(sitecustomize.__file__)", path=tmp_path)
    assert done.stderr == ""
    assert done.stdout.split("\n")[-3:] == ["customized", str(tmp_path / "sitecustomize.py"), ""]


@pytest.mark.parametrize("version", ["0.3.9", "0.9.0", "1.0", "unknown"])
def test_an_unknown_version_is_refused_when_it_is_imported(tmp_path: Path, version: str) -> None:
    packaged(tmp_path, version)
    done = plugged(sys.executable, "-c", "import llama_deploy", path=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().split("\n")[-1] == (
        "wakeq.integrations.llama_deploy._install.UnsupportedVersion: wakeq can stand for the message queue of "
        f"llama_deploy 0.4 to 0.8, but {version} is installed."
    )


def test_a_command_that_there_is_not(tmp_path: Path) -> None:
    done = plugged("no-such-command", path=tmp_path)
    assert (done.returncode, done.stderr) == (127, "no-such-command can't be run: No such file or directory.\n")


def test_no_command(tmp_path: Path) -> None:
    done = plugged(path=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", USAGE)


def test_help(tmp_path: Path) -> None:
    done = plugged("--help", path=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, USAGE, "")
