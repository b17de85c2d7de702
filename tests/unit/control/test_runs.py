"""Tasks that each replica of a service is given: who gets them, what they show, and how they end."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.control.test_plane import event, make_plane, new, nothing, result
from wakeq_control.errors import TaskNotFound, TooManyInputs, TooManyTasks
from wakeq_control.limits import Limits
from wakeq_control.model import Effects, Retry, Service, Task, TaskStatus
from wakeq_control.plane import End, NewTask, Plane, Said
from wakeq_control.replicas import MISSING_S
from wakeq_control.state.base import StateStore
from wakeq_control.state.memory import MemoryStore
from wakeq_control.state.sqlite import SqliteStore
from wakeq_control.streams import Event

ALL = Service("all", "d", [], None, None, is_worker=True, delivery="all")
RETRYING = replace(ALL, retry=Retry(2, 1.0, 1.0))
ONE = Service("all", "d", [], None, None, is_worker=True)
QUESTION = {"prefix": "?"}


class World:
    """A plane, its store, and what was to be published."""

    def __init__(
        self,
        plane: Plane | None = None,
        service: Service = ALL,
        store: StateStore | None = None,
        session: str | None = None,
    ) -> None:
        """``session``: one that the plane has."""
        self.plane = plane or make_plane()
        self.store = store or MemoryStore()
        self.messages: list[tuple[str, str, str]] = []
        """Where to, of which task, and under which key."""
        self.woken: list[str] = []
        self.store.commit(self.plane.name_itself().changes)
        if session is None:
            self.decided(self.plane.register(service))
        self.session = session or self._created()

    def _created(self) -> str:
        session, effects = self.plane.create_session(0.0)
        self.decided(effects)
        return session

    def decided(self, effects: Effects) -> None:
        self.store.commit(effects.changes)
        self.messages += [(one.service, one.task_id, one.key) for one in effects.messages]
        self.woken += effects.wakes

    def up(self, *replicas: str) -> None:
        """These are there, and nobody else."""
        self.decided(self.plane.replicas.present_are([(f"all/{name}", f"w-{name}") for name in replicas], 0.0))

    def comes(self, replica: str) -> None:
        self.decided(self.plane.replicas.appeared(f"all/{replica}", f"w-{replica}", 1.0))

    def goes(self, replica: str, now: float = 5.0) -> None:
        self.decided(self.plane.replicas.went(f"all/{replica}", f"w-{replica}", now))

    def add(self, task_id: str = "T", **more: Any) -> Task:
        self.decided(self.plane.add_task(self.session, new(task_id, service="all", **more), 1.0)[1])
        return self.plane.tasks.get(task_id)

    def run(self, number: int, task_id: str = "T") -> Task:
        return self.plane.tasks.get(f"{task_id}/{number}")

    def begin(self, number: int, now: float = 2.0, task_id: str = "T") -> int:
        attempt, effects = self.plane.begin_attempt(self.session, f"{task_id}/{number}", f"worker {number}", now)
        self.decided(effects)
        return attempt

    def says(self, number: int, *events: Event, end: End | None = None, task_id: str = "T", attempt: int = 0) -> None:
        run_id = f"{task_id}/{number}"
        attempt = attempt or self.plane.tasks.get(run_id).attempt
        self.decided(self.plane.hear(Said(self.session, run_id, attempt, list(events), end), 3.0))

    def ends(self, number: int, text: str = "done", *, task_id: str = "T", **more: Any) -> None:
        self.says(number, end=End(result(f"{task_id}/{number}", text), **more), task_id=task_id)

    def sends(self, text: str, task_id: str = "T") -> None:
        self.decided(self.plane.answer(self.session, task_id, "all", text, 3.0))

    def restarted(self) -> "World":
        """The same with a plane that has what the store has."""
        plane = make_plane()
        plane.restore(self.store.load())
        return World(plane, store=self.store, session=self.session)


@pytest.fixture
def world() -> World:
    return World()


def shown(task: Task) -> list[tuple[int, Any]]:
    return [(one.index, one.data["n"]) for one in task.stream.ready]


# Who is given a task


def test_each_replica_that_is_there_is_given_a_task_once(world: World) -> None:
    world.up("b", "a")
    task = world.add()
    assert task.replicas == ["a", "b"]
    assert world.messages == [("all/a", "T/0", "task:T/0:1"), ("all/b", "T/1", "task:T/1:1")]
    world.comes("c")
    assert task.replicas == ["a", "b"]
    body = world.plane.tasks.unsent()[1].body
    assert (body["type"], body["data"]["task_id"], body["data"]["session_id"]) == ("all", "T/1", world.session)


@pytest.mark.parametrize("known", [False, True], ids=["unknown", "down"])
def test_a_task_waits_for_the_first_replica(*, world: World, known: bool) -> None:
    if known:
        world.up()
    first, second = world.add("one"), world.add("two")
    assert (first.status, first.replicas, world.messages) == (TaskStatus.QUEUED, [], [])
    world.up()
    world.comes("a")
    world.comes("b")
    assert (first.replicas, second.replicas) == (["a"], ["a"])
    assert [where for where, _, _ in world.messages] == ["all/a", "all/a"]


def test_what_waits_is_given_to_all_of_a_snapshot(world: World) -> None:
    task = world.add()
    world.up("a", "b", "c")
    assert task.replicas == ["a", "b", "c"]


def test_a_consumer_of_the_services_own_topic_is_no_replica(world: World) -> None:
    world.decided(world.plane.replicas.present_are([("all", "old"), ("other/a", "x")], 0.0))
    assert not world.add().replicas
    registry = world.plane.registry
    assert (registry.state("all"), registry.consumers("all")) == ("down", [])
    world.comes("a")
    assert (registry.state("all"), registry.consumers("all")) == ("up", ["w-a"])
    world.goes("a")
    assert registry.state("all") == "down"


def test_a_replica_is_there_as_long_as_one_of_its_workers_is(world: World) -> None:
    world.up("a")
    world.decided(world.plane.replicas.appeared("all/a", "second", 1.0))
    world.goes("a")
    assert world.add().replicas == ["a"]
    world.decided(world.plane.replicas.went("all/a", "second", 6.0))
    assert world.plane.tasks.get("T").status is TaskStatus.FAILED


def test_the_same_task_again_changes_nothing(world: World) -> None:
    world.up("a")
    world.add()
    known, effects = world.plane.add_task(world.session, new(service="all"), 2.0)
    assert (known, nothing(effects)) == ("T", True)


def test_runs_are_in_no_list_of_tasks(world: World) -> None:
    world.up("a", "b")
    world.add()
    plane = world.plane
    assert plane.sessions.get(world.session).task_ids == ["T"]
    assert plane.sessions.get(world.session).unfinished == 1
    assert set(plane.session_state(world.session).values) == {"T"}


def test_runs_count_as_tasks_that_have_not_ended() -> None:
    plane = Plane(iter("PS").__next__, keep=100, keep_s=1000.0, limits=Limits(tasks=3))
    world = World(plane)
    world.up("a", "b", "c")
    world.add()
    assert plane.tasks.unfinished == 4
    with pytest.raises(TooManyTasks):
        world.add("another")
    for number in range(3):
        world.ends(number)
    assert plane.tasks.unfinished == 0
    world.add("another")


# What it shows


def test_events_of_all_runs_come_as_one_stream(world: World) -> None:
    world.up("a", "b")
    task = world.add()
    world.begin(0)
    world.begin(1)
    world.says(0, event(0, n="a0"))
    world.says(1, event(0, n="b0"), event(1, n="b1"))
    world.says(0, event(1, n="a1"))
    assert shown(task) == [(0, "a0"), (1, "b0"), (2, "b1"), (3, "a1")]
    assert "T" in world.woken


def test_an_event_is_shown_once_whatever_begins_anew(world: World) -> None:
    world.up("a", "b")
    task = world.add()
    world.begin(0)
    world.says(0, event(0, n="a0"), event(1, n="a1"))
    assert world.begin(0) == 2
    world.says(0, event(0, n="a0"), attempt=1)
    world.says(0, event(0, n="a0"), event(1, n="a1"), event(2, n="a2"))
    assert shown(task) == [(0, "a0"), (1, "a1"), (2, "a2")]


def test_one_that_is_missing_holds_back_those_of_its_run_alone(world: World) -> None:
    world.up("a", "b")
    task = world.add()
    world.begin(0)
    world.says(0, event(1, n="a1"))
    world.says(1, event(0, n="b0"))
    assert shown(task) == [(0, "b0")]
    world.says(0, event(0, n="a0"))
    assert shown(task) == [(0, "b0"), (1, "a0"), (2, "a1")]


def test_what_may_be_shown_is_the_tasks() -> None:
    world = World(Plane(iter("PS").__next__, keep=100, keep_s=1000.0, limits=Limits(events=3)))
    world.up("a", "b")
    task = world.add()
    world.says(0, event(0), event(1))
    world.says(1, event(0), event(1))
    assert len(task.stream.ready) == 3
    assert (world.run(1).status, task.status) == (TaskStatus.FAILED, TaskStatus.RUNNING)
    world.ends(0)
    assert task.error is not None
    assert task.error.startswith("1 of 2 replicas failed: b: TOO_MANY_EVENTS: ")


# Where it stands


def test_it_runs_from_the_first_that_begins_to_the_last_that_ends(world: World) -> None:
    world.up("a", "b")
    task = world.add()
    assert (task.status, task.started_at) == (TaskStatus.QUEUED, None)
    world.begin(1)
    assert (task.status, task.started_at, task.worker) == (TaskStatus.RUNNING, 2.0, None)
    world.ends(1, "b's")
    assert task.status is TaskStatus.RUNNING
    world.begin(0)
    world.ends(0, "a's")
    assert (task.status, task.finished_at, task.error) == (TaskStatus.SUCCEEDED, 3.0, None)
    assert task.result is not None
    assert json.loads(task.result["result"]) == {"a": "a's", "b": "b's"}
    assert task.result["task_id"] == "T"
    assert world.plane.sessions.get(world.session).unfinished == 0


def test_it_waits_for_input_while_one_does_and_each_is_given_what_comes(world: World) -> None:
    world.up("a", "b", "c")
    task = world.add()
    world.ends(2)
    world.begin(0)
    world.says(0, event(0, **QUESTION))
    world.begin(1)
    assert str(task.status) == "waiting_input"
    world.sends("yes")
    assert str(task.status) == "running"
    assert [world.run(number).inputs for number in range(3)] == [[("yes", 1)], [("yes", 0)], []]
    assert {"T/0", "T/1"} <= set(world.woken)
    world.says(1, event(0, **QUESTION))
    assert str(task.status) == "waiting_input"
    world.ends(1)
    assert str(task.status) == "running"


def test_what_was_sent_before_there_were_runs_each_of_them_has(world: World) -> None:
    world.add()
    world.sends("early")
    world.up("a", "b")
    assert [world.run(number).inputs for number in range(2)] == [[("early", 0)], [("early", 0)]]


def test_an_input_too_many_reaches_nobody() -> None:
    world = World(Plane(iter("PSE").__next__, keep=100, keep_s=1000.0, limits=Limits(events=1)))
    world.up("a", "b")
    world.add()
    world.sends("first")
    with pytest.raises(TooManyInputs):
        world.sends("second")
    assert [len(world.run(number).inputs) for number in range(2)] == [1, 1]


def test_it_fails_if_one_fails_and_says_which(world: World) -> None:
    world.up("a", "b", "c")
    task = world.add()
    world.ends(0, "a's")
    world.ends(1, "broken", error="ValueError: broken")
    assert task.finished_at is None
    world.ends(2, "c's")
    assert (task.status, task.error) == (TaskStatus.FAILED, "1 of 3 replicas failed: b: ValueError: broken")
    results = [run.result["result"] for run in world.plane.runs.of(task) if run.result is not None]
    assert results == ["a's", "broken", "c's"]


def test_of_many_errors_the_first_are_told(world: World) -> None:
    world.up(*(f"r{number:02}" for number in range(12)))
    task = world.add()
    for number in range(12):
        world.ends(number, error="E: no")
    assert task.error is not None
    assert task.error.startswith("12 of 12 replicas failed: r00: E: no; r01: ")
    assert task.error.endswith("r09: E: no; and 2 more")


def test_an_attempt_that_fails_is_begun_again_by_its_replica() -> None:
    world = World(service=RETRYING)
    world.up("a", "b")
    task = world.add()
    world.begin(0)
    world.ends(1, "b's")
    world.ends(0, "no", error="E: no", retryable=True)
    run = world.run(0)
    assert (run.status, run.attempt, task.status) == (TaskStatus.QUEUED, 2, TaskStatus.RUNNING)
    assert run.retry_at is not None
    world.decided(world.plane.tick(run.retry_at)[0])
    assert world.messages[-1] == ("all/a", "T/0", "task:T/0:2")
    world.begin(0, now=5.0)
    world.ends(0, "a's")
    assert task.status is TaskStatus.SUCCEEDED


@pytest.mark.parametrize("how", ["cancelled", "timed_out"])
def test_its_end_before_theirs_reaches_each_run(world: World, how: str) -> None:
    world.up("a", "b")
    task = world.add(timeout_s=10.0)
    world.begin(0)
    world.begin(1)
    world.says(0, event(0))
    world.ends(0, "a's")
    world.woken.clear()
    world.decided(world.plane.cancel("T", 4.0) if how == "cancelled" else world.plane.tick(11.0)[0])
    assert str(task.status) == how
    assert [str(run.status) for run in world.plane.runs.of(task)] == ["succeeded", how]
    assert {"T", "T/1"} <= set(world.woken)
    assert world.plane.tasks.unfinished == 0
    world.says(1, event(0), end=End(result("T/1")))
    assert len(task.stream.ready) == 1


def test_a_task_that_waits_for_replicas_can_be_cancelled(world: World) -> None:
    world.add()
    world.decided(world.plane.cancel("T", 4.0))
    world.up("a")
    assert (world.messages, world.plane.runs.awaited()) == ([], [])


def test_messages_of_runs_that_have_ended_are_needed_no_more(world: World) -> None:
    world.up("a", "b")
    world.add()
    numbers = [message.number for message in world.plane.tasks.unsent()]
    world.decided(world.plane.cancel("T", 4.0))
    assert not any(world.plane.tasks.is_unsent(number) for number in numbers)
    assert not world.store.load().outgoing


# Replicas that go


def test_what_a_replica_has_that_goes_has_failed(world: World) -> None:
    world.up("a", "b")
    task = world.add()
    world.begin(0)
    world.begin(1)
    world.goes("a")
    assert world.run(0).error == "REPLICA_GONE: the replica went away before it had ended the task"
    assert "T/0" in world.woken
    world.ends(1)
    assert (task.status, task.error) == (TaskStatus.FAILED, f"1 of 2 replicas failed: a: {world.run(0).error}")
    world.comes("a")
    world.ends(0, "late")
    assert world.run(0).status is TaskStatus.FAILED


def test_a_worker_that_follows_its_run_may_end_it(world: World) -> None:
    followed = {"T/0"}
    world.plane.replicas.is_followed = followed.__contains__
    world.up("a", "b")
    task = world.add()
    world.begin(0)
    world.goes("a")
    assert world.run(0).status is TaskStatus.RUNNING
    world.ends(0, "a's")
    world.ends(1)
    assert task.status is TaskStatus.SUCCEEDED
    world.comes("a")
    world.add("U")
    followed.add("U/0")
    world.goes("a")
    followed.clear()
    world.decided(world.plane.replicas.left(9.0))
    assert world.run(0, "U").status is TaskStatus.FAILED


def test_a_worker_that_is_away_from_us_alone_is_not_gone(world: World) -> None:
    world.up("a")
    world.add()
    world.begin(0)
    assert nothing(world.plane.replicas.left(9.0))


def test_nothing_ends_while_nobody_knows_who_is_there(world: World) -> None:
    world.up("a", "b")
    task = world.add()
    world.begin(0)
    world.plane.replicas.lost_sight()
    assert nothing(world.plane.replicas.left(9.0))
    assert world.plane.tick(1_000.0)[1] is None
    assert task.status is TaskStatus.RUNNING


def test_who_is_missing_when_the_queue_is_heard_again_has_time_to_come_back(world: World) -> None:
    world.up("a", "b", "c")
    world.add()
    world.plane.replicas.lost_sight()
    assert world.plane.next_deadline() is None
    world.decided(world.plane.replicas.present_are([("all/a", "w-a")], 10.0))
    assert world.plane.next_deadline() == 10.0 + MISSING_S
    world.goes("a", 11.0)
    world.comes("b")
    assert not [run for run in world.plane.runs.of(world.plane.tasks.get("T")) if run.finished_at]
    world.decided(world.plane.tick(10.0 + MISSING_S)[0])
    statuses = [str(run.status) for run in world.plane.runs.of(world.plane.tasks.get("T"))]
    assert statuses == ["failed", "queued", "failed"]
    assert world.plane.next_deadline() is None


def test_a_topic_is_needed_as_long_as_its_replica_is_there_or_has_something_to_end(world: World) -> None:
    followed = {"T/0"}
    world.plane.replicas.is_followed = followed.__contains__
    world.up("a", "b")
    world.add()
    assert world.plane.replicas.went("all/b", "w-b", 5.0).gone == ["all/b"]
    assert world.plane.replicas.went("all/a", "w-a", 5.0).gone == []
    world.ends(0)
    assert world.plane.replicas.left(6.0).gone == ["all/a"]
    assert world.plane.replicas.left(7.0).gone == []
    assert world.plane.replicas.went("all", "w", 7.0).gone == []


def test_topics_of_replicas_that_have_not_come_back_are_needed_no_more(world: World) -> None:
    world.decided(world.plane.replicas.present_are([("all/a", "w-a")], 10.0, ["all/a", "all/b", "all/c", "gone/d"]))
    world.comes("b")
    effects, due = world.plane.tick(10.0 + MISSING_S)
    assert (effects.gone, due) == (["all/c", "gone/d"], None)
    assert world.plane.replicas.present_are([("all/a", "w-a")], 50.0, ["all/a"]).gone == []
    assert world.plane.next_deadline() is None


def test_who_is_about_to_go_is_given_nothing_more(world: World) -> None:
    world.up("a", "b")
    world.decided(world.plane.replicas.appeared("all/b", "second", 1.0))
    world.plane.registry.leaves("w-a")
    world.plane.registry.leaves("w-b")
    world.plane.registry.leaves("nobody")
    assert world.add().replicas == ["b"]
    world.plane.registry.leaves("second")
    world.plane.replicas.lost_sight()
    present = [("all/a", "w-a"), ("all/b", "w-b"), ("all/b", "second")]
    world.decided(world.plane.replicas.present_are(present, 2.0))
    assert world.add("waits").replicas == []
    assert world.plane.registry.state("all") == "up"
    world.goes("a")
    world.comes("a")
    assert world.plane.tasks.get("waits").replicas == ["a"]


def test_nobody_begins_anew_what_failed_at_a_replica_that_is_gone() -> None:
    world = World(service=RETRYING)
    world.plane.replicas.is_followed = {"T/0"}.__contains__
    world.up("a")
    task = world.add()
    world.begin(0)
    world.goes("a")
    world.ends(0, "no", error="E: no", retryable=True)
    assert (task.status, task.error) == (TaskStatus.FAILED, "1 of 1 replicas failed: a: E: no")


# Registrations that change


def test_what_waits_for_replicas_of_a_service_that_has_none_any_more_goes_to_one_worker(world: World) -> None:
    waiting = world.add("waits")
    world.up("a")
    given = world.add("given")
    world.plane.replicas.lost_sight()
    world.up()
    late = world.add("late")
    world.decided(world.plane.register(ONE))
    assert (waiting.replicas, given.replicas, late.delivery) == (["a"], ["a"], "one")
    assert world.messages[-1] == ("all", "late", "task:late:1")
    world.add("next")
    assert world.messages[-1] == ("all", "next", "task:next:1")
    assert world.plane.begin_attempt(world.session, "late", "w", 3.0)[0] == 1
    world.decided(world.plane.register(ALL))
    world.comes("b")
    assert world.add("again").replicas == ["b"]


def test_a_replica_goes_on_with_its_run_whatever_is_registered(world: World) -> None:
    world.up("a")
    task = world.add()
    world.decided(world.plane.register(ONE))
    world.decided(world.plane.deregister("all"))
    world.begin(0)
    world.ends(0)
    assert task.status is TaskStatus.SUCCEEDED


# Who may say anything


def test_only_a_runs_worker_speaks_for_it(world: World) -> None:
    world.up("a")
    world.add()
    plane, session = world.plane, world.session
    for task_id in ("T", "T/0"):
        with pytest.raises(TaskNotFound):
            plane.record_event(session, task_id, event(0), 2.0)
        with pytest.raises(TaskNotFound):
            plane.complete(End(result(task_id)), 2.0)
    with pytest.raises(TaskNotFound):
        plane.begin_attempt(session, "T", "w", 2.0)
    with pytest.raises(TaskNotFound):
        plane.hear(Said(session, "T", 1, [event(0)], None), 2.0)


def test_no_context_is_kept_or_given(world: World) -> None:
    world.up("a")
    task = world.add()
    world.decided(world.plane.update_state(world.session, {"context:all": {"n": 1}}, 1.0)[1])
    world.begin(0)
    assert world.plane.context(world.run(0)) is None
    world.ends(0, context={"n": 2})
    assert (task.context_error, world.run(0).context_error) == (None, None)
    assert world.plane.sessions.get(world.session).state == {"context:all": {"n": 1}}


def test_a_run_whose_message_the_queue_refuses_has_failed(world: World) -> None:
    world.up("a", "b")
    task = world.add()
    world.decided(world.plane.refused(world.plane.tasks.unsent()[0].number, "too large", 2.0))
    world.ends(1)
    assert task.error is not None
    assert task.error.startswith("1 of 2 replicas failed: a: QUEUE_REFUSED: ")


# What is left


@pytest.mark.parametrize("how", ["deleted", "old"])
def test_nothing_is_left_of_a_task_that_goes(world: World, how: str) -> None:
    world.up("a", "b")
    world.add()
    world.begin(0)
    world.says(0, event(0))
    if how == "deleted":
        world.decided(world.plane.delete_session(world.session))
        assert {"T", "T/0", "T/1"} <= set(world.woken)
    else:
        world.ends(0)
        world.ends(1)
        world.decided(world.plane.tick(5_000.0)[0])
    snapshot = world.store.load()
    assert (snapshot.tasks, snapshot.outgoing) == ([], [])
    assert (world.plane.tasks.unfinished, world.plane.runs.addresses()) == (0, [])
    assert world.plane.tasks.find("T/0") is None


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StateStore]:
    with closing(MemoryStore() if request.param == "memory" else SqliteStore(tmp_path)) as store:
        yield store


def test_a_restart_goes_on(store: StateStore) -> None:
    before = World(store=store)
    before.up("a", "b")
    before.add()
    before.begin(0)
    before.says(0, event(0, n="a0"), event(1, n="a1"))
    before.says(1, event(0, n="b0"))
    before.says(0, event(2, n="a2"))
    before.sends("input")
    before.goes("a")
    before.goes("b")
    before.up("a", "b")
    before.add("U")
    before.up()
    before.add("waits")
    world = before.restarted()
    plane = world.plane
    assert plane.sessions.get(world.session).task_ids == ["T", "U", "waits"]
    assert plane.sessions.get(world.session).unfinished == 2
    for one, other in ((before.run(n, t), world.run(n, t)) for n in range(2) for t in "TU"):
        assert (one.status, one.inputs, one.replica, one.error) == (
            other.status,
            other.inputs,
            other.replica,
            other.error,
        )
    assert shown(plane.tasks.get("T")) == shown(before.plane.tasks.get("T"))
    assert plane.registry.get("all").delivery == "all"
    assert plane.runs.awaited() == ["all"]
    assert [message.service for message in plane.tasks.unsent()] == ["all/a", "all/b"]
    assert plane.tasks.unfinished == before.plane.tasks.unfinished == 4
    world.up("a", "b", "c")
    assert plane.tasks.get("waits").replicas == ["a", "b", "c"]
    world.begin(0, task_id="U")
    world.says(0, event(0, n="a0"), task_id="U")
    world.ends(0, task_id="U")
    world.ends(1, task_id="U")
    assert plane.tasks.get("U").status is TaskStatus.SUCCEEDED
    assert shown(plane.tasks.get("U")) == [(0, "a0")]


def test_a_run_that_was_begun_before_a_restart_shows_nothing_twice(store: StateStore) -> None:
    world = World(store=store)
    world.up("a", "b")
    world.add()
    world.begin(0)
    world.says(0, event(0, n="a0"), event(1, n="a1"))
    world = world.restarted()
    world.says(0, event(0, n="a0"), event(1, n="a1"), event(2, n="a2"))
    assert shown(world.plane.tasks.get("T")) == [(0, "a0"), (1, "a1"), (2, "a2")]
    assert shown(world.restarted().plane.tasks.get("T")) == [(0, "a0"), (1, "a1"), (2, "a2")]


def test_a_task_that_comes_by_the_queue_is_given_to_all() -> None:
    world = World()
    world.up("a", "b")
    for effects in world.plane.add_task_alone(NewTask("{}", "all", "service_id", "Q"), 1.0):
        world.decided(effects)
    assert [task for _, task, _ in world.messages] == ["Q/0", "Q/1"]
