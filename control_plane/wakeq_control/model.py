"""What the control plane knows, and what its decisions ask of others.

A decision changes the state at once and returns `Effects`: what must be stored, and what may happen when it is. Nobody
is told of a decision before it is stored.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from wakeq_control.codec import dump
from wakeq_control.streams import Stream

Table = Literal["service", "session", "task", "event", "outbox", "plane"]
TABLES: tuple[Table, ...] = ("service", "session", "task", "event", "outbox", "plane")
IdField = Literal["service_id", "agent_id"]
Delivery = Literal["one", "all"]
"""Who is given a task: one of the service's workers, or each of its replicas."""


class TaskStatus(StrEnum):
    """Where a task is in its life; `lifecycle` has the ways between them."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING_INPUT = "waiting_input"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"


class Retry(NamedTuple):
    """What follows an attempt that has failed."""

    max_attempts: int = 1
    """How many may fail, the last of them for good. Those that a worker died with don't count."""
    backoff_s: float = 1.0
    """How long after the first failure the next attempt begins; twice as long after each further one."""
    max_backoff_s: float = 60.0

    def delay_s(self, failures: int, jitter: float) -> float:
        """How long after so many failures; ``jitter`` is in [0, 1): what fails together doesn't come back together."""
        longest = min(self.max_backoff_s, self.backoff_s * 2.0 ** (failures - 1))
        return longest * (0.5 + 0.5 * jitter)


NO_RETRY = Retry()
"""The first failure is the end."""


@dataclass(frozen=True, slots=True)
class Service:
    """A registration, as llama_deploy has it, or a worker's."""

    name: str
    description: str
    prompt: list[Any]
    host: str | None
    port: int | None
    schema: dict[str, Any] | None = None
    """JSON Schema of its tasks' arguments; None: anything passes."""
    is_worker: bool = False
    """Whether it follows each of its tasks here; others are told by the queue of what is sent to a running task."""
    retry: Retry = NO_RETRY
    max_concurrent_tasks: int | None = None
    """How many tasks each of its workers takes at a time; None: it doesn't say."""
    delivery: Delivery = "one"


@dataclass(slots=True)
class Session:
    """Tasks that share a state."""

    id: str
    created_at: float
    state: dict[str, Any] = field(default_factory=dict)
    """What clients and services put there; what the control plane keeps of tasks is not in it."""
    version: int = 0
    """How often the state has changed."""
    contexts: dict[str, int] = field(default_factory=dict)
    """By the keys of services' contexts in the state, the versions that they came with."""
    used_at: float = 0.0
    """When it was last written to, or one of its tasks began or ended."""
    state_bytes: int = 2
    task_ids: list[str] = field(default_factory=list)
    unfinished: int = 0
    """How many of its tasks have not ended."""

    def __post_init__(self) -> None:
        self.used_at = max(self.used_at, self.created_at)


class Input(NamedTuple):
    """An event for a running workflow, such as a human's answer."""

    event: str
    """As the client sent it."""
    after: int
    """How many questions the task had asked by then: an attempt that begins anew gets it when it has asked as many."""


class Failure(NamedTuple):
    """An attempt that has failed, and was followed by another."""

    attempt: int
    worker: str | None
    failed_at: float
    error: str


@dataclass(slots=True)
class Task:
    """A task, from its creation to its end."""

    id: str
    session_id: str
    service: str
    input: str
    id_field: IdField
    """What the client that made it calls a service's name: `agent_id` up to 0.6, `service_id` from 0.7 on."""
    created_at: float
    timeout_s: float | None = None
    status: TaskStatus = TaskStatus.QUEUED
    attempt: int = 1
    worker: str | None = None
    """Who has it, as far as services say so."""
    inputs: list[Input] = field(default_factory=list)
    """For a service that is a worker, in order."""
    for_worker: bool = False
    """Whether its service was a worker when it was made."""
    failures: list[Failure] = field(default_factory=list)
    retry_at: float | None = None
    """When the next attempt is to begin; None: it need not wait."""
    started_at: float | None = None
    finished_at: float | None = None
    error: str | None = None
    result: dict[str, Any] | None = None
    """llama_deploy's TaskResult."""
    context_version: int = 0
    """That of the context which its attempt began with; 0: there was none."""
    context_error: str | None = None
    """Why the context that it has left was not kept; None: it was, or it left none."""
    delivery: Delivery = "one"
    replicas: list[str] = field(default_factory=list)
    """Those that it was given to, where that is all; each has a run, which is a task of its own (`runs`)."""
    run_of: str | None = None
    """Whose run it is; None: a client's task."""
    replica: str | None = None
    """Whose run it is, of the service's replicas."""
    stream: Stream = field(default_factory=Stream)

    @property
    def address(self) -> str:
        """Where its messages go."""
        return self.service if self.replica is None else replica_address(self.service, self.replica)

    @property
    def definition(self) -> dict[str, object]:
        """llama_deploy's TaskDefinition, in the words of the client that made it."""
        return {
            "input": self.input,
            "task_id": self.id,
            "session_id": self.session_id,
            self.id_field: self.service,
        }


def run_id(task_id: str, number: int) -> str:
    """The id of a task's run, which no client's task has: there is no / in those."""
    return f"{task_id}/{number}"


def replica_address(service: str, replica: str) -> str:
    """Where a replica's messages go; neither name has a / in it, so it is no service's name."""
    return f"{service}/{replica}"


class Outgoing(NamedTuple):
    """A message to a service, kept until the queue has it."""

    number: int
    service: str
    """Its name, or a replica's address."""
    task_id: str
    key: str
    """Its idempotency key: however often it is published, it is enqueued once."""
    body: dict[str, Any]
    """llama_deploy's QueueMessage."""


class Change(NamedTuple):
    """A row to be put, or, where ``value`` is None, all rows of the key to be dropped."""

    table: Table
    key: str
    number: int
    value: bytes | None


class Snapshot(NamedTuple):
    """Everything that is kept."""

    services: list[Service]
    sessions: list[Session]
    """In the order of their creation, with the ids of their tasks."""
    tasks: list[Task]
    """In the order of their creation, with their events."""
    outgoing: list[Outgoing]
    """In the order of their numbers."""
    name: str = ""
    """The control plane's own; empty where it has none yet."""


@dataclass(slots=True)
class Effects:
    """What a decision asks for."""

    changes: list[Change] = field(default_factory=list)
    messages: list[Outgoing] = field(default_factory=list)
    """To be published when the changes are stored."""
    wakes: list[str] = field(default_factory=list)
    """Tasks whose watchers are to look again when the changes are stored."""
    registered: list[Service] = field(default_factory=list)
    deregistered: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    """Addresses of replicas that are gone and have nothing to end: nobody needs their topics."""

    def __bool__(self) -> bool:
        """Whether it asks for anything."""
        return bool(self.changes or self.messages or self.wakes or self.registered or self.deregistered or self.gone)

    def put(self, table: Table, key: str, value: object, number: int = 0) -> None:
        """Store a row."""
        self.changes.append(Change(table, key, number, dump(value)))

    def drop(self, table: Table, key: str) -> None:
        """Drop all rows of a key."""
        self.changes.append(Change(table, key, 0, None))
