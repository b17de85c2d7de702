"""The rules of services, sessions and tasks, on a clock that is a number."""

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from wakeq_control.errors import (
    InvalidArguments,
    ServiceNotFound,
    SessionNotFound,
    TaskConflict,
    TaskNotFound,
    WrongSession,
)
from wakeq_control.model import Effects, Failure, Retry, Service, Session, Task, TaskStatus
from wakeq_control.plane import End, NewTask, Plane, Said
from wakeq_control.streams import Event
from wakeq_control.tasks import MAX_ATTEMPTS

SERVICE = Service("echo", "echoes", [], "127.0.0.1", 9000)


def make_plane(*, keep: int = 100, keep_s: float = 1000.0) -> Plane:
    ids = count(1)
    plane = Plane(lambda: f"id{next(ids)}", keep=keep, keep_s=keep_s)
    plane.register(SERVICE)
    return plane


@pytest.fixture
def plane() -> Plane:
    return make_plane()


@pytest.fixture
def session(plane: Plane) -> str:
    return plane.create_session(0.0)[0]


def new(task_id: str = "T", **more: Any) -> NewTask:
    return NewTask(**{"input": "{}", "service": "echo", "id_field": "service_id", "task_id": task_id} | more)


def event(index: int, **data: Any) -> Event:
    return Event.make(index, data or {"n": index})


def result(task_id: str = "T", text: str = "done") -> dict[str, Any]:
    return {"task_id": task_id, "history": [], "result": text, "data": {}}


def begin(plane: Plane, session: str, task_id: str = "T", *, now: float = 1.0, **more: Any) -> Task:
    plane.add_task(session, new(task_id, **more), now)
    return plane.tasks.get(task_id)


def nothing(effects: Effects) -> bool:
    return effects == Effects()


# Services


def test_a_registration_replaces_the_one_of_its_name(plane: Plane) -> None:
    again = Service("echo", "echoes better", [], None, None)
    assert plane.register(again).changes
    assert plane.registry.all() == [again]


def test_a_registration_that_comes_again_stores_nothing_but_is_told(plane: Plane) -> None:
    effects = plane.register(SERVICE)
    assert effects == Effects(registered=[SERVICE])


def test_deregistering_forgets_once(plane: Plane) -> None:
    assert plane.deregister("echo").deregistered == ["echo"]
    assert nothing(plane.deregister("echo"))
    with pytest.raises(ServiceNotFound, match=r"^Service not found$"):
        plane.registry.get("echo")


def test_presence_is_that_of_the_last_snapshot_and_what_came_since(plane: Plane) -> None:
    registry = plane.registry
    assert registry.state("echo") == "unknown"
    registry.appeared("echo", "a")
    registry.present_are([("echo", "b"), ("echo", "c")])
    registry.went("echo", "c")
    registry.went("nobody", "x")
    assert (registry.state("echo"), registry.consumers("echo")) == ("up", ["b"])
    registry.went("echo", "b")
    assert (registry.state("echo"), registry.consumers("echo")) == ("down", [])


def test_nobody_is_present_while_the_queue_is_not_heard(plane: Plane) -> None:
    registry = plane.registry
    registry.present_are([("echo", "a")])
    registry.lost_sight()
    assert (registry.state("echo"), registry.consumers("echo")) == ("unknown", [])
    registry.present_are([])
    assert registry.state("echo") == "down"


def test_a_control_plane_has_one_name_for_all_its_life() -> None:
    plane = make_plane()
    assert [change.table for change in plane.name_itself().changes] == ["plane"]
    assert nothing(plane.name_itself())
    session, _ = plane.create_session(0.0)
    _, effects = plane.add_task(session, new(), 1.0)
    assert effects.messages[0].body["publisher_id"] == plane.publisher == "ControlPlaneServer-id1"


# Tasks


def test_a_new_task_is_stored_with_the_message_that_starts_it(plane: Plane, session: str) -> None:
    task_id, effects = plane.add_task(session, new(), 1.0)
    assert task_id == "T"
    assert [change.table for change in effects.changes] == ["task", "outbox"]
    (message,) = effects.messages
    assert message.key == "task:T:1"
    assert message.body == {
        "publisher_id": "ControlPlaneServer",
        "data": {"input": "{}", "task_id": "T", "session_id": session, "service_id": "echo"},
        "action": "new_task",
        "type": "echo",
    }
    assert plane.tasks.unsent() == [message]


def test_a_task_speaks_as_the_client_that_made_it(plane: Plane, session: str) -> None:
    task = begin(plane, session, id_field="agent_id")
    assert task.definition["agent_id"] == "echo"
    assert "service_id" not in task.definition


def test_the_same_task_again_changes_nothing(plane: Plane, session: str) -> None:
    begin(plane, session)
    task_id, effects = plane.add_task(session, new(), 2.0)
    assert task_id == "T"
    assert nothing(effects)
    assert plane.sessions.get(session).task_ids == ["T"]


@pytest.mark.parametrize("other", [{"input": "[]"}, {"service": "other"}, {"timeout_s": 5.0}])
def test_another_task_of_the_same_id_is_refused(plane: Plane, session: str, other: dict[str, Any]) -> None:
    begin(plane, session)
    with pytest.raises(TaskConflict, match="'T'"):
        plane.add_task(session, new(**other), 2.0)


def test_a_task_of_another_session_is_refused(plane: Plane, session: str) -> None:
    begin(plane, session)
    elsewhere, _ = plane.create_session(0.0)
    with pytest.raises(TaskConflict):
        plane.add_task(elsewhere, new(), 2.0)
    with pytest.raises(WrongSession, match=f"task.session_id is {session} but should be {elsewhere}$"):
        plane.add_task(elsewhere, new("U", session_id=session), 2.0)


def test_a_task_for_nobody_is_refused_and_changes_nothing(plane: Plane, session: str) -> None:
    with pytest.raises(ServiceNotFound, match=r"'ghost' is registered; there are: echo$"):
        plane.add_task(session, new(service="ghost"), 1.0)
    assert plane.sessions.get(session) == Session(session, 0.0)
    plane.deregister("echo")
    with pytest.raises(ServiceNotFound, match=r"there are: none$"):
        plane.add_task(session, new(), 1.0)


def test_the_life_of_a_task(plane: Plane, session: str) -> None:
    task = begin(plane, session)
    seen = [task.status]

    def after(effects: Effects) -> None:
        assert effects.changes
        seen.append(task.status)

    after(plane.record_event(session, "T", event(0), 2.0))
    after(plane.record_event(session, "T", event(1, _data={"prefix": "who?"}), 3.0))
    after(plane.record_event(session, "T", event(2), 4.0))
    after(plane.answer(session, "T", "echo", "Ann", 5.0))
    after(plane.complete(End(result()), 6.0))
    assert seen == ["queued", "running", "waiting_input", "waiting_input", "running", "succeeded"]
    assert (task.created_at, task.started_at, task.finished_at) == (1.0, 2.0, 6.0)


def test_an_event_that_comes_again_changes_nothing(plane: Plane, session: str) -> None:
    task = begin(plane, session)
    assert plane.record_event(session, "T", event(0), 2.0).wakes == ["T"]
    assert nothing(plane.record_event(session, "T", event(0), 3.0))
    assert len(task.stream.arrived) == 1


def test_a_result_that_comes_again_or_too_late_changes_nothing(plane: Plane, session: str) -> None:
    task = begin(plane, session)
    assert plane.complete(End(result()), 2.0).wakes == ["T"]
    for late in (
        plane.complete(End(result(text="other")), 3.0),
        plane.answer(session, "T", "echo", "Ann", 3.0),
        plane.cancel("T", 3.0),
    ):
        assert nothing(late)
    assert task.result == result()


def test_an_event_that_its_result_overtook_is_kept(plane: Plane, session: str) -> None:
    task = begin(plane, session)
    plane.record_event(session, "T", event(1), 2.0)
    plane.complete(End(result()), 3.0)
    assert plane.record_event(session, "T", event(0, _data={"prefix": "?"}), 4.0).changes
    assert [one.index for one in task.stream.ready] == [0, 1]
    assert task.status is TaskStatus.SUCCEEDED


@pytest.mark.parametrize("end", ["cancel", "time"])
def test_what_was_cut_off_shows_its_beginning_without_a_gap(plane: Plane, session: str, end: str) -> None:
    task = begin(plane, session, timeout_s=10.0)
    for index in (0, 1, 3):
        plane.record_event(session, "T", event(index), 2.0)
    if end == "cancel":
        plane.cancel("T", 3.0)
    else:
        plane.tick(11.0)
    assert nothing(plane.record_event(session, "T", event(2), 12.0))
    assert [one.index for one in task.stream.ready] == [0, 1]
    assert [one["index"] for one in plane.session_state(session).values["stream_T"]] == [0, 1]


def test_a_cancelled_task_has_nothing_more_to_say(plane: Plane, session: str) -> None:
    begin(plane, session)
    plane.cancel("T", 2.0)
    assert nothing(plane.record_event(session, "T", event(0), 3.0))


def test_what_is_heard_of_tasks_that_are_not_there_is_refused(plane: Plane, session: str) -> None:
    begin(plane, session)
    elsewhere, _ = plane.create_session(0.0)
    calls: list[tuple[type[Exception], Callable[[], object]]] = [
        (TaskNotFound, lambda: plane.complete(End(result("U")), 1.0)),
        (TaskNotFound, lambda: plane.record_event(elsewhere, "T", event(0), 1.0)),
        (SessionNotFound, lambda: plane.record_event("nope", "T", event(0), 1.0)),
        (TaskNotFound, lambda: plane.answer(session, "U", "echo", "", 1.0)),
        (SessionNotFound, lambda: plane.answer("nope", "T", "echo", "", 1.0)),
        (TaskNotFound, lambda: plane.cancel("U", 1.0)),
    ]
    for error, call in calls:
        with pytest.raises(error):
            call()


def test_an_answer_goes_to_the_service_in_order_behind_the_task(plane: Plane, session: str) -> None:
    begin(plane, session)
    plane.answer(session, "T", "echo", "Ann", 2.0)
    first, second = plane.tasks.unsent()
    assert (first.number, second.number) == (1, 2)
    assert second.body["action"] == "send_event"
    assert second.body["data"] == {"input": "Ann", "task_id": "T", "session_id": session, "service_id": "echo"}
    assert second.key != first.key


def test_an_answer_for_a_service_that_is_not_there_is_refused(plane: Plane, session: str) -> None:
    begin(plane, session)
    with pytest.raises(ServiceNotFound, match="'ghost'"):
        plane.answer(session, "T", "ghost", "Ann", 2.0)
    plane.deregister("echo")
    assert plane.answer(session, "T", "echo", "Ann", 2.0).messages


def test_a_task_that_is_removed_takes_its_own_messages_alone(plane: Plane, session: str) -> None:
    class Unscannable(dict[int, Any]):
        """There may be a hundred thousand of them."""

        def __iter__(self) -> Any:
            raise AssertionError("all messages were gone through")

        items = values = keys = __iter__

    elsewhere, _ = plane.create_session(0.0)
    begin(plane, session)
    begin(plane, elsewhere, "U")
    plane.answer(session, "T", "echo", "Ann", 2.0)
    plane.tasks._outgoing = outgoing = Unscannable(plane.tasks._outgoing)
    effects = plane.delete_session(session)
    assert [change.key for change in effects.changes if change.table == "outbox"] == ["1", "3"]
    assert [number for number in range(9) if number in outgoing] == [2]


def test_a_message_that_is_sent_leaves_the_outbox_once(plane: Plane, session: str) -> None:
    begin(plane, session)
    assert [(change.table, change.value) for change in plane.sent(1).changes] == [("outbox", None)]
    assert nothing(plane.sent(1))
    assert plane.tasks.unsent() == []


def test_a_task_whose_message_is_refused_fails_and_says_why(plane: Plane, session: str) -> None:
    task = begin(plane, session)
    assert plane.refused(1, "too large", 2.0).wakes == ["T"]
    assert task.status is TaskStatus.FAILED
    assert task.error is not None
    assert task.error.endswith("too large")
    assert task.result == result(text=task.error)
    assert nothing(plane.refused(1, "too large", 3.0))


def test_a_task_that_takes_too_long_times_out(plane: Plane, session: str) -> None:
    task = begin(plane, session, timeout_s=10.0)
    begin(plane, session, "U", timeout_s=5.0)
    plane.complete(End(result("U")), 2.0)
    effects, due = plane.tick(10.9)
    assert nothing(effects)
    assert due == 11.0
    effects, due = plane.tick(11.0)
    assert effects.wakes == ["T"]
    assert task.status is TaskStatus.TIMED_OUT
    assert task.error == "TASK_TIMED_OUT: the task has not ended within 10 s"
    assert due == 1002.0  # when U need not be kept any longer


def test_a_cancelled_task_has_ended(plane: Plane, session: str) -> None:
    task = begin(plane, session)
    assert plane.cancel("T", 2.0).wakes == ["T"]
    assert task.status is TaskStatus.CANCELLED
    assert nothing(plane.complete(End(result()), 3.0))


def test_ended_tasks_are_kept_for_their_time(plane: Plane, session: str) -> None:
    begin(plane, session)
    begin(plane, session, "U")
    plane.complete(End(result()), 2.0)
    assert plane.tick(1001.9)[1] == 1002.0
    effects, due = plane.tick(1002.0)
    assert {(change.table, change.key) for change in effects.changes} == {
        ("task", "T"),
        ("event", "T"),
        ("outbox", "1"),
    }
    assert due is None
    assert plane.sessions.get(session).task_ids == ["U"]


def test_no_more_ended_tasks_are_kept_than_shall_be() -> None:
    plane = make_plane(keep=1)
    session, _ = plane.create_session(0.0)
    for name in ("T", "U"):
        begin(plane, session, name)
    plane.complete(End(result("U")), 2.0)
    assert plane.tick(2.0) == (Effects(), 1002.0)
    plane.complete(End(result("T")), 3.0)
    due = plane.tasks.next_deadline()
    assert due is not None
    assert due <= 3.0
    plane.tick(3.0)
    assert plane.sessions.get(session).task_ids == ["T"]


# Sessions


def test_a_state_is_merged_at_its_top_level(plane: Plane, session: str) -> None:
    assert plane.update_state(session, {"a": {"x": 1}}, 1.0)[1].changes
    plane.update_state(session, {"a": {"y": 1}, "b": 2}, 1.0)
    assert plane.session_state(session) == (2, {"a": {"y": 1}, "b": 2})
    version, effects = plane.update_state(session, {"b": 2}, 1.0)
    assert (version, nothing(effects)) == (2, True)


def test_a_state_that_is_written_back_undoes_nothing(plane: Plane, session: str) -> None:
    begin(plane, session)
    plane.record_event(session, "T", event(0), 2.0)
    stale = plane.session_state(session).values
    plane.record_event(session, "T", event(1), 3.0)
    plane.complete(End(result()), 4.0)
    plane.update_state(session, stale | {"context": "c", "stream_T": [], "result_T": None, "retries": 7}, 5.0)
    about = {"task_id": "T", "session_id": session}
    assert plane.session_state(session).values == {
        "context": "c",
        "T": {},
        "stream_T": [{**about, "data": {"n": 0}, "index": 0}, {**about, "data": {"n": 1}, "index": 1}],
        "retries": 0,
        "result_T": result(),
    }


def test_names_like_those_of_kept_values_are_free(plane: Plane, session: str) -> None:
    plane.update_state(session, {"stream_mine": 1, "result_mine": 2}, 1.0)
    assert plane.session_state(session).values == {"stream_mine": 1, "result_mine": 2}


def test_a_deleted_session_takes_its_tasks_with_it(plane: Plane, session: str) -> None:
    begin(plane, session)
    effects = plane.delete_session(session)
    assert effects.wakes == ["T"]
    assert {change.table for change in effects.changes} == {"session", "task", "event", "outbox"}
    assert plane.tasks.find("T") is None
    assert plane.tasks.unsent() == []
    assert nothing(plane.delete_session(session))
    with pytest.raises(SessionNotFound):
        plane.session_state(session)


def worker_plane(schema: dict[str, Any] | None = None, retry: Retry | None = None) -> tuple[Plane, str]:
    plane = make_plane()
    plane.register(Service("echo", "echoes", [], None, None, schema, is_worker=True, retry=retry or Retry()))
    return plane, plane.create_session(0.0)[0]


def test_a_newer_attempt_takes_the_task_from_the_older() -> None:
    plane, session = worker_plane()
    plane.add_task(session, new(), 1.0)
    assert plane.begin_attempt(session, "T", "one", 2.0)[0] == 1
    plane.hear(Said(session, "T", 1, [event(0)], None), 3.0)
    assert plane.begin_attempt(session, "T", "two", 4.0)[0] == 2
    task = plane.tasks.get("T")
    assert (task.worker, task.started_at, task.status) == ("two", 2.0, TaskStatus.RUNNING)
    assert nothing(plane.hear(Said(session, "T", 1, [event(1)], None), 5.0))
    assert nothing(plane.hear(Said(session, "T", 1, [], End(result())), 5.0))
    assert nothing(plane.hear(Said(session, "T", 2, [event(0)], None), 5.0))
    plane.hear(Said(session, "T", 2, [event(1)], None), 6.0)
    assert [one.index for one in task.stream.ready] == [0, 1]
    plane.hear(Said(session, "T", 2, [], End(result(), "ValueError: no", {"state": 1})), 7.0)
    assert (task.status, task.error) == (TaskStatus.FAILED, "ValueError: no")
    assert plane.context(task) == {"state": 1}


def test_a_task_that_has_ended_is_not_begun_again() -> None:
    plane, session = worker_plane()
    plane.add_task(session, new(), 1.0)
    plane.cancel("T", 2.0)
    assert nothing(plane.begin_attempt(session, "T", "one", 3.0)[1])


def test_a_task_that_ends_all_its_workers_fails() -> None:
    plane, session = worker_plane()
    plane.add_task(session, new(), 1.0)
    for number in range(1, MAX_ATTEMPTS + 1):
        assert plane.begin_attempt(session, "T", "one", 2.0)[0] == number
    plane.begin_attempt(session, "T", "one", 3.0)
    task = plane.tasks.get("T")
    assert (task.status, task.attempt) == (TaskStatus.FAILED, MAX_ATTEMPTS)
    assert task.error == "TASK_ABANDONED: none of 20 attempts has come to its end"


def test_a_worker_is_sent_inputs_by_the_task_and_not_by_the_queue() -> None:
    plane, session = worker_plane()
    plane.add_task(session, new(), 1.0)
    assert plane.answer(session, "T", "echo", "early", 1.0).messages == []
    plane.begin_attempt(session, "T", "one", 2.0)
    plane.record_event(session, "T", event(0), 2.0)
    plane.record_event(session, "T", event(1, prefix="who?"), 3.0)
    task = plane.tasks.get("T")
    statuses = [task.status]
    assert plane.answer(session, "T", "echo", "Ann", 4.0).wakes == ["T"]
    statuses.append(task.status)
    assert statuses == [TaskStatus.WAITING_INPUT, TaskStatus.RUNNING]
    assert task.inputs == [("early", 0), ("Ann", 1)]
    plane.complete(End(result()), 5.0)
    assert nothing(plane.answer(session, "T", "echo", "late", 6.0))


def test_arguments_are_checked_before_anything_happens() -> None:
    plane, session = worker_plane({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
    with pytest.raises(InvalidArguments, match="missing argument 'n'; this service takes: n"):
        plane.add_task(session, new(), 1.0)
    assert plane.tasks.find("T") is None
    assert plane.add_task(session, new(input='{"n": 1}'), 1.0)[0] == "T"


def test_an_input_reaches_the_worker_of_a_service_that_was_deregistered() -> None:
    plane, session = worker_plane()
    plane.add_task(session, new(), 1.0)
    plane.begin_attempt(session, "T", "one", 2.0)
    plane.deregister("echo")
    effects = plane.answer(session, "T", "echo", "x", 3.0)
    assert effects.messages == []
    assert [one.event for one in plane.tasks.get("T").inputs] == ["x"]


def test_an_input_waits_for_the_worker_of_a_service_that_was_deregistered() -> None:
    plane, session = worker_plane()
    plane.add_task(session, new(), 1.0)
    plane.deregister("echo")
    assert plane.answer(session, "T", "echo", "x", 2.0).messages == []
    assert [one.event for one in plane.tasks.get("T").inputs] == ["x"]


# Attempts that fail


def fail(plane: Plane, session: str, attempt: int, now: float, *, retryable: bool = True) -> Effects:
    said = Said(session, "T", attempt, [], End(result(text="no"), "ValueError: no", retryable=retryable))
    return plane.hear(said, now)


def retrying(**policy: Any) -> tuple[Plane, str, Task]:
    """A plane whose task has been begun, at 2.0."""
    plane, session = worker_plane(retry=Retry(**{"max_attempts": 3, "backoff_s": 4.0} | policy))
    plane.add_task(session, new(), 1.0)
    plane.sent(1)
    plane.begin_attempt(session, "T", "one", 2.0, 0)
    return plane, session, plane.tasks.get("T")


def test_a_failed_attempt_is_followed_by_another_when_its_time_has_come() -> None:
    plane, session, task = retrying()
    effects = fail(plane, session, 1, 3.0)
    assert effects.wakes == ["T"]
    # Of 4 s, three quarters.
    assert (task.status, task.attempt, task.worker, task.retry_at) == (TaskStatus.QUEUED, 2, None, 6.0)
    assert (task.error, task.result, task.finished_at) == (None, None, None)
    assert task.failures == [Failure(1, "one", 3.0, "ValueError: no")]
    assert plane.tick(5.9) == (Effects(), 6.0)
    effects, due = plane.tick(6.0)
    (message,) = effects.messages
    assert (message.key, message.body["action"], message.body["data"]["retries"]) == ("task:T:2", "new_task", 1)
    assert (due, task.retry_at) == (None, None)
    assert plane.begin_attempt(session, "T", "two", 7.0, 1)[0] == 2
    assert (task.status, task.worker, task.started_at) == (TaskStatus.RUNNING, "two", 2.0)
    plane.hear(Said(session, "T", 2, [], End(result())), 8.0)
    assert (task.status, task.error) == (TaskStatus.SUCCEEDED, None)


def test_the_wait_grows_up_to_its_limit_and_the_last_failure_is_the_task_s() -> None:
    plane, session, task = retrying(max_attempts=5, max_backoff_s=10.0)
    waits = []
    for attempt in range(1, 5):
        now = 100.0 * attempt
        fail(plane, session, attempt, now)
        assert task.retry_at is not None
        waits.append(task.retry_at - now)
        plane.tick(task.retry_at)
        plane.begin_attempt(session, "T", "one", now + 50.0, attempt)
    assert waits == [3.0, 6.0, 7.5, 7.5]
    fail(plane, session, 5, 600.0)
    assert (task.status, task.attempt, task.error) == (TaskStatus.FAILED, 5, "ValueError: no")
    assert [one.attempt for one in task.failures] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("policy", "retryable"), [({}, False), ({"max_attempts": 1}, True)], ids=["not retryable", "one attempt"]
)
def test_a_failure_is_the_end_where_nothing_follows(policy: dict[str, Any], retryable: bool) -> None:
    plane, session, task = retrying(**policy)
    fail(plane, session, 1, 3.0, retryable=retryable)
    assert (task.status, task.error, task.failures) == (TaskStatus.FAILED, "ValueError: no", [])


def test_a_failure_for_a_service_that_was_deregistered_is_the_end() -> None:
    plane, session, task = retrying()
    plane.deregister("echo")
    fail(plane, session, 1, 3.0)
    assert task.status is TaskStatus.FAILED


def test_an_attempt_that_has_failed_says_nothing_more_and_is_not_begun_again() -> None:
    plane, session, task = retrying()
    fail(plane, session, 1, 3.0)
    assert nothing(fail(plane, session, 1, 3.5))
    assert nothing(plane.hear(Said(session, "T", 1, [event(0)], End(result())), 3.5))
    # Its message comes again, since its ack was lost: before the next attempt, in it, and behind it.
    assert plane.begin_attempt(session, "T", "one", 4.0, 0) == (1, Effects())
    plane.tick(6.0)
    plane.begin_attempt(session, "T", "two", 7.0, 1)
    assert plane.begin_attempt(session, "T", "one", 7.5, 0) == (1, Effects())
    assert (task.attempt, task.worker) == (2, "two")
    # That of the second does begin it anew.
    assert plane.begin_attempt(session, "T", "three", 8.0, 1)[0] == 3
    fail(plane, session, 3, 9.0)
    assert [one.attempt for one in task.failures] == [1, 3]
    assert plane.begin_attempt(session, "T", "three", 9.5, 1) == (3, Effects())


def test_a_task_that_waits_for_its_next_attempt_can_be_cancelled_and_times_out() -> None:
    for end in ("cancel", "time"):
        plane, session = worker_plane(retry=Retry(3, 40.0))
        plane.add_task(session, new(timeout_s=10.0), 1.0)
        plane.begin_attempt(session, "T", "one", 2.0, 0)
        fail(plane, session, 1, 3.0)
        task = plane.tasks.get("T")
        effects = plane.cancel("T", 4.0) if end == "cancel" else plane.tick(11.0)[0]
        assert effects.messages == []
        assert (str(task.status), task.retry_at) == ("cancelled" if end == "cancel" else "timed_out", None)
        # The time that the next attempt would have had is nobody's any more.
        effects, due = plane.tick(100.0)
        assert effects == Effects()
        assert due == (task.finished_at or 0.0) + 1000.0


def test_retries_end_with_the_last_of_all_attempts() -> None:
    plane, session, task = retrying(max_attempts=MAX_ATTEMPTS)
    for _ in range(MAX_ATTEMPTS - 1):
        plane.begin_attempt(session, "T", "dies", 2.0, 0)
    assert task.attempt == MAX_ATTEMPTS
    fail(plane, session, MAX_ATTEMPTS, 3.0)
    assert (task.status, task.error) == (TaskStatus.FAILED, "ValueError: no")
