"""Services, sessions and tasks for people."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import orjson
from rich.text import Text

import wakeq
from wakeq.cli import _grid, _values


def show_services(services: Iterable[wakeq.ServiceInfo]) -> None:
    """A line a service."""
    table = _grid.table(
        "name", "state", "consumers", "tasks each", "run by", "description", numbers=("consumers", "tasks each")
    )
    for one in services:
        table.add_row(
            _grid.text(one.name), one.state, str(len(one.consumers)), _tasks_each(one), _kind(one),
            _grid.text(one.description),
        )  # fmt: skip
    _grid.show(table)


def show_service(service: wakeq.ServiceInfo) -> None:
    """Everything about one service, and what it takes."""
    address = f"{service.host}:{service.port}" if service.host and service.port else "-"
    about = _grid.pairs(
        [
            ("name", service.name),
            ("description", service.description or "-"),
            ("state", service.state),
            ("run by", _kind(service)),
            ("address", address),
            ("consumers", ", ".join(service.consumers) or "-"),
            ("tasks each", _tasks_each(service)),
            ("attempts", _attempts(service)),
            *((f"replica {one.name}", f"{one.state}, {one.unfinished_tasks} to end") for one in service.replicas),
        ]
    )
    if service.schema is None:
        _grid.show(about, Text("\nits tasks take any arguments"))
        return
    table = _grid.table("argument", "type", "required")
    for name, kind, required in _arguments(service.schema):
        table.add_row(_grid.text(name), _grid.text(kind), "yes" if required else "no")
    _grid.show(about, Text(""), table)


def show_sessions(sessions: Iterable[wakeq.SessionInfo]) -> None:
    """A line a session."""
    table = _grid.table(
        "session", "tasks", "unfinished", "state", "version", "last used",
        numbers=("tasks", "unfinished", "state", "version"),
    )  # fmt: skip
    for one in sessions:
        table.add_row(
            _grid.text(one.id), f"{one.tasks:,}", f"{one.unfinished_tasks:,}", _values.size(one.state_bytes),
            f"{one.version:,}", _instant(one.used_at),
        )  # fmt: skip
    _grid.show(table)


def show_session(session: wakeq.SessionInfo, state: wakeq.SessionState, tasks: Iterable[wakeq.TaskInfo]) -> None:
    """How a session stands, what clients and services have put into it, and its tasks."""
    values = [(f"state {name}", orjson.dumps(value).decode()) for name, value in state.values.items()]
    about = _grid.pairs(
        [
            ("session", session.id),
            ("created", _instant(session.created_at) or "-"),
            ("last used", _instant(session.used_at) or "-"),
            ("version", f"{state.version:,}"),
            *values,
        ]
    )
    _grid.show(about, Text(""), _tasks_table(tasks))


def show_tasks(tasks: Iterable[wakeq.TaskInfo]) -> None:
    """A line a task."""
    _grid.show(_tasks_table(tasks))


def show_task(task: wakeq.TaskInfo) -> None:
    """Everything about one task."""
    rows = {
        "task": task.id,
        "session": task.session_id,
        "service": task.service,
        "input": task.input,
        "status": task.status,
        "attempt": str(task.attempt),
        "worker": task.worker,
        **{f"attempt {one.attempt}": f"{one.error} ({_instant(one.failed_at)})" for one in task.failures},
        "begins again": _instant(task.retry_at),
        "created": _instant(task.created_at),
        "started": _instant(task.started_at),
        "finished": _instant(task.finished_at),
        "timeout": None if task.timeout_s is None else _values.duration(task.timeout_s),
        "events": f"{task.events:,}",
        **{f"replica {one.replica}": _run(one) for one in task.replicas},
        "error": task.error,
        **({"context": task.context_error} if task.context_error else {}),
        "result": None if task.error else task.result,
    }
    _grid.show(_grid.pairs((name, "-" if value is None else value) for name, value in rows.items()))


def _tasks_table(tasks: Iterable[wakeq.TaskInfo]) -> Any:
    table = _grid.table(
        "task", "service", "status", "attempt", "events", "created", "took", numbers=("attempt", "events")
    )
    for task in tasks:
        took = "-" if task.finished_at is None else f"{(task.finished_at - task.created_at).total_seconds():.1f}s"
        table.add_row(
            _grid.text(task.id), _grid.text(task.service), task.status, str(task.attempt), f"{task.events:,}",
            _instant(task.created_at), took,
        )  # fmt: skip
    return table


def _run(one: wakeq.TaskReplica) -> str:
    about = f"{one.status.replace('_', ' ')}, attempt {one.attempt}"
    said = one.error or one.result
    return about if said is None else f"{about}: {said}"


def _kind(service: wakeq.ServiceInfo) -> str:
    if service.delivery == "all":
        return "replicas"
    return "workers" if service.is_worker else "llama_deploy"


def _tasks_each(service: wakeq.ServiceInfo) -> str:
    return "-" if service.max_concurrent_tasks is None else f"{service.max_concurrent_tasks:,}"


def _attempts(service: wakeq.ServiceInfo) -> str:
    retry = service.retry
    if retry["max_attempts"] == 1:
        return "1"
    least, most = (_values.duration(retry[name]) for name in ("backoff_s", "max_backoff_s"))
    return f"{retry['max_attempts']}, {least} to {most} between them"


def _instant(at: datetime | None) -> str | None:
    return None if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _arguments(schema: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    required = schema.get("required", ())
    for name, about in schema.get("properties", {}).items():
        yield name, _type(about), name in required


def _type(about: Any) -> str:
    """In JSON's words."""
    if not isinstance(about, Mapping):
        return "any"
    for several in ("anyOf", "oneOf"):
        if several in about:
            return " | ".join(dict.fromkeys(_type(one) for one in about[several]))
    if "$ref" in about:
        return str(about["$ref"]).rpartition("/")[2]
    said = about.get("type", "any")
    return " | ".join(map(str, said)) if isinstance(said, list) else str(said)
