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
    table = _grid.table("session", "tasks", numbers=("tasks",))
    for session in sessions:
        table.add_row(_grid.text(session.id), f"{len(session.task_ids):,}")
    _grid.show(table)


def show_session(session: wakeq.SessionInfo, tasks: Iterable[wakeq.TaskInfo]) -> None:
    """What clients have put into a session, and its tasks."""
    kept = {
        "retries",
        *(f"{kind}{task_id}" for task_id in session.task_ids for kind in ("", "stream_", "result_")),
    }
    values = [(name, orjson.dumps(value).decode()) for name, value in session.state.items() if name not in kept]
    about = _grid.pairs([("session", session.id), *((f"state {name}", value) for name, value in values)])
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
        "error": task.error,
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


def _kind(service: wakeq.ServiceInfo) -> str:
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
