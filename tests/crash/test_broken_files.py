"""Files that fail, may not be written, or are not what was written, under a real server and under its next start."""

import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from tests.crash.disks import read_only
from tests.crash.script import SCRIPT, Model, State, loaded, prepare
from tests.e2e.api import Api, leases, serving
from wakeq_server.errors import StartupError, StorageFailed
from wakeq_server.store.sqlite import DATABASE, LOCK, RESERVE, SqliteStore

LOG = f"{DATABASE}-wal"


# A disk that fails under a server


@contextmanager
def unable_to_write(api: Api, log: Path) -> Iterator[None]:
    """From now on no file of the server can become longer than its log is."""
    pid = api.server.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (log.stat().st_size, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def test_a_server_whose_disk_fails_says_so_loses_nothing_and_goes_on_after(tmp_path: Path) -> None:
    with serving(tmp_path) as api:
        api.put("t", lease_s=500)
        api.post_lines("t", b"1\n2\n3")
        (held,) = leases(api.claim("t", max=1))
        assert api.settle("t", extend=[{"lease_id": held, "lease_s": 500}]) == ["ok"]
        with unable_to_write(api, tmp_path / LOG):
            for path, body in (("/messages/t", b"4"), ("/messages/t/settle", b'{"ack": ["%b"]}' % held.encode())):
                answer = api.http.post(path, content=body, headers={"content-type": "application/json"})
                assert (answer.status_code, answer.json()["code"]) == (500, "STORAGE_FAILED")
            health = api.http.get("/healthz").json()
            assert health["status"] == "degraded"
            assert "disk I/O error" in health["storage"]
            # What is safe goes on: it is on disk already.
            assert [delivery["body"] for delivery in api.claim("t", max=1)] == [2]
        api.post("t", b"5")
        assert api.http.get("/healthz").json() == {"status": "ok"}
        assert api.settle("t", ack=[held]) == ["ok"]
    with serving(tmp_path) as api:
        info = api.http.get("/topics/t").json()
        assert info["messages"] == 3


# Files that may not be written


def refusal(directory: Path) -> StartupError:
    """Why a server doesn't start there; nothing of it stays open."""
    store = SqliteStore(directory, "fsync")
    try:
        with pytest.raises(StartupError) as refused:
            store.load()
    finally:
        store.close()
    return refused.value


def test_a_database_that_may_not_be_written(tmp_path: Path) -> None:
    prepare(tmp_path)
    with read_only(tmp_path / DATABASE):
        error = refusal(tmp_path)
    assert f"{tmp_path / DATABASE} can't be used: attempt to write a readonly database" in str(error)
    assert "let the user that runs the server write it" in error.hint
    assert loaded(tmp_path) == Model().state()


def test_a_lock_that_may_not_be_written(tmp_path: Path) -> None:
    prepare(tmp_path)
    with read_only(tmp_path / LOCK):
        error = refusal(tmp_path)
    assert str(error).startswith(f"the data directory {tmp_path} can't be used: {tmp_path / LOCK}: ")
    assert loaded(tmp_path) == Model().state()


def test_a_directory_that_may_not_be_written(tmp_path: Path) -> None:
    data = tmp_path / "data"
    prepare(data)
    (data / LOCK).unlink()
    with read_only(data):
        error = refusal(data)
    assert str(error).startswith(f"the data directory {data} can't be used: ")
    assert "name another one with --data" in error.hint


# Files that are not what was written


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a killed server leaves: all of the script in the log, and none of it in the database."""
    data, found = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("killed")
    prepare(data)
    store = SqliteStore(data, "os")
    store.load()
    for records in SCRIPT:
        store.commit([records])
    ignored = shutil.ignore_patterns("*-shm", LOCK, RESERVE)
    shutil.copytree(data, found, ignore=ignored, dirs_exist_ok=True)
    store.close()
    return found


@pytest.fixture(scope="module")
def prefixes() -> list[State]:
    """What was there after each commit, the first state included."""
    model = Model()
    states = [model.state()]
    for records in SCRIPT:
        model.commit([records])
        states.append(model.state())
    return states


def found(killed: Path, directory: Path, file: str, content: bytes) -> State | None:
    """What a server finds if a file was that; None where it refuses, or says that a body is damaged."""
    shutil.copytree(killed, directory)
    (directory / file).write_bytes(content)
    try:
        state = loaded(directory)
    except (StartupError, StorageFailed):
        return None
    finally:
        shutil.rmtree(directory)
    return None if any(fields[1] == "None" for _, fields in state[3]) else state


def test_a_log_that_is_cut_off_is_a_shorter_one(killed: Path, prefixes: list[State], tmp_path: Path) -> None:
    log = (killed / LOG).read_bytes()
    states = [found(killed, tmp_path / "cut", LOG, log[:size]) for size in (*range(0, len(log), 1_499), len(log))]
    reached = [prefixes.index(state) if state is not None else -1 for state in states]
    assert reached == sorted(reached)
    assert (reached[0], reached[-1]) == (0, len(SCRIPT))


def test_a_log_with_a_flipped_bit_ends_there(killed: Path, prefixes: list[State], tmp_path: Path) -> None:
    log, chance = (killed / LOG).read_bytes(), Random(7)
    for _ in range(100):
        place = chance.randrange(len(log))
        flipped = bytearray(log)
        flipped[place] ^= 1 << chance.randrange(8)
        state = found(killed, tmp_path / "flipped", LOG, bytes(flipped))
        assert state is None or state in prefixes, f"a bit at {place}"


def test_a_database_that_is_damaged_below_its_log(killed: Path, prefixes: list[State], tmp_path: Path) -> None:
    database, chance = (killed / DATABASE).read_bytes(), Random(8)
    for number in range(100):
        place = chance.randrange(len(database))
        damaged = bytearray(database)
        if number % 2:
            del damaged[place:]
        else:
            damaged[place] ^= 1 << chance.randrange(8)
        state = found(killed, tmp_path / "damaged", DATABASE, bytes(damaged))
        # Where the log has the page too, nobody reads what was damaged.
        assert state in (None, prefixes[-1]), f"at {place}"
