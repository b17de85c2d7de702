"""`wakeq backup` and `wakeq doctor` as somebody runs them: what they say, their exit codes, and what they leave."""

import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from typer.testing import CliRunner

from tests.e2e.api import Api, leases, serving
from tests.support.server import STOP_S
from wakeq.cli import app

DATABASE = "wakeq.sqlite3"
LOG = f"{DATABASE}-wal"


class Ended(NamedTuple):
    """How a command has ended."""

    returncode: int
    stdout: str
    stderr: str


def wakeq(*arguments: str | Path) -> Ended:
    """A command in this process."""
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return Ended(result.exit_code, result.stdout, result.stderr)


def process(*arguments: str | Path) -> Ended:
    """A command as somebody starts it."""
    command = [sys.executable, "-m", "wakeq", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=STOP_S)
    assert "Traceback" not in result.stderr
    return Ended(result.returncode, result.stdout, result.stderr)


def refused(*arguments: str | Path) -> tuple[str, str]:
    """The sentence and the hint of a command that fails."""
    # A server that is not refused would never end here.
    result = (process if arguments[0] == "serve" else wakeq)(*arguments)
    assert (result.returncode, result.stdout) == (1, "")
    message, hint = result.stderr.splitlines()
    assert message.startswith("wakeq: ")
    assert hint.startswith("hint: ")
    return message, hint


def put_back(copy: Path, data: Path) -> None:
    data.mkdir()
    copy.rename(data / DATABASE)


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that a server has left: ten messages, of which one is acked and one is leased."""
    data = tmp_path_factory.mktemp("left")
    with serving(data, "fsync", "--drain", "0") as api:
        fill(api)
        assert api.server.terminate() == 0
    return data


@pytest.fixture
def data(left: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(left, tmp_path / "data")


def fill(api: Api) -> list[str]:
    """The lease ids."""
    api.put("t", lease_s=500)
    api.post_lines("t", b"\n".join(b'"body %d"' % number for number in range(10)))
    first, second = leases(api.claim("t", max=2))
    assert api.settle("t", ack=[first], extend=[{"lease_id": second, "lease_s": 500}]) == ["ok", "ok"]
    return [first, second]


def rest(api: Api) -> list[str]:
    return [delivery["body"] for delivery in api.claim("t")]


LEFT = [f"body {number}" for number in range(2, 10)]


# Backup


def test_a_copy_holds_one_moment_while_publishes_go_on(tmp_path: Path) -> None:
    answered: list[int] = []
    enough, stop = threading.Event(), threading.Event()
    with serving(tmp_path / "data") as api:
        fill(api)
        api.put("busy")

        def publish() -> None:
            with httpx.Client(base_url=api.server.url, timeout=STOP_S, verify=False) as http:
                while not stop.is_set():
                    assert http.post("/messages/busy", json=len(answered)).status_code == 200
                    answered.append(len(answered))
                    if len(answered) == 20:
                        enough.set()

        publisher = threading.Thread(target=publish)
        publisher.start()
        try:
            assert enough.wait(STOP_S)
            before = len(answered)
            made = process("backup", tmp_path / "copy", "--data", tmp_path / "data")
            after = len(answered)
        finally:
            stop.set()
            publisher.join(STOP_S)
    assert made.returncode == 0, made.stderr
    assert re.fullmatch(rf"copied \d+\.\d MB to {re.escape(str(tmp_path / 'copy'))}\n", made.stdout)
    assert after > before, "nothing was published meanwhile"
    put_back(tmp_path / "copy", tmp_path / "again")
    with serving(tmp_path / "again") as api:
        assert rest(api) == LEFT
        copied = [delivery["body"] for delivery in api.claim("busy")]
        assert copied == list(range(len(copied)))
        # One more may have been on disk and not answered yet.
        assert before <= len(copied) <= after + 1


def test_a_copy_gives_no_lease_id_again_and_keeps_those_it_knows(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as api:
        first, second = fill(api)
        assert wakeq("backup", tmp_path / "copy", "--data", tmp_path / "data").returncode == 0
        later = leases(api.claim("t"))
        assert len(later) == 8
    put_back(tmp_path / "copy", tmp_path / "again")
    with serving(tmp_path / "again") as api:
        assert api.settle("t", ack=[first, *later]) == ["stale"] * 9
        assert not {first, second, *later} & set(leases(api.claim("t")))
        assert api.settle("t", ack=[second]) == ["ok"]


def test_a_copy_of_what_no_server_has_open(data: Path, tmp_path: Path) -> None:
    assert wakeq("backup", tmp_path / "copy", "--data", data).returncode == 0
    put_back(tmp_path / "copy", tmp_path / "again")
    with serving(tmp_path / "again") as api:
        assert rest(api) == LEFT


def test_a_copy_is_written_over_nothing(data: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").write_text("mine")
    message, hint = refused("backup", tmp_path / "copy", "--data", data)
    assert message == f"wakeq: {tmp_path / 'copy'} exists already"
    assert hint == "hint: name another file"
    assert (tmp_path / "copy").read_text() == "mine"


def test_a_copy_into_no_directory(data: Path, tmp_path: Path) -> None:
    message, _ = refused("backup", tmp_path / "none" / "copy", "--data", data)
    assert message == f"wakeq: {tmp_path / 'none'} is no directory"


def test_a_copy_of_a_damaged_database_is_none(data: Path, tmp_path: Path) -> None:
    (data / DATABASE).write_bytes((data / DATABASE).read_bytes()[:5_000])
    message, hint = refused("backup", tmp_path / "copy", "--data", data)
    assert f"the database in {data} can't be copied" in message
    assert f"wakeq doctor --data {data}" in hint
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


@pytest.mark.parametrize("command", [("backup", "copy"), ("doctor",), ("doctor", "--repair")])
def test_where_there_is_no_database(tmp_path: Path, command: tuple[str, ...]) -> None:
    message, hint = refused(*command, "--data", tmp_path / "none")
    assert message == f"wakeq: there is no database in {tmp_path / 'none'}"
    assert "--data" in hint
    assert not (tmp_path / "none").exists()


# Doctor


def test_a_sound_database_is_read_whole_beside_its_server(tmp_path: Path) -> None:
    with serving(tmp_path) as api:
        fill(api)
        found = process("doctor", "--data", tmp_path)
        assert rest(api) == LEFT
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout == "read 1 topics, 1 groups, 9 messages, 1 histories: no damage\n"


def damage_a_body(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"body 5", b"body 6"))


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4_096])


def garbage(path: Path) -> None:
    path.write_bytes(b"no database at all, " * 1_000)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (damage_a_body, "damaged: a row of messages is damaged"),
        (cut_off, "damaged: "),
        (garbage, "damaged: file is not a database"),
    ],
)
def test_damage_is_told_and_left_as_it_is(data: Path, spoil: Callable[[Path], None], says: str) -> None:
    spoil(data / DATABASE)
    before = (data / DATABASE).read_bytes()
    found = wakeq("doctor", "--data", data)
    assert found.returncode == 1
    assert found.stderr.startswith(says)
    assert found.stderr.splitlines()[-1].startswith("hint: stop the server and save what can be read with --repair")
    assert found.stdout.endswith(": damaged\n")
    assert (data / DATABASE).read_bytes() == before


def test_what_can_be_read_is_saved_and_the_rest_put_aside(data: Path) -> None:
    damage_a_body(data / DATABASE)
    damaged = (data / DATABASE).read_bytes()
    found = wakeq("doctor", "--data", data, "--repair")
    assert found.returncode == 0
    assert found.stderr.startswith("damaged: a row of messages is damaged")
    saved = "saved 1 topics, 1 groups, 8 messages, 1 histories"
    assert found.stdout == f"{saved}; the old database is in {data / 'damaged-1'}\n"
    assert (data / "damaged-1" / DATABASE).read_bytes() == damaged
    assert wakeq("doctor", "--data", data).returncode == 0
    with serving(data) as api:
        assert rest(api) == [body for body in LEFT if body != "body 5"]


def test_of_garbage_nothing_is_saved_and_nothing_thrown_away(data: Path) -> None:
    garbage(data / DATABASE)
    found = wakeq("doctor", "--data", data, "--repair")
    assert found.returncode == 0
    assert found.stdout == f"saved nothing; the old database is in {data / 'damaged-1'}\n"
    assert (data / "damaged-1" / DATABASE).stat().st_size == 20_000


def test_nothing_is_repaired_under_a_server(tmp_path: Path) -> None:
    with serving(tmp_path) as api:
        fill(api)
        message, _ = refused("doctor", "--data", tmp_path, "--repair")
        assert f"{tmp_path} is in use by another server (process {api.server.process.pid})" in message
        assert rest(api) == LEFT


def test_an_interrupted_repair_is_refused_by_a_server_and_can_be_finished(data: Path) -> None:
    """It was killed while it put the damaged database aside: the new one is all there is."""
    (data / "repaired").mkdir()
    shutil.copyfile(data / DATABASE, data / "repaired" / DATABASE)
    (data / "damaged-1").mkdir()
    (data / DATABASE).rename(data / "damaged-1" / DATABASE)
    (data / LOG).write_bytes(b"of the damaged one")
    message, hint = refused("serve", "--port", "0", "--data", data)
    assert message == f"wakeq: a repair of the database in {data} was interrupted"
    assert f"wakeq doctor --repair --data {data}" in hint
    found = wakeq("doctor", "--data", data, "--repair")
    assert found.returncode == 0, found.stderr
    assert found.stdout.endswith(f"the old database is in {data / 'damaged-1'}\n")
    assert (data / "damaged-1" / LOG).read_bytes() == b"of the damaged one"
    with serving(data) as api:
        assert rest(api) == LEFT


def test_a_log_without_its_database_is_refused_by_all(data: Path, tmp_path: Path) -> None:
    (data / DATABASE).rename(tmp_path / "elsewhere")
    (data / LOG).write_bytes(b"what was acknowledged")
    for command in (["serve", "--port", "0"], ["doctor"], ["doctor", "--repair"], ["backup", tmp_path / "copy"]):
        message, hint = refused(*command, "--data", data)
        assert message == f"wakeq: the database {data / DATABASE} is missing, but its log {LOG} is there"
        assert "put the database back" in hint
    (tmp_path / "elsewhere").rename(data / DATABASE)
    assert (data / LOG).read_bytes() == b"what was acknowledged"


def test_a_newer_database_is_left_alone(data: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(data / DATABASE)) as database:
        database.execute("PRAGMA user_version = 999")
    for command in (["doctor"], ["backup", tmp_path / "copy"]):
        message, hint = refused(*command, "--data", data)
        assert "newer wakeq: format 999" in message
        assert "upgrade wakeq" in hint
