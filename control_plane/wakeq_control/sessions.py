"""Sessions and their states.

llama_deploy keeps streams and results in the session's state, where services that write the whole state back overwrite
what has come meanwhile. Here they are the tasks' own, and are only shown as part of the state; who writes them back
writes nothing.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from wakeq_control.errors import SessionNotFound
from wakeq_control.model import Effects, Session, Task

_RETRIES = "retries"


class Sessions:
    """Sessions by id."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}

    def all(self) -> list[Session]:
        """The oldest first."""
        return list(self._sessions.values())

    def get(self, session_id: str) -> Session:
        """Raises SessionNotFound."""
        try:
            return self._sessions[session_id]
        except KeyError:
            raise SessionNotFound from None

    def restore(self, session: Session) -> None:
        """Take one from the store."""
        self._sessions[session.id] = session

    def create(self, session_id: str, now: float, effects: Effects) -> Session:
        """Make a session, its state empty."""
        session = self._sessions[session_id] = Session(session_id, now)
        _store(session, effects)
        return session

    def delete(self, session_id: str, effects: Effects) -> list[str]:
        """Forget a session; returns the ids of its tasks. One that isn't there has none."""
        session = self._sessions.pop(session_id, None)
        if session is None:
            return []
        effects.drop("session", session_id)
        return session.task_ids

    def update(self, session_id: str, values: Mapping[str, Any], effects: Effects) -> None:
        """Merge values into the state, except what the control plane keeps. Raises SessionNotFound."""
        session = self.get(session_id)
        kept = _kept(session)
        new = {key: value for key, value in values.items() if key not in kept}
        if any(key not in session.state or session.state[key] != value for key, value in new.items()):
            session.state.update(new)
            _store(session, effects)


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


def _kept(session: Session) -> set[str]:
    own = (key for task_id in session.task_ids for key in (task_id, f"stream_{task_id}", f"result_{task_id}"))
    return {_RETRIES, *own}


def _store(session: Session, effects: Effects) -> None:
    effects.put("session", session.id, {"created_at": session.created_at, "state": session.state})
