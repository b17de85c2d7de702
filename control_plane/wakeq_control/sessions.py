"""Sessions and their states.

llama_deploy keeps streams and results in the session's state, where services that write the whole state back overwrite
what has come meanwhile. Here they are the tasks' own, and are only shown as part of the state; who writes them back
writes nothing.

A state has a version, which counts its changes. Who writes with the version that he has read is refused where the state
has changed since; and so is the context that a task leaves, where that of its service has.
"""

import math
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from wakeq_control.codec import dump
from wakeq_control.errors import SessionNotFound, StateConflict, StateTooLarge, TooManySessions
from wakeq_control.limits import Limits
from wakeq_control.model import Effects, Session, Task

_RETRIES = "retries"
_CONTEXT = "context:"

Versions = Collection[int] | None
"""Those that a state may have to be written; None: any."""


class State(NamedTuple):
    """What a session's state is at one moment."""

    version: int
    values: dict[str, Any]


class Place(NamedTuple):
    """Where a session stands in the order of their creation."""

    created_at: float
    session_id: str


class Summary(NamedTuple):
    """How a session stands at one moment, without its state."""

    place: Place
    used_at: float
    tasks: int
    unfinished_tasks: int
    version: int
    state_bytes: int


class Sessions:
    """Sessions by id."""

    def __init__(self, limits: Limits, keep_s: float = math.inf) -> None:
        """``keep_s``: how long a session is kept in which nothing happens and no task has to end."""
        self._limits = limits
        self._keep_s = keep_s
        self._sessions: dict[str, Session] = {}
        self._places: list[Place] = []
        self._idle: OrderedDict[str, None] = OrderedDict()
        """Those whose tasks have all ended, in the order in which they were used last."""

    def all(self) -> list[Session]:
        """The oldest first."""
        return [self._sessions[place.session_id] for place in self._places]

    def page(self, after: Place | None, limit: int) -> list[Session]:
        """The oldest behind a place, be it a session's that is gone; None: from the first on."""
        first = 0 if after is None else bisect_right(self._places, after)
        return [self._sessions[place.session_id] for place in self._places[first : first + limit]]

    def get(self, session_id: str) -> Session:
        """Raises SessionNotFound."""
        try:
            return self._sessions[session_id]
        except KeyError:
            raise SessionNotFound from None

    def restore(self, sessions: Iterable[Session], tasks: Iterable[Task]) -> None:
        """Take what the store has."""
        for session in sessions:
            self._add(session)
            session.state_bytes = len(dump(session.state))
        for task in tasks:
            if task.run_of is not None:
                continue
            session = self._sessions[task.session_id]
            session.unfinished += task.finished_at is None
            session.used_at = max(session.used_at, task.finished_at or task.created_at)
        for session in sorted(self._sessions.values(), key=lambda session: session.used_at):
            if not session.unfinished:
                self._idle[session.id] = None

    def check_room(self) -> None:
        """Raises TooManySessions where there can't be another one."""
        if len(self._sessions) >= self._limits.sessions:
            raise TooManySessions(f"there are {len(self._sessions):,} sessions, and no more may be (--max-sessions)")

    def create(self, session_id: str, now: float, effects: Effects) -> Session:
        """Make a session, its state empty. Raises TooManySessions."""
        self.check_room()
        session = Session(session_id, now)
        self._add(session)
        self._idle[session_id] = None
        _store(session, effects)
        return session

    def delete(self, session_id: str, effects: Effects) -> list[str]:
        """Forget a session; returns the ids of its tasks. One that isn't there has none."""
        session = self._sessions.pop(session_id, None)
        if session is None:
            return []
        del self._places[bisect_left(self._places, _place(session))]
        self._idle.pop(session_id, None)
        effects.drop("session", session_id)
        return session.task_ids

    def update(
        self, session_id: str, values: Mapping[str, Any], now: float, effects: Effects, versions: Versions = None
    ) -> int:
        """Merge values into the state, except what the control plane keeps; returns its version.

        Raises SessionNotFound, StateConflict, StateTooLarge.
        """
        session = self.get(session_id)
        _check(session, versions)
        return self._write(session, {**session.state, **_without_kept(session, values)}, now, effects)

    def replace(
        self, session_id: str, values: Mapping[str, Any], now: float, effects: Effects, versions: Versions = None
    ) -> int:
        """Put values in the place of the whole state, as `update` does."""
        session = self.get(session_id)
        _check(session, versions)
        return self._write(session, _without_kept(session, values), now, effects)

    def keep_context(self, task: Task, context: Mapping[str, Any], now: float, effects: Effects) -> str | None:
        """Keep what a task leaves for its service's next; returns why not, where another has been kept meanwhile.

        Raises SessionNotFound.
        """
        session = self.get(task.session_id)
        if self.context_version(task) != task.context_version:
            return "STATE_CONFLICT: the service's context in the session has changed since the task began"
        try:
            self._write(session, {**session.state, context_key(task.service): context}, now, effects)
        except StateTooLarge as error:
            return f"{error.code}: {error.detail}"
        return None

    def context_version(self, task: Task) -> int:
        """That of the context which the task's service has in its session now. Raises SessionNotFound."""
        return self.get(task.session_id).contexts.get(context_key(task.service), 0)

    # What becomes of a session's tasks

    def task_begins(self, session_id: str, task_id: str, now: float) -> None:
        """It has a new task. Raises SessionNotFound."""
        session = self.get(session_id)
        session.task_ids.append(task_id)
        session.unfinished += 1
        session.used_at = max(session.used_at, now)
        self._idle.pop(session_id, None)

    def task_ends(self, session_id: str, now: float) -> None:
        """One of its tasks has ended. Raises SessionNotFound."""
        session = self.get(session_id)
        session.unfinished -= 1
        self._used(session, now)

    def task_goes(self, session_id: str, task_id: str, effects: Effects) -> None:
        """One of its tasks, which has ended, is forgotten. Raises SessionNotFound."""
        session = self.get(session_id)
        session.task_ids.remove(task_id)
        if not session.task_ids:
            # As long as it has tasks, they say when it was last used.
            _store(session, effects)

    def expired(self, now: float) -> list[str]:
        """Those that need not be kept any longer."""
        found = []
        for session_id in self._idle:
            if self._sessions[session_id].used_at + self._keep_s > now:
                break
            found.append(session_id)
        return found

    def next_deadline(self) -> float | None:
        """When the next one expires if nothing happens to it."""
        if not self._idle or self._keep_s == math.inf:
            return None
        return self._sessions[next(iter(self._idle))].used_at + self._keep_s

    def _add(self, session: Session) -> None:
        self._sessions[session.id] = session
        insort(self._places, _place(session))

    def _used(self, session: Session, now: float) -> None:
        session.used_at = max(session.used_at, now)
        if not session.unfinished:
            self._idle[session.id] = None
            self._idle.move_to_end(session.id)

    def _write(self, session: Session, state: dict[str, Any], now: float, effects: Effects) -> int:
        changed = [key for key in {**session.state, **state} if not _is_same(key, session.state, state)]
        if not changed:
            return session.version
        size = len(dump(state))
        if size > self._limits.state_bytes:
            limit = self._limits.state_bytes
            raise StateTooLarge(f"the state would have {size:,} bytes, and may have {limit:,} (--max-state-bytes)")
        session.state, session.state_bytes = state, size
        session.version += 1
        for key in changed:
            if key not in state:
                session.contexts.pop(key, None)
            elif key.startswith(_CONTEXT):
                session.contexts[key] = session.version
        self._used(session, now)
        _store(session, effects)
        return session.version


def summary(session: Session) -> Summary:
    """How it stands now."""
    return Summary(
        _place(session),
        session.used_at,
        len(session.task_ids),
        session.unfinished,
        session.version,
        session.state_bytes,
    )


def context_key(service: str) -> str:
    """Where in a session's state a service's context is."""
    return f"{_CONTEXT}{service}"


def shown_state(session: Session, tasks: Iterable[Task]) -> dict[str, Any]:
    """The state as llama_deploy has it: with an entry, the stream and the result of each task."""
    tasks = list(tasks)
    shown = dict(session.state)
    shown.update({task.id: {} for task in tasks})
    shown.update({f"stream_{task.id}": _stream(task) for task in tasks if task.stream.arrived})
    results = {f"result_{task.id}": task.result for task in tasks if task.result is not None}
    if results:
        shown[_RETRIES] = len(results) - 1
    return shown | results


def _stream(task: Task) -> list[dict[str, Any]]:
    about = {"task_id": task.id, "session_id": task.session_id}
    return [{**about, "data": event.data, "index": event.index} for event in task.stream.arrived]


def _check(session: Session, versions: Versions) -> None:
    if versions is not None and session.version not in versions:
        raise StateConflict(session.version)


def _without_kept(session: Session, values: Mapping[str, Any]) -> dict[str, Any]:
    own = (key for task_id in session.task_ids for key in (task_id, f"stream_{task_id}", f"result_{task_id}"))
    kept = {_RETRIES, *own}
    return {key: value for key, value in values.items() if key not in kept}


def _is_same(key: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two states have the same JSON there. To Python, 1 and true are equal, and so are 1 and 1.0."""
    if key not in one or key not in other:
        return False
    return one[key] is other[key] or (one[key] == other[key] and dump(one[key]) == dump(other[key]))


def _place(session: Session) -> Place:
    return Place(session.created_at, session.id)


def _store(session: Session, effects: Effects) -> None:
    row = {
        "created_at": session.created_at,
        "used_at": session.used_at,
        "version": session.version,
        "contexts": session.contexts,
        "state": session.state,
    }
    effects.put("session", session.id, row)
