"""Messages are delivered at least once, and processes end: neither changes what clients see.

One plane hears everything once. Another hears some of it again, at any time later, and is restarted from its store in
between. Both must end up the same.
"""

from itertools import count
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from wakeq_control.errors import ControlError
from wakeq_control.model import Effects, Service
from wakeq_control.plane import End, NewTask, Plane
from wakeq_control.state.memory import MemoryStore
from wakeq_control.streams import Event

TASKS = ("T", "U", "V")
SESSION = "S"


class Said(NamedTuple):
    """Something that comes by a message or by a client's call, and may come again."""

    what: str
    task: str
    number: int = 0


said = st.one_of(
    st.builds(Said, st.just("task"), st.sampled_from(TASKS)),
    st.builds(Said, st.just("event"), st.sampled_from(TASKS), st.integers(0, 4)),
    st.builds(Said, st.just("asks"), st.sampled_from(TASKS), st.integers(0, 4)),
    st.builds(Said, st.just("result"), st.sampled_from(TASKS)),
    st.builds(Said, st.just("cancel"), st.sampled_from(TASKS)),
    st.builds(Said, st.just("state"), st.just(""), st.integers(0, 3)),
)


class Kept:
    """A plane with its store."""

    def __init__(self) -> None:
        self._store = MemoryStore()
        self._now = 0.0
        self.plane = self._made()
        self._keep(self.plane.register(Service("wf", "d", [], None, None)))
        self._keep(self.plane.create_session(0.0)[1])

    def _made(self) -> Plane:
        ids = count(1)
        plane = Plane(lambda: SESSION if next(ids) == 1 else f"id{next(ids)}", keep=100, keep_s=1e9)
        plane.restore(self._store.load())
        return plane

    def _keep(self, effects: Effects) -> None:
        self._store.commit(effects.changes)

    def restart(self) -> None:
        self.plane = self._made()

    def hear(self, one: Said) -> bool:
        """Whether it could be understood: a task has to be there first."""
        self._now += 1.0
        try:
            self._keep(self._effects(one))
        except ControlError:
            return False
        return True

    def _effects(self, one: Said) -> Effects:
        plane, now = self.plane, self._now
        match one.what:
            case "task":
                return plane.add_task(SESSION, NewTask("{}", "wf", "service_id", one.task), now)[1]
            case "event":
                return plane.record_event(SESSION, one.task, Event.make(one.number, {"n": one.number}), now)
            case "asks":
                return plane.record_event(SESSION, one.task, Event.make(one.number, {"prefix": "?"}), now)
            case "result":
                result = {"task_id": one.task, "history": [], "result": one.task, "data": {}}
                return plane.complete(End(result), now)
            case "cancel":
                return plane.cancel(one.task, now)
        return plane.update_state(SESSION, {f"key{one.number}": one.number}, now)[1]

    def seen(self) -> object:
        """What clients see, but the times."""
        tasks = self.plane.tasks.some(self.plane.sessions.get(SESSION).task_ids)
        return (
            self.plane.session_state(SESSION),
            [(task.id, task.status, task.error, [event.line for event in task.stream.ready]) for task in tasks],
            [message.key for message in self.plane.tasks.unsent()],
        )


@settings(deadline=None)
@given(
    st.lists(said, max_size=30),
    st.lists(st.tuples(st.integers(0, 29), st.integers(0, 40)), max_size=20),
    st.sets(st.integers(0, 40), max_size=5),
)
def test_nothing_changes(history: list[Said], again: list[tuple[int, int]], restarts: set[int]) -> None:
    once, often = Kept(), Kept()
    heard: list[Said] = []
    for place, one in enumerate(history):
        # What was refused was answered so, and is a new call when it comes again.
        if once.hear(one):
            heard.append(one)
        assert often.hear(one) == (heard[-1:] == [one])
        for which, when in again:
            if when == place and which < len(heard):
                assert often.hear(heard[which])
        if place in restarts:
            often.restart()
    for which, when in again:
        if when >= len(history) and which < len(heard):
            assert often.hear(heard[which])
    assert often.seen() == once.seen()
    often.restart()
    assert often.seen() == once.seen()
