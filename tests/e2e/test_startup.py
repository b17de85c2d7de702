"""Servers that can't start: one sentence, a hint, exit code 1, and nothing touched."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.api import serving
from tests.support.server import STOP_S


def failed_start(*arguments: str) -> list[str]:
    """What `wakeq serve` says, a line each, when it can't start."""
    command = [sys.executable, "-m", "wakeq", "serve", "--port", "0", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=STOP_S)
    assert result.returncode == 1, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    message, hint = result.stderr.splitlines()
    assert message.startswith("wakeq: ")
    assert hint.startswith("hint: ")
    return [message, hint]


def test_a_second_server_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path) as api:
        message, hint = failed_start("--data", str(tmp_path))
        assert f"{tmp_path} is in use by another server (process {api.server.process.pid})" in message
        assert "--data" in hint
        api.put("still-there")
    failed = [line for line in api.server.log if line["event"] == "raw"]
    assert failed == []


def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path / "a") as api:
        message, hint = failed_start("--data", str(tmp_path / "b"), "--port", str(api.server.port))
    assert f"127.0.0.1:{api.server.port}" in message
    assert "in use" in message
    assert "another port" in hint
    assert not (tmp_path / "b").exists()


def test_a_host_that_is_none_is_refused(tmp_path: Path) -> None:
    message, hint = failed_start("--data", str(tmp_path), "--host", "nowhere.invalid")
    assert "nowhere.invalid" in message
    assert "--host" in hint


def a_file(data: Path) -> None:
    data.write_text("in the way")


def below_a_file(data: Path) -> None:
    data.parent.write_text("in the way")


@pytest.mark.parametrize("prepare", [a_file, below_a_file])
def test_a_directory_that_is_none_is_refused(tmp_path: Path, prepare: Callable[[Path], None]) -> None:
    data = tmp_path / "parent" / "data" if prepare is below_a_file else tmp_path / "data"
    prepare(data)
    message, hint = failed_start("--data", str(data))
    assert str(data) in message
    assert "directory" in message.lower().replace("data directory", "")
    assert "--data" in hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        message, hint = failed_start("--data", str(tmp_path))
    finally:
        tmp_path.chmod(0o700)
    assert "Permission denied" in message
    assert "--data" in hint


def another_applications(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE theirs (x)")


def a_newer_wakeqs(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 999")


def garbage(path: Path) -> None:
    path.write_bytes(b"\x00garbage\xff" * 1_000)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5_000])


BROKEN = [
    (another_applications, "not one of wakeq's", False),
    (a_newer_wakeqs, "newer wakeq: format 999", True),
    (garbage, "can't be used", False),
    (garbage, "can't be used", True),
    (cut_off, "can't be used", True),
]


@pytest.mark.parametrize(("spoil", "says", "made_before"), BROKEN)
def test_a_database_that_cannot_be_used_is_left_as_it_is(
    tmp_path: Path, spoil: Callable[[Path], None], says: str, made_before: bool
) -> None:
    if made_before:
        with serving(tmp_path) as api:
            api.put("t")
            assert api.server.terminate() == 0
    database = tmp_path / "wakeq.sqlite3"
    spoil(database)
    before = database.read_bytes()
    message, hint = failed_start("--data", str(tmp_path))
    assert str(database) in message
    assert says in message
    assert hint != "hint: "
    assert database.read_bytes() == before


def test_the_directory_is_free_again_after_a_refused_start(tmp_path: Path) -> None:
    garbage(tmp_path / "wakeq.sqlite3")
    failed_start("--data", str(tmp_path))
    (tmp_path / "wakeq.sqlite3").unlink()
    with serving(tmp_path) as api:
        api.put("t")
        assert json.loads(api.http.get("/topics/t").content)["name"] == "t"
