"""A disk that fails at any one call: what was refused leaves no trace, what was taken stays, and all goes on after."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.crash.script import FOLDED_BEFORE, SCRIPT, Model, State, loaded, prepare
from tests.crash.vfs import Call, Verdict, judged_by
from wakeq_server.core.model import Record
from wakeq_server.errors import StartupError, StorageError
from wakeq_server.store.checkpoints import Checkpointer
from wakeq_server.store.sqlite import SqliteStore

pytestmark = pytest.mark.slow

IOERR_WRITE, IOERR_FSYNC, IOERR_TRUNCATE, FULL = 10 | 3 << 8, 10 | 4 << 8, 10 | 6 << 8, 13


class Failing:
    """Lets so many calls pass, has the next ones fail, and then all pass again."""

    def __init__(self, fault: "Fault", first: int) -> None:
        self.first = first
        self._fault = fault
        self.armed = False
        """Whether calls are counted, and fail."""
        self.calls = 0

    def __call__(self, call: Call) -> Verdict | None:
        if self.armed and call.kind in self._fault.kinds:
            self.calls += 1
            if self.first <= self.calls < self.first + self._fault.long:
                return self._fault.verdict(call)
        # The power stays on here: a real sync would only take time.
        return Verdict(0) if call.kind == "sync" else None

    @property
    def reached(self) -> bool:
        """Whether there were so many calls."""
        return self.calls >= self.first


def fails(call: Call) -> Verdict:
    return Verdict({"write": IOERR_WRITE, "sync": IOERR_FSYNC, "truncate": IOERR_TRUNCATE}[call.kind])


def fails_half_way(call: Call) -> Verdict:
    return Verdict(IOERR_WRITE, written=len(call.data) // 2)


def is_full(call: Call) -> Verdict:
    return Verdict(FULL, written=len(call.data) // 3)


class Fault(NamedTuple):
    """How calls fail."""

    kinds: tuple[str, ...]
    verdict: Callable[[Call], Verdict]
    long: int = 1
    """How many, one after the other."""
    every: int = 1
    """How far the first of them is moved each time."""
    refuses: bool = True
    """Whether that is ever told."""


FAULTS = {
    "write": Fault(("write", "truncate"), fails),
    "half a write": Fault(("write",), fails_half_way, 2, 2),
    "sync": Fault(("sync",), fails),
    # There is room: what fails once is written again.
    "full": Fault(("write",), is_full, 1, 3, refuses=False),
    "long full": Fault(("write",), is_full, 40, 17),
    "long": Fault(("write", "sync", "truncate"), fails, 25, 11),
}


@pytest.fixture(autouse=True)
def folding_only_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that folds would make another order of calls each time."""
    monkeypatch.setattr(Checkpointer, "committed", lambda *_: None)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("base")
    prepare(directory)
    return directory


def copied(base: Path, to: Path) -> Path:
    """As after a kill: what the dead server kept in memory is not there."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(base, to, ignore=shutil.ignore_patterns("*-shm", "lock", "reserve"))
    return to


def each_call(base: Path, tmp_path: Path, fault: Fault) -> Iterator[tuple[Failing, Path]]:
    """A copy of the directory for each call at which it could begin to fail, until there are none left."""
    first = 1
    while True:
        failing = Failing(fault, first)
        yield failing, copied(base, tmp_path / "data")
        if not failing.reached:
            return
        first += fault.every


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_refused_leaves_no_trace_and_what_is_taken_stays(base: Path, tmp_path: Path, name: str) -> None:
    refusals = 0
    for failing, data in each_call(base, tmp_path, FAULTS[name]):
        run = Run(data, tmp_path / "crashed", failing)
        with judged_by(failing):
            run.all_commits()
        refusals += run.refused
        assert loaded(data) == run.model.state(), f"after a clean end, failing from call {failing.first} on"
    assert (refusals > 5) == FAULTS[name].refuses


class Run:
    """The script on a store, and what it must hold."""

    def __init__(self, data: Path, crashed: Path, failing: Failing) -> None:
        self.model = Model()
        self.refused = 0
        self._data = data
        self._crashed = crashed
        self._failing = failing

    def all_commits(self) -> None:
        with closing(SqliteStore(self._data, "fsync", reserve_bytes=1 << 16)) as store:
            store.load()
            for number, records in enumerate(SCRIPT):
                assert store._checkpointer is not None
                store._checkpointer.overlong = number in FOLDED_BEFORE
                try:
                    self._commit(store, records)
                except StorageError:
                    self.refused += 1
                    # Of all that was written only the sync may have failed. The next commit writes over it.
                    allowed = [self.model.state(), self.model.after(records)]
                    self._check_crash(allowed)
                else:
                    self.model.commit([records])
                    allowed = [self.model.state()]
            self._check_crash(allowed)

    def _commit(self, store: SqliteStore, records: list[Record]) -> None:
        self._failing.armed = True
        try:
            store.commit([records])
        finally:
            self._failing.armed = False

    def _check_crash(self, allowed: list[State]) -> None:
        assert loaded(copied(self._data, self._crashed)) in allowed


def test_a_start_on_a_failing_disk_is_refused_in_a_sentence_or_goes_well(base: Path, tmp_path: Path) -> None:
    for fault in (FAULTS["write"], FAULTS["sync"], FAULTS["full"]):
        refused = 0
        for failing, data in each_call(base, tmp_path, fault):
            refused += is_refused(data, failing)
            assert loaded(data) == Model().state()
        assert refused


def test_a_first_start_on_a_failing_disk_leaves_nothing_half_made(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    refused = 0
    for failing, data in each_call(empty, tmp_path, Fault(("write", "sync", "truncate"), fails)):
        refused += is_refused(data, failing)
        assert loaded(data)[0] == []
    assert refused > 10


def is_refused(data: Path, failing: Failing) -> bool:
    """Whether a store refuses to start there, in a sentence and with a hint."""
    failing.armed = True
    with judged_by(failing), closing(SqliteStore(data, "fsync")) as store:
        try:
            store.load()
        except StartupError as refusal:
            return bool(str(refusal) and refusal.hint)
        return False
