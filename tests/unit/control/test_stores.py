"""What was committed is there again, in every store; and in SQLite after a process is gone."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest

from wakeq_control.errors import StartupError, StorageFailed
from wakeq_control.model import Effects, Retry, Service
from wakeq_control.plane import End, NewTask, Plane, Said
from wakeq_control.state.base import StateStore
from wakeq_control.state.memory import MemoryStore
from wakeq_control.state.sqlite import FILE, FORMAT, SqliteStore
from wakeq_control.streams import Event

FORMAT_1 = Path(__file__).parent / "control-format-1.sqlite3"
FORMAT_2 = Path(__file__).parent / "control-format-2.sqlite3"


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StateStore]:
    made: StateStore = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path)
    yield made
    made.close()


def make_plane() -> Plane:
    ids = count(1)
    return Plane(lambda: f"id{next(ids)}", keep=10, keep_s=1000.0, keep_sessions_s=2000.0)


def lived(store: StateStore) -> Plane:
    """A plane after some of everything has happened, each of it committed."""
    plane = make_plane()

    def keep(effects: Effects) -> None:
        store.commit(effects.changes)

    keep(plane.name_itself())
    for name in ("wf", "gone", "other"):
        keep(plane.register(Service(name, "d", [{"role": "user"}], "127.0.0.1", 1)))
    keep(plane.deregister("gone"))
    sessions = []
    for _ in range(3):
        session, effects = plane.create_session(1.5)
        keep(effects)
        sessions.append(session)
    for number, session in enumerate((*sessions, sessions[0])):
        new = NewTask("{}", "wf", "agent_id", f"T{number}", timeout_s=60.0 if number else None)
        keep(plane.add_task(session, new, 2.0)[1])
    for index in (1, 0, 12, 2):
        keep(plane.record_event(sessions[0], "T0", Event.make(index, {"n": index, "big": 2**70}), 3.0))
    keep(plane.register(Service("worker", "d", [], None, None, {"type": "object"}, True, Retry(3, 2.0, 4.0), 5)))
    keep(plane.add_task(sessions[0], NewTask("{}", "worker", "service_id", "failing"), 2.0)[1])
    keep(plane.begin_attempt(sessions[0], "failing", "me", 3.0, 0)[1])
    failure = End({"task_id": "failing", "history": [], "result": "", "data": {}}, "E: no", retryable=True)
    keep(plane.hear(Said(sessions[0], "failing", 1, [], failure), 3.5))
    keep(plane.add_task(sessions[0], NewTask("{}", "wf", "service_id", "cut"), 2.0)[1])
    for index in (0, 2):
        keep(plane.record_event(sessions[0], "cut", Event.make(index, {"n": index}), 3.0))
    keep(plane.cancel("cut", 3.5))
    keep(plane.sent(2))
    keep(plane.complete(End(_result("T0")), 4.0))
    keep(plane.update_state(sessions[0], {"k": [1, None]}, 5.0)[1])
    keep(plane.delete_session(sessions[1]))
    return plane


def same(one: Plane, other: Plane) -> None:
    assert one.registry.all() == other.registry.all()
    assert one.publisher == other.publisher != "ControlPlaneServer"
    assert one.sessions.all() == other.sessions.all()
    assert one.tasks.unsent() == other.tasks.unsent()
    for session in one.sessions.all():
        assert one.session_state(session.id) == other.session_state(session.id)
        for ours, theirs in zip(one.tasks.some(session.task_ids), other.tasks.some(session.task_ids), strict=True):
            assert ours.stream.ready == theirs.stream.ready
            assert ours.status is theirs.status
            assert ours.definition == theirs.definition
            assert (ours.attempt, ours.failures, ours.retry_at) == (theirs.attempt, theirs.failures, theirs.retry_at)
    assert one.next_deadline() == other.next_deadline()


def test_a_plane_comes_back_as_it_was(store: StateStore) -> None:
    plane, again = lived(store), make_plane()
    again.restore(store.load())
    same(plane, again)


def test_a_plane_that_came_back_goes_on(store: StateStore) -> None:
    lived(store)
    again = make_plane()
    again.restore(store.load())
    numbers = [message.number for message in again.tasks.unsent()]
    _, effects = again.add_task(again.sessions.all()[0].id, NewTask("{}", "wf", "service_id", "new"), 9.0)
    assert effects.messages[0].number > max(numbers)


def test_sqlite_keeps_it_over_a_reopening(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    plane, again = lived(store), make_plane()
    store.close()
    store = SqliteStore(tmp_path)
    again.restore(store.load())
    store.close()
    same(plane, again)


def test_a_commit_is_all_or_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    effects = Effects()
    effects.put("service", "wf", {})
    effects.put("session", None, {})  # type: ignore[arg-type]
    with pytest.raises(StorageFailed, match="NOT NULL"):
        store.commit(effects.changes)
    assert store.load().services == []
    store.close()


def test_a_directory_has_one_control_plane(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    with pytest.raises(StartupError, match="another control plane uses"):
        SqliteStore(tmp_path)
    store.close()
    SqliteStore(tmp_path).close()


def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    SqliteStore(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(StartupError, match="later version"):
        SqliteStore(tmp_path)


def upgraded(kept: Path, directory: Path) -> Plane:
    """What a file of an earlier format has, opened twice: the first time brings it to the newest."""
    shutil.copy(kept, directory / FILE)
    for _ in range(2):
        store = SqliteStore(directory)
        plane = make_plane()
        plane.restore(store.load())
        store.close()
    with closing(sqlite3.connect(directory / FILE)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (FORMAT,)
    return plane


def test_a_file_of_the_first_format_goes_on(tmp_path: Path) -> None:
    """One of wakeq before sessions had versions: with a task of each kind, and contexts that were kept."""
    plane = upgraded(FORMAT_1, tmp_path)
    assert [service.name for service in plane.registry.all()] == ["wf", "other"]
    first, second = plane.sessions.all()
    assert (first.version, first.contexts, first.used_at, first.unfinished) == (0, {}, 8.0, 2)
    assert first.state == {"k": [1, None], "context:wf": {"n": 1}}
    assert (second.version, second.used_at, second.unfinished, second.state_bytes) == (0, 1.5, 0, 2)
    tasks = plane.tasks.some(first.task_ids)
    assert [(task.id, str(task.status), task.attempt) for task in tasks] == [
        ("done", "succeeded", 1),
        ("failed", "failed", 2),
        ("asks", "waiting_input", 1),
        ("queued", "queued", 1),
    ]
    assert [event.data for event in tasks[0].stream.ready] == [{"n": 0}, {"n": 1}]
    assert tasks[2].inputs == [("early", 0)]
    assert [message.task_id for message in plane.tasks.unsent()] == ["queued"]
    # What went on then is ended now.
    plane.hear(Said(first.id, "asks", 1, [], End(_result("asks"), None, {"n": 2})), 9.0)
    assert plane.context(tasks[2]) == {"n": 2}
    assert plane.update_state(second.id, {"a": 1}, 9.0, {0})[0] == 1


def test_a_file_of_the_second_format_goes_on(tmp_path: Path) -> None:
    """One of wakeq before tasks had runs: with a worker's tasks, a retry, inputs, a context and a version."""
    plane = upgraded(FORMAT_2, tmp_path)
    (session,) = plane.sessions.all()
    assert (session.version, session.contexts, session.unfinished) == (1, {"context:w": 1}, 4)
    assert [(one.name, one.is_worker, one.retry.max_attempts, one.delivery) for one in plane.registry.all()] == [
        ("w", True, 3, "one"),
        ("wf", False, 1, "one"),
    ]
    tasks = plane.tasks.some(session.task_ids)
    assert [(task.id, str(task.status), task.attempt) for task in tasks] == [
        ("done", "succeeded", 1),
        ("retried", "queued", 2),
        ("asks", "running", 1),
        ("queued", "queued", 1),
        ("llama", "queued", 1),
    ]
    assert [(task.delivery, task.replicas, task.run_of, task.replica) for task in tasks] == [
        ("one", [], None, None)
    ] * 5
    assert [event.data for event in tasks[0].stream.ready] == [{"n": 0}, {"n": 1}]
    assert [failure.error for failure in tasks[1].failures] == ["E: no"]
    assert tasks[2].inputs == [("early", 1)]
    assert [message.task_id for message in plane.tasks.unsent()] == ["queued", "llama"]
    # What went on then is ended now.
    plane.hear(Said(session.id, "asks", 1, [], End(_result("asks"))), 9.0)
    assert str(tasks[2].status) == "succeeded"


def _result(task_id: str) -> dict[str, object]:
    return {"task_id": task_id, "history": [], "result": "ü", "data": {}}


def test_what_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database" * 100)
    with pytest.raises(StartupError, match="can't be opened"):
        SqliteStore(tmp_path)


def test_a_directory_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match="can't be used"):
        SqliteStore(tmp_path / "file" / "data")


def test_of_one_commit_the_last_change_of_a_row_counts(store: StateStore) -> None:
    effects = Effects()
    for number in (1, 2, 3):
        effects.put("outbox", str(number), {"service": "wf", "task_id": "T", "key": f"{number}", "body": {"n": "\0ü"}})
    store.commit(effects.changes)
    effects = Effects()
    effects.drop("outbox", "1")
    effects.put("outbox", "4", {"service": "wf", "task_id": "T", "key": "4", "body": {}})
    effects.put("outbox", "4", {"service": "wf", "task_id": "T", "key": "four", "body": {}})
    effects.put("outbox", "5", {"service": "wf", "task_id": "T", "key": "5", "body": {}})
    effects.drop("outbox", "5")
    effects.drop("outbox", "2")
    effects.put("outbox", "2", {"service": "wf", "task_id": "T", "key": "two", "body": {}})
    store.commit(effects.changes)
    assert [(one.number, one.key) for one in store.load().outgoing] == [(2, "two"), (3, "3"), (4, "four")]
    assert store.load().outgoing[1].body == {"n": "\0ü"}


def test_a_row_that_changes_stays_in_its_place(store: StateStore) -> None:
    plane = make_plane()
    sessions = []
    for _ in range(3):
        session, effects = plane.create_session(1.5)
        store.commit(effects.changes)
        sessions.append(session)
    updates = [plane.update_state(sessions[place], {"k": place}, 2.0)[1] for place in (1, 0)]
    store.commit([change for effects in updates for change in effects.changes])
    assert [session.id for session in store.load().sessions] == sessions
