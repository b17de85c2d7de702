"""What a client of the control plane is given."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal

Delivery = Literal["one", "all"]
TaskStatus = Literal["queued", "running", "waiting_input", "succeeded", "failed", "cancelled", "timed_out"]


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """An attempt at a task that has failed, and was followed by another."""

    attempt: int
    worker: str | None
    failed_at: datetime
    error: str


@dataclass(frozen=True, slots=True)
class TaskReplica:
    """Where one replica stands with a task that each replica of its service is given."""

    replica: str
    """Its name."""
    status: TaskStatus
    attempt: int
    worker: str | None
    failures: tuple[TaskFailure, ...]
    retry_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None
    result: str | None

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "TaskReplica":
        """From one of a task's replicas."""
        kept = ("replica", "status", "attempt", "worker", "error", "result")
        return cls(
            failures=tuple(_failure(one) for one in wire["failures"]),
            retry_at=_instant(wire["retry_at"]),
            started_at=_instant(wire["started_at"]),
            finished_at=_instant(wire["finished_at"]),
            **{name: wire[name] for name in kept},
        )


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """Where a task stands."""

    id: str
    session_id: str
    service: str
    input: str
    """Its arguments, as JSON."""
    status: TaskStatus
    attempt: int
    """How often it was begun; 1 until a worker has died with it, or one has failed and another followed."""
    worker: str | None
    """Who has it, as far as its service says so."""
    failures: tuple[TaskFailure, ...]
    """The attempts that have failed and were followed by another, the oldest first."""
    retry_at: datetime | None
    """When the next attempt is to begin; None: it need not wait."""
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    """None: it has not ended."""
    timeout_s: float | None
    events: int
    """How many it has shown so far."""
    error: str | None
    """Why it has not succeeded; None: it has, or has not ended."""
    context_error: str | None
    """Why its workflow's context was not kept for the session's next task; None: it was, or there is none."""
    result: str | None
    """What it has come to; of a task that has not succeeded, the text of its error.

    With delivery ``all`` a JSON object: the replicas' results by their names.
    """
    delivery: Delivery
    """Whether one of its service's workers was given it, or each of its replicas."""
    replicas: tuple[TaskReplica, ...]
    """With delivery ``all``, those that were given it; none while it waits for the first to be there."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The server's JSON, with what this version of the client doesn't know."""

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "TaskInfo":
        """From a task of the control plane."""
        kept = ("session_id", "input", "status", "attempt", "worker", "timeout_s", "events", "error")
        return cls(
            id=wire["task_id"],
            service=wire.get("service_id") or wire["agent_id"],
            failures=tuple(_failure(one) for one in wire["failures"]),
            retry_at=_instant(wire["retry_at"]),
            created_at=datetime.fromisoformat(wire["created_at"]),
            started_at=_instant(wire["started_at"]),
            finished_at=_instant(wire["finished_at"]),
            context_error=wire.get("context_error"),
            delivery=wire.get("delivery", "one"),
            replicas=tuple(TaskReplica.from_wire(one) for one in wire.get("replicas", ())),
            result=None if wire["result"] is None else wire["result"]["result"],
            raw=wire,
            **{name: wire[name] for name in kept},
        )

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.finished_at is not None


@dataclass(frozen=True, slots=True)
class ServiceReplica:
    """One of those that are each given each of a service's tasks."""

    name: str
    state: Literal["up", "down", "unknown"]
    """Whether it takes tasks just now."""
    unfinished_tasks: int
    """How many it was given and has not ended."""


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    """A service, and who works for it."""

    name: str
    description: str
    host: str | None
    port: int | None
    """Where a service of llama_deploy listens, if it said so."""
    schema: Mapping[str, Any] | None
    """JSON Schema of its tasks' arguments; None: anything passes."""
    is_worker: bool
    """Whether it is run by `wakeq worker`."""
    retry: Mapping[str, Any]
    """What follows a failed attempt: ``max_attempts``, ``backoff_s``, ``max_backoff_s``."""
    max_concurrent_tasks: int | None
    """How many tasks each of its workers takes at a time; None: it doesn't say."""
    state: Literal["up", "down", "unknown"]
    """Whether anybody takes its tasks just now; unknown while the control plane doesn't reach the queue."""
    consumers: tuple[str, ...]
    """Who does, by name."""
    delivery: Delivery
    """Whether one of its workers is given a task, or each of its replicas."""
    replicas: tuple[ServiceReplica, ...]
    """With delivery ``all``: those that are there, and those that have something to end."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The server's JSON, with what this version of the client doesn't know."""

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "ServiceInfo":
        """From a service of the control plane."""
        told: dict[str, Any] = {"delivery": "one", "replicas": (), **wire}
        values = {one.name: told[one.name] for one in fields(cls) if one.name != "raw"}
        replicas = tuple(ServiceReplica(one["name"], one["state"], one["unfinished_tasks"]) for one in told["replicas"])
        return cls(**values | {"consumers": tuple(wire["consumers"]), "replicas": replicas, "raw": wire})


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """How a session stands: tasks that share a state, which `session_state` reads."""

    id: str
    created_at: datetime
    used_at: datetime
    """When its state was last written to, or one of its tasks began or ended."""
    tasks: int
    """How many it has."""
    unfinished_tasks: int
    """How many of these have not ended."""
    version: int
    """How often its state has changed."""
    state_bytes: int
    """What its state takes as JSON, without what its tasks show in it."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The server's JSON, with what this version of the client doesn't know."""

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "SessionInfo":
        """From a session of the control plane."""
        kept = ("tasks", "unfinished_tasks", "version", "state_bytes")
        return cls(
            id=wire["session_id"],
            created_at=datetime.fromisoformat(wire["created_at"]),
            used_at=datetime.fromisoformat(wire["used_at"]),
            raw=wire,
            **{name: wire[name] for name in kept},
        )


@dataclass(frozen=True, slots=True)
class SessionState:
    """What clients and services have put into a session's state."""

    values: Mapping[str, Any]
    version: int
    """How often it has changed: who writes with it is refused where somebody else has written meanwhile."""

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "SessionState":
        """From a state of the control plane."""
        return cls(dict(wire["state"]), int(wire["version"]))


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """What a running task shows."""

    index: int
    """From 0 on."""
    data: Any
    """JSON, an object in all that services show."""


def _failure(wire: Mapping[str, Any]) -> TaskFailure:
    failed_at = datetime.fromisoformat(wire["failed_at"])
    return TaskFailure(wire["attempt"], wire["worker"], failed_at, wire["error"])


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
