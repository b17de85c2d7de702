"""What wakeq's control plane answers differently from llama_deploy's, on purpose: each difference once, by name.

A name is the first cell of its row in `docs/control-plane.md`. A difference says which recorded answers it changes, and
into what; the requests of a recording that come again are numbered.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.recordings import VERSIONS

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "control-plane.md"

Change = Callable[[Any], Any]


class Expected(NamedTuple):
    """An answer as it is compared; `...` stands for what may be anything."""

    status: int
    body: Any


def refused(status: int, detail: Any) -> Callable[[Expected], Expected]:
    return lambda expected: Expected(status, {"detail": detail})


def taken(body: Any) -> Callable[[Expected], Expected]:
    return lambda expected: Expected(200, body)


def changed(*changes: Change) -> Callable[[Expected], Expected]:
    def apply(expected: Expected) -> Expected:
        body = expected.body
        for change in changes:
            body = change(body)
        return Expected(expected.status, body)

    return apply


def anything(expected: Expected) -> Expected:
    """200; what it says is looked at elsewhere."""
    return Expected(200, ...)


def missing(*loc: str, given: Any) -> list[dict[str, Any]]:
    return [{"type": "missing", "loc": list(loc), "msg": "Field required", "input": given}]


def session(change: Change) -> Change:
    """A change of a session, in a session or in all of them."""

    def apply(value: Any) -> Any:
        if "session_id" in value:
            return change(value)
        return {key: change(one) for key, one in value.items()}

    return apply


def without_tasks(*gone: str) -> Change:
    def change(one: dict[str, Any]) -> dict[str, Any]:
        tasks = [task for task in one["task_ids"] if task not in gone]
        return {**one, "task_ids": list(dict.fromkeys(tasks)), "state": without_keys(*gone)(one["state"])}

    return session(change)


def without_keys(*gone: str) -> Change:
    return lambda state: {key: value for key, value in state.items() if key not in (*gone, "stream_T9")}


def with_state_of_each_task(one: dict[str, Any]) -> dict[str, Any]:
    return {**one, "state": {**one["state"], **{task: {} for task in one["task_ids"]}}}


def first_result_stands(one: dict[str, Any]) -> dict[str, Any]:
    if "result_T1" not in one["state"]:
        return one
    result = {**one["state"]["result_T1"], "history": [], "result": "done ü", "data": {}}
    return {**one, "state": {**one["state"], "result_T1": result, "retries": 0}}


def as_sent(services: Any) -> Any:
    prompt = [{"role": "user", "content": "hi"}]
    return {name: {**one, "prompt": prompt if one["prompt"] else []} for name, one in services.items()}


def own_message(message: Any) -> Any:
    stats = {**message["stats"], "publish_time": None}
    return {**message, "id_": ..., "publisher_id": ..., "stats": stats}


def own_queue(config: Any) -> Any:
    (own,) = config.values()
    return {"SimpleMessageQueueConfig": {**own, "port": ..., "client_kwargs": {"timeout": 60, "verify": False}}}


def own_config(config: Any) -> Any:
    return {key: value for key, value in {**config, "port": ...}.items() if key != "use_tls"}


def tasks_of(*gone: str) -> Change:
    def change(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        kept = [task for task in tasks if task["task_id"] not in gone]
        (first,) = {json.dumps(task) for task in kept if task["task_id"] == "T1"}
        once = {**json.loads(first), "input": '{"user_msg": "hi"}'}
        return [once, *(task for task in kept if task["task_id"] != "T1")]

    return change


class Difference(NamedTuple):
    """Recorded answers that are expected to be others: one row of the table."""

    name: str
    answers: dict[str, Callable[[Expected], Expected]]
    versions: tuple[str, ...] = VERSIONS


def differences(orphan: str, made: str) -> list[Difference]:
    """All of them, each where it shows; ``orphan`` was stored by a refused request, ``made`` is ours to be taken."""
    gone = (orphan, "T0", "TX")
    message = changed(own_message)
    null = taken(None)
    body = refused(422, ...)
    every_register = ("register", "register again (overwrite)", "register minimal", "register with prompt")
    return [
        Difference("`GET /queue_config`", {"queue_config": changed(own_queue)}),
        Difference("`POST /services/register`", dict.fromkeys(every_register, changed(own_config))),
        Difference("ChatMessages, in prompts and histories", {"list": changed(as_sent)}),
        Difference("`POST /services/deregister` with a body", {"deregister by JSON body": null}),
        Difference(
            "a task without a service",
            {
                "add task, no service id": refused(422, missing("body", "service_id", given={"input": "{}"})),
                "session after that": changed(without_tasks(orphan)),
                "S session": changed(without_tasks(*gone), session(with_state_of_each_task)),
            },
        ),
        Difference("`agent_id` and `service_id`", {"add task, OTHER id field name": anything}),
        Difference(
            "a task for a service that isn't registered",
            {
                "add task, topic of service does not exist in queue (silently dropped)": refused(
                    404, "no service 'ghost' is registered; there are: wf"
                ),
                "send_event unknown service (topic missing)": refused(
                    404, "no service 'ghost' is registered; there are: wf"
                ),
                "S2 session": changed(without_tasks(*gone)),
            },
        ),
        Difference(
            "a task that names another session",
            {
                "add task with other session_id in body": refused(400, ...),
                "queue (2)": null,
            },
            ("0.4.2",),
        ),
        Difference(
            "a task's id that is used again",
            {
                "same task_id twice": refused(409, "there is another task 'T1' already"),
                "queue (4)": null,
                "tasks": changed(tasks_of(*gone)),
                "current_task": changed(lambda task: {**task, "input": "{}", "task_id": made}),
                "state (3)": changed(without_keys(*gone)),
            },
        ),
        Difference(
            "messages to services",
            dict.fromkeys(("message in queue", "queue", "queue (5)", "queue (7)"), message),
        ),
        Difference(
            "`POST …/send_event` of an unknown task",
            {
                "send_event unknown session+task (not checked)": refused(404, "Session not found"),
                "queue (6)": null,
            },
        ),
        Difference(
            "`POST …/send_event` without a service",
            {"send_event missing id": refused(422, missing("body", "service_id", given={"event_obj_str": "s"}))},
            ("0.4.2",),
        ),
        Difference(
            "`POST /process_message` that can't be understood",
            {
                "process_message task_stream session None": body,
                "process_message task_stream bad data": body,
                "process_message send_event": body,
                "process_message action null": body,
                "process_message data {}": body,
            },
        ),
        Difference(
            "events of an unknown task",
            {
                "process_message type not control_plane (not checked)": refused(404, "Task not found"),
                "stream other task no result_key: T9 has stream": refused(404, "Task stream not found"),
                "state (4)": changed(without_keys(*gone)),
            },
        ),
        Difference(
            "a second result",
            {
                "result (2)": taken({"task_id": "T1", "history": [], "result": "done ü", "data": {}}),
                "sessions list": changed(
                    without_tasks(*gone), session(with_state_of_each_task), session(first_result_stands)
                ),
            },
        ),
        Difference(
            "a result after its session was deleted",
            {"completed after session deleted": refused(404, "Task not found")},
        ),
    ]


def documented(document: Path = DOCUMENT) -> list[str]:
    """The first cells of the rows of a document's table of differences."""
    _, _, section = document.read_text(encoding="utf-8").partition("\n## Differences")
    rows = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("| ")]
    return [row.split(" | ")[0].removeprefix("| ") for row in rows[1:]]
