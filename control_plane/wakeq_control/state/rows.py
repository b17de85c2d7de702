"""Rows to model: what `Effects.put` was given, taken back."""

from collections.abc import Iterable, Mapping
from typing import Any

from wakeq_control.codec import load
from wakeq_control.model import (
    Failure,
    Input,
    Outgoing,
    Retry,
    Service,
    Session,
    Snapshot,
    Table,
    Task,
    TaskStatus,
    run_id,
)
from wakeq_control.streams import Event

Rows = Iterable[tuple[str, bytes]]
"""Keys and values, in the order in which the rows were made; of events, in that of their numbers."""


def snapshot(rows: Mapping[Table, Rows]) -> Snapshot:
    """The model of all rows."""
    tasks = {key: _task(key, load(value)) for key, value in rows["task"]}
    for key, value in rows["event"]:
        row = load(value)
        event = Event.make(row["index"], row["data"])
        tasks[key].stream.add(event)
        if "run" in row:
            run, index = row["run"]
            tasks[run_id(key, run)].stream.add(event.at(index))
    sessions = {key: Session(key, **load(value)) for key, value in rows["session"]}
    for task in tasks.values():
        if task.run_of is None:
            sessions[task.session_id].task_ids.append(task.id)
        if task.status is TaskStatus.SUCCEEDED:
            task.stream.close()
        elif task.finished_at is not None:
            task.stream.cut()
    outgoing = sorted((Outgoing(int(key), **load(value)) for key, value in rows["outbox"]))
    services = [_service(load(value)) for _, value in rows["service"]]
    name = next((load(value) for _, value in rows["plane"]), "")
    return Snapshot(services, list(sessions.values()), list(tasks.values()), outgoing, name)


def _service(row: dict[str, Any]) -> Service:
    return Service(
        row["service_name"],
        row["description"],
        row["prompt"],
        row["host"],
        row["port"],
        row.get("schema"),
        row.get("is_worker", False),
        Retry(*row.get("retry", ())),
        row.get("max_concurrent_tasks"),
        row.get("delivery", "one"),
    )


def _task(key: str, row: dict[str, Any]) -> Task:
    inputs = [Input(*one) for one in row.get("inputs", ())]
    failures = [Failure(*one) for one in row.get("failures", ())]
    return Task(id=key, **row | {"status": TaskStatus(row["status"]), "inputs": inputs, "failures": failures})
