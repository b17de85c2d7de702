"""Sessions: the versions of their states, how long they are kept, and how many there may be."""

from copy import deepcopy
from itertools import count
from typing import Any

import pytest

from wakeq_control.codec import dump
from wakeq_control.errors import (
    InvalidArguments,
    StateConflict,
    StateTooLarge,
    TooManyInputs,
    TooManySessions,
    TooManyTasks,
)
from wakeq_control.limits import Limits
from wakeq_control.model import Effects, Service, Task, TaskStatus
from wakeq_control.plane import End, NewTask, Plane, Said
from wakeq_control.sessions import Place
from wakeq_control.state.memory import MemoryStore
from wakeq_control.streams import Event

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}


class Kept:
    """A plane and its store."""

    def __init__(self, *, keep: int = 100, keep_s: float = 1e9, keep_sessions_s: float = 1e9, **limits: int) -> None:
        ids = count(1)

        def new() -> Plane:
            return Plane(
                lambda: f"id{next(ids)}",
                keep=keep,
                keep_s=keep_s,
                keep_sessions_s=keep_sessions_s,
                limits=Limits(**limits),
            )

        self._new = new
        self.store = MemoryStore()
        self.plane = self._new()
        self.keep(self.plane.register(Service("wf", "", [], None, None, SCHEMA, is_worker=True)))

    def keep(self, *effects: Effects) -> None:
        for one in effects:
            self.store.commit(one.changes)

    def restart(self) -> None:
        self.plane = self._new()
        self.plane.restore(self.store.load())

    def session(self, now: float = 0.0) -> str:
        session, effects = self.plane.create_session(now)
        self.keep(effects)
        return session

    def write(self, session: str, now: float = 0.0, /, **values: Any) -> int:
        version, effects = self.plane.update_state(session, values, now)
        self.keep(effects)
        return version

    def task(self, session: str, task_id: str = "T", now: float = 1.0) -> Task:
        self.keep(self.plane.add_task(session, NewTask("{}", "wf", "service_id", task_id), now)[1])
        return self.plane.tasks.get(task_id)

    def attempt(self, session: str, task_id: str) -> int:
        attempt, effects = self.plane.begin_attempt(session, task_id, "me", 1.0)
        self.keep(effects)
        return attempt

    def end(self, session: str, task_id: str, context: dict[str, Any] | None = None, now: float = 2.0) -> None:
        result = {"task_id": task_id, "history": [], "result": "done", "data": {}}
        attempt = self.plane.tasks.get(task_id).attempt
        self.keep(self.plane.hear(Said(session, task_id, attempt, [], End(result, None, context)), now))

    def tick(self, now: float) -> float | None:
        effects, due = self.plane.tick(now)
        self.keep(effects)
        return due

    def values(self, session: str) -> dict[str, Any]:
        return self.plane.sessions.get(session).state

    def ids(self) -> list[str]:
        return [session.id for session in self.plane.sessions.all()]

    def everything(self) -> object:
        def of(task: Task) -> object:
            return task.definition, task.status, task.error, task.context_error, [e.line for e in task.stream.ready]

        return deepcopy(
            [
                (session, self.plane.session_state(session.id), [*map(of, self.plane.tasks.some(session.task_ids))])
                for session in self.plane.sessions.all()
            ]
        )


# Versions


@pytest.mark.parametrize(
    ("before", "after"),
    [(1, 2), (1, True), (0, False), (1, 1.0), ([1], [True]), ({"a": 1}, {"a": 1, "b": 2}), (None, 0), ("1", 1)],
)
def test_a_change_is_a_version(before: Any, after: Any) -> None:
    kept = Kept()
    session = kept.session()
    assert kept.write(session, k=before, other=1) == 1
    assert kept.write(session, k=before) == 1
    assert kept.write(session, k=after) == 2
    kept.restart()
    assert (kept.values(session), kept.write(session)) == ({"k": after, "other": 1}, 2)
    assert dump(kept.values(session)["k"]) == dump(after)


@pytest.mark.parametrize("call", ["update_state", "replace_state"])
def test_a_state_is_written_with_the_version_that_was_read(call: str) -> None:
    kept = Kept()
    session = kept.session()
    kept.write(session, k=1)
    write = getattr(kept.plane, call)
    before = kept.everything()
    with pytest.raises(StateConflict, match=r"it is at version 1 now; read it again$"):
        write(session, {"k": 2}, 1.0, {0})
    with pytest.raises(StateConflict):
        # Also where it would change nothing: the writer believes in a state that isn't there.
        write(session, {"k": 1}, 1.0, {0, 2})
    with pytest.raises(StateConflict):
        write(session, {"k": 1}, 1.0, frozenset())
    assert kept.everything() == before
    assert write(session, {"k": 2}, 1.0, {0, 1})[0] == 2
    assert kept.values(session) == {"k": 2}


def test_of_two_who_have_read_the_same_one_writes() -> None:
    kept = Kept()
    session = kept.session()
    read = kept.write(session, count=1)
    kept.plane.update_state(session, {"count": 2}, 1.0, {read})
    with pytest.raises(StateConflict):
        kept.plane.update_state(session, {"count": 2}, 1.0, {read})


def test_a_state_is_replaced_but_for_what_belongs_to_tasks() -> None:
    kept = Kept()
    session = kept.session()
    kept.task(session)
    kept.write(session, a=1, b=2)
    version, effects = kept.plane.replace_state(session, {"b": 3, "T": 0, "stream_T": 0, "retries": 9}, 1.0)
    kept.keep(effects)
    assert (version, kept.values(session)) == (2, {"b": 3})
    kept.restart()
    assert kept.values(session) == {"b": 3}
    assert kept.plane.replace_state(session, {"b": 3}, 2.0) == (2, Effects())


def test_what_tasks_do_is_no_change_of_the_state() -> None:
    kept = Kept()
    session = kept.session()
    kept.task(session)
    kept.keep(kept.plane.record_event(session, "T", Event.make(0, {}), 1.0))
    kept.end(session, "T")
    assert kept.plane.session_state(session).version == 0


# Contexts


def test_of_two_tasks_at_a_time_the_first_to_end_leaves_its_context() -> None:
    kept = Kept()
    session = kept.session()
    for name in ("T", "U"):
        kept.task(session, name)
        kept.attempt(session, name)
    kept.end(session, "U", {"n": "u"})
    kept.restart()
    kept.end(session, "T", {"n": "t"})
    first, second = kept.plane.tasks.get("U"), kept.plane.tasks.get("T")
    assert (first.status, first.context_error) == (TaskStatus.SUCCEEDED, None)
    assert second.status is TaskStatus.SUCCEEDED
    assert second.context_error == (
        "STATE_CONFLICT: the service's context in the session has changed since the task began"
    )
    assert kept.plane.context(second) == {"n": "u"}
    before = kept.everything()
    kept.restart()
    assert kept.everything() == before


def test_one_task_after_the_other_hands_the_context_on() -> None:
    kept = Kept()
    session = kept.session()
    for number, name in enumerate(("T", "U", "V")):
        kept.task(session, name)
        kept.attempt(session, name)
        kept.restart()
        kept.end(session, name, {"n": number})
        kept.restart()
        assert kept.plane.tasks.get(name).context_error is None
    assert kept.values(session) == {"context:wf": {"n": 2}}


@pytest.mark.parametrize(
    ("written", "is_kept"), [({"k": 1}, True), ({"context:other": {}}, True), ({"context:wf": {}}, False)]
)
def test_what_others_write_meanwhile_is_in_the_way_only_where_it_is_the_context(
    written: dict[str, Any], is_kept: bool
) -> None:
    kept = Kept()
    session = kept.session()
    kept.task(session)
    kept.attempt(session, "T")
    kept.write(session, 1.0, **written)
    kept.end(session, "T", {"n": 1})
    assert (kept.plane.tasks.get("T").context_error is None) is is_kept
    assert kept.values(session) == ({**written, "context:wf": {"n": 1}} if is_kept else written)


def test_a_context_that_was_taken_away_meanwhile_stays_away() -> None:
    kept = Kept()
    session = kept.session()
    kept.write(session, 0.0, **{"context:wf": {"n": 0}})
    kept.task(session)
    kept.attempt(session, "T")
    kept.keep(kept.plane.replace_state(session, {}, 1.0)[1])
    kept.end(session, "T", {"n": 1})
    assert str(kept.plane.tasks.get("T").context_error).startswith("STATE_CONFLICT: ")
    assert kept.values(session) == {}


def test_an_attempt_that_begins_anew_begins_with_what_there_is() -> None:
    kept = Kept()
    session = kept.session()
    kept.task(session)
    kept.attempt(session, "T")
    kept.write(session, 1.0, **{"context:wf": {"n": 0}})
    assert kept.attempt(session, "T") == 2
    kept.end(session, "T", {"n": 1})
    assert kept.values(session) == {"context:wf": {"n": 1}}


def test_a_context_for_which_there_is_no_room_is_told() -> None:
    kept = Kept(state_bytes=100)
    session = kept.session()
    kept.task(session)
    kept.attempt(session, "T")
    kept.end(session, "T", {"n": "x" * 100})
    task = kept.plane.tasks.get("T")
    assert task.status is TaskStatus.SUCCEEDED
    assert str(task.context_error).startswith("STATE_TOO_LARGE: the state would have ")
    assert kept.values(session) == {}


# Limits


def test_a_state_has_as_many_bytes_as_it_may() -> None:
    full = {"k": "x" * 90}
    kept = Kept(state_bytes=len(dump(full)))
    session = kept.session()
    kept.write(session, **full)
    before = kept.everything()
    for call in (kept.plane.update_state, kept.plane.replace_state):
        with pytest.raises(StateTooLarge, match=r"would have 99 bytes, and may have 98 \(--max-state-bytes\)$"):
            call(session, {"k": "x" * 91}, 2.0)
    assert kept.everything() == before
    assert kept.plane.update_state(session, {"k": ""}, 3.0)[0] == 2
    assert kept.plane.sessions.get(session).state_bytes == len('{"k":""}')


def test_there_are_as_many_sessions_as_may_be() -> None:
    kept = Kept(sessions=2)
    first, _ = kept.session(), kept.session()
    for _ in range(2):
        with pytest.raises(TooManySessions, match=r"^there are 2 sessions, and no more may be \(--max-sessions\)$"):
            kept.session()
        kept.restart()
    with pytest.raises(TooManySessions):
        kept.plane.add_task_alone(NewTask("{}", "wf", "service_id", "T"), 1.0)
    assert kept.plane.tasks.find("T") is None
    kept.keep(kept.plane.delete_session(first))
    kept.session()


def test_as_many_tasks_as_may_be_have_not_ended() -> None:
    kept = Kept(tasks=2)
    session = kept.session()
    for name in ("T", "U"):
        kept.task(session, name)
    kept.restart()
    before = kept.everything()
    with pytest.raises(TooManyTasks, match=r"^2 tasks have not ended, and no more may be \(--max-tasks\)$"):
        kept.task(session, "V")
    with pytest.raises(TooManyTasks):
        kept.plane.add_task_alone(NewTask("{}", "wf", "service_id", "V"), 1.0)
    assert kept.everything() == before
    # Who asks once more for one that there is has it.
    assert kept.task(session, "T").id == "T"
    kept.end(session, "U")
    kept.task(session, "V")
    with pytest.raises(TooManyTasks):
        kept.task(session, "W")


def test_a_task_shows_as_many_events_as_it_may() -> None:
    kept = Kept(events=2)
    session = kept.session()
    task = kept.task(session)
    for index in (0, 1, 1, 0):
        kept.keep(kept.plane.record_event(session, "T", Event.make(index, {}), 1.0))
    kept.restart()
    task = kept.plane.tasks.get("T")
    assert task.status is TaskStatus.RUNNING
    effects = kept.plane.record_event(session, "T", Event.make(2, {}), 2.0)
    assert effects.wakes == ["T"]
    assert (task.status, len(task.stream.arrived)) == (TaskStatus.FAILED, 2)
    assert str(task.error).startswith("TOO_MANY_EVENTS: a task may show 2 events (--max-events) of ")


def test_a_tasks_events_have_as_many_bytes_as_they_may() -> None:
    one = Event.make(0, {"k": "x" * 10})
    kept = Kept(events_bytes=2 * len(one.line))
    session = kept.session()
    task = kept.task(session)
    kept.keep(kept.plane.record_event(session, "T", one, 1.0))
    kept.keep(kept.plane.record_event(session, "T", Event.make(1, one.data), 1.0))
    assert task.status is TaskStatus.RUNNING
    kept.restart()
    task = kept.plane.tasks.get("T")
    kept.keep(kept.plane.record_event(session, "T", Event.make(2, {}), 1.0))
    assert (task.status, len(task.stream.arrived)) == (TaskStatus.FAILED, 2)


@pytest.mark.parametrize("limits", [{"events": 2}, {"events_bytes": 10}])
def test_a_task_is_sent_as_much_as_it_may_be(limits: dict[str, int]) -> None:
    kept = Kept(**limits)
    session = kept.session()
    task = kept.task(session)
    for event in ("12345", "67890"):
        kept.keep(kept.plane.answer(session, "T", "wf", event, 1.0))
    kept.restart()
    task = kept.plane.tasks.get("T")
    with pytest.raises(TooManyInputs, match=r"^a task may be sent "):
        kept.plane.answer(session, "T", "wf", "1", 1.0)
    assert [one.event for one in task.inputs] == ["12345", "67890"]
    kept.end(session, "T")
    assert kept.plane.answer(session, "T", "wf", "1", 3.0) == Effects()


def test_a_late_event_for_which_there_is_no_room_is_nobodys() -> None:
    kept = Kept(events=1)
    session = kept.session()
    task = kept.task(session)
    kept.keep(kept.plane.record_event(session, "T", Event.make(1, {}), 1.0))
    kept.end(session, "T")
    assert kept.plane.record_event(session, "T", Event.make(0, {}), 3.0) == Effects()
    assert task.status is TaskStatus.SUCCEEDED


def test_a_task_by_a_message_that_is_refused_leaves_no_session() -> None:
    kept = Kept()
    with pytest.raises(InvalidArguments):
        kept.plane.add_task_alone(NewTask('{"n": "x"}', "wf", "service_id", "T"), 1.0)
    assert kept.ids() == []
    kept.keep(*kept.plane.add_task_alone(NewTask('{"n": 1}', "wf", "service_id", "T"), 1.0))
    (session,) = kept.ids()
    # The same message, when both were waiting for the service.
    assert kept.plane.add_task_alone(NewTask('{"n": 1}', "wf", "service_id", "T"), 2.0) == []
    assert kept.ids() == [session]


# How long they are kept


def test_a_session_in_which_nothing_happens_goes() -> None:
    kept = Kept(keep_sessions_s=100.0)
    first, second = kept.session(0.0), kept.session(10.0)
    assert kept.plane.next_deadline() == 100.0
    kept.write(first, 50.0, k=1)
    assert kept.tick(50.0) == 110.0
    assert kept.tick(109.9) == 110.0
    assert kept.tick(110.0) == 150.0
    assert kept.ids() == [first]
    # What changes nothing is no use.
    kept.write(first, 120.0, k=1)
    kept.restart()
    assert kept.tick(150.0) is None
    assert kept.ids() == []
    kept.restart()
    assert kept.ids() == []
    assert second not in kept.ids()


def test_a_session_with_a_task_that_has_not_ended_stays() -> None:
    kept = Kept(keep_sessions_s=100.0)
    session = kept.session(0.0)
    kept.task(session, "T", 1.0)
    kept.task(session, "U", 1.0)
    kept.end(session, "T", now=2.0)
    kept.write(session, 3.0, k=1)
    kept.restart()
    assert kept.plane.next_deadline() == 2.0 + 1e9
    kept.tick(500.0)
    assert kept.ids() == [session]
    kept.end(session, "U", now=600.0)
    for _ in range(2):
        assert kept.plane.next_deadline() == 700.0
        kept.restart()
    kept.tick(700.0)
    assert kept.ids() == []
    assert kept.plane.tasks.find("T") is None


def test_when_a_session_was_used_is_known_without_its_tasks() -> None:
    kept = Kept(keep=1, keep_sessions_s=100.0)
    session, other = kept.session(0.0), kept.session(0.0)
    for name, where, now in (("T", session, 50.0), ("U", other, 60.0)):
        kept.task(where, name, now)
        kept.end(where, name, now=now)
    kept.tick(60.0)
    kept.restart()
    assert kept.plane.sessions.get(session).task_ids == []
    assert kept.plane.next_deadline() == 150.0
    kept.tick(150.0)
    assert kept.ids() == [other]


def test_sessions_stay_where_none_shall_go() -> None:
    kept = Kept(keep_sessions_s=float("inf"))
    kept.session()
    assert kept.tick(1e12) is None


# Pages


def test_sessions_come_in_pages() -> None:
    kept = Kept()
    # Of one moment, too.
    made = [kept.session(float(number // 3)) for number in range(8)]
    order = [Place(float(number // 3), session) for number, session in enumerate(made)]
    pages, after = [], None
    while page := kept.plane.sessions.page(after, 3):
        pages.append([session.id for session in page])
        after = Place(page[-1].created_at, page[-1].id)
        # What is gone is where it was.
        kept.keep(kept.plane.delete_session(page[-1].id))
    assert sorted(session for page in pages for session in page) == sorted(made)
    assert [len(page) for page in pages] == [3, 3, 2]
    assert [place.session_id for place in sorted(order)] == [session for page in pages for session in page]
    kept.restart()
    assert kept.plane.sessions.page(None, 100) == kept.plane.sessions.all()
    assert len(kept.ids()) == 5
