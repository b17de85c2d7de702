"""The power goes at any moment: whatever was written since the last sync may be there, be gone, or be torn."""

from contextlib import closing
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from tests.crash.script import FOLDED_BEFORE, SCRIPT, Model, State, loaded, prepare
from tests.crash.vfs import Call, Verdict, judged_by
from wakeq_server.errors import StartupError
from wakeq_server.store.checkpoints import Checkpointer
from wakeq_server.store.sqlite import DATABASE, SqliteStore

pytestmark = pytest.mark.slow

SECTOR = 512
FILES = (DATABASE, f"{DATABASE}-wal")


class Moment(NamedTuple):
    """A call, and how many commits had been answered by then."""

    call: Call
    answered: int


class Recording:
    """All that has been asked of the disk, from a state that was on it."""

    def __init__(self, data: Path, synchronous: str) -> None:
        self.start = {name: (data / name).read_bytes() if (data / name).exists() else b"" for name in FILES}
        self.moments: list[Moment] = []
        self.states = [Model().state()]
        model, answered = Model(), 0

        def judge(call: Call) -> Verdict | None:
            self.moments.append(Moment(call, answered))
            return Verdict(0) if call.kind == "sync" else None

        with judged_by(judge), closing(SqliteStore(data, "fsync", reserve_bytes=1 << 16)) as store:
            store.load()
            assert store._db is not None
            store._db.execute(f"PRAGMA synchronous = {synchronous}")
            for number, records in enumerate(SCRIPT):
                assert store._checkpointer is not None
                store._checkpointer.overlong = number in FOLDED_BEFORE
                store.commit([records])
                model.commit([records])
                self.states.append(model.state())
                answered = number + 1

    def allowed(self, moment: int) -> list[State]:
        """What may be found when the power goes before that call: what was answered, and what was being written."""
        answered = self.moments[moment].answered
        return self.states[answered : answered + 2]


class Remains:
    """What is on the disk when the power goes before a call."""

    def __init__(self, recording: Recording, moment: int) -> None:
        self._sure = {name: bytearray(content) for name, content in recording.start.items()}
        self._unsure: dict[str, list[Call]] = {name: [] for name in FILES}
        for call, _ in recording.moments[:moment]:
            if call.kind != "sync":
                self._unsure[call.file].append(call)
                continue
            for done in self._unsure[call.file]:
                apply(self._sure[call.file], done)
            self._unsure[call.file] = []

    def put(self, directory: Path, chance: Random, kept: float) -> None:
        """Of each file, what was synced; of the rest some of it, perhaps torn."""
        for name in FILES:
            content = bytearray(self._sure[name])
            for call in self._unsure[name]:
                if chance.random() < kept:
                    apply(content, torn(call, chance) if kept < 1 else call)
            (directory / name).write_bytes(content)


def apply(content: bytearray, call: Call) -> None:
    """Make a file's content what the call made it."""
    size = call.offset + len(call.data)
    if call.kind == "truncate":
        del content[call.offset :]
    content.extend(bytes(max(0, size - len(content))))
    content[call.offset : size] = call.data


def torn(call: Call, chance: Random) -> Call:
    """A write that got through whole, or up to a sector's end."""
    whole = chance.random() < 0.7 or len(call.data) <= SECTOR
    return call if whole else call._replace(data=call.data[: chance.randrange(0, len(call.data), SECTOR)])


def lost(tmp_path: Path, recording: Recording) -> list[int]:
    """The moments at which a cut of the power would be noticed by somebody who had been answered."""
    found = []
    for moment in range(len(recording.moments)):
        remains, chance = Remains(recording, moment), Random(moment)
        for kept in (0.0, 0.5, 1.0):
            directory = tmp_path / f"{moment}-{kept}"
            directory.mkdir()
            remains.put(directory, chance, kept)
            try:
                state = loaded(directory)
            except StartupError:
                state = ()
            if state not in recording.allowed(moment):
                found.append(moment)
    return found


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # The thread that folds would make another order of calls each time.
    monkeypatch.setattr(Checkpointer, "committed", lambda *_: None)
    prepare(tmp_path / "data")
    return tmp_path / "data"


def test_what_was_answered_survives_a_power_cut_at_any_moment(data: Path, tmp_path: Path) -> None:
    recording = Recording(data, "FULL")
    assert {call.kind for call, _ in recording.moments} == {"write", "sync", "truncate"}
    assert recording.moments[-1].answered == len(SCRIPT)
    assert lost(tmp_path, recording) == []


def test_without_syncs_that_would_be_noticed(data: Path, tmp_path: Path) -> None:
    assert lost(tmp_path, Recording(data, "OFF"))
