"""What wakeq's API server answers differently from llama_deploy's, on purpose: each difference once, by name.

As in `tests.support.control_differences`; the table is in `docs/api-server.md`.
"""

from pathlib import Path
from typing import Any

from tests.support.control_differences import Change, Difference, changed, missing, refused, taken

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "api-server.md"

OLD, NEW = ("0.4.2",), ("0.8.1",)
SESSION = refused(404, "Session not found")
DEPLOYMENT = refused(404, "Deployment not found")
FOREIGN = refused(403, ...)
BROKEN = refused(400, ...)
ARGUMENTS = refused(400, ...)
TAKES = "this service takes: user_msg (required, str), events (optional, int), ask (optional, str)"


def unlimited(status: Any) -> Any:
    return {**status, "max_deployments": None}


def with_its_parts(deployment: Any) -> Any:
    return {**deployment, "default_service": "wf", "control_plane_url": ..., "queue_url": ..., "services": ...}


def with_result(result: str) -> Change:
    """The end of a stream, as the workflow library of today shows it."""
    return lambda lines: [*lines[:-1], {"result": result}]


def with_another(tasks: Any) -> Any:
    (first,) = tasks
    return [first, {**first, "input": '{"user_msg": "x"}', "task_id": ...}]


def in_session(session_id: str) -> Change:
    return lambda task: {**task, "session_id": session_id}


def differences(session_id: str) -> list[Difference]:
    """All of them, each where it shows; ``session_id`` is that of the session that was made first."""
    return [
        Difference("`GET /`", {"root": taken({"status": ...})}),
        Difference(
            "`GET /status/`",
            dict.fromkeys(("status", "status (one)"), changed(unlimited)),
        ),
        Difference(
            "`GET /status`, `GET /deployments`",
            {
                "status without a slash": taken(
                    {"status": "Healthy", "status_message": "", "max_deployments": None, "deployments": []}
                ),
                "deployments without a slash": taken([]),
            },
        ),
        Difference("`GET /status/metrics`", {"metrics": refused(404, "Not Found")}, NEW),
        Difference("`/deployments/{deployment}/ui`, `/ui/…`", {"ui": refused(404, "Not Found")}, NEW),
        Difference("`GET /deployments/{deployment}`", {"deployment": changed(with_its_parts)}),
        Difference(
            "a deployment file that is broken",
            dict.fromkeys(
                ("create, no YAML", "create, no services", "create, no source", "create, no workflow"), BROKEN
            ),
        ),
        Difference(
            "a default service that isn't one of the services",
            {
                "create without a default service": BROKEN,
                "run without a default service": DEPLOYMENT,
                "create task without a default service": DEPLOYMENT,
            },
            NEW,
        ),
        Difference(
            "a deployment that runs already", {"create again": refused(409, "Deployment already exists: echoes")}
        ),
        Difference("a reload of what doesn't run", {"reload unknown": DEPLOYMENT}),
        Difference(
            "a session that isn't there",
            dict.fromkeys(
                (
                    "session unknown",
                    "session deleted",
                    "run, unknown session",
                    "create task, unknown session",
                    "results, unknown session",
                    "send event, unknown session",
                ),
                SESSION,
            ),
        ),
        Difference(
            "arguments that the service doesn't take",
            {
                "run, wrong argument": refused(400, f"unknown argument 'resume'; {TAKES}. Did you mean 'user_msg'?"),
                "run, no argument": refused(400, f"missing argument 'user_msg'; {TAKES}"),
                "create task, wrong argument": refused(
                    400, f"unknown argument 'resume'; {TAKES}. Did you mean 'user_msg'?"
                ),
            },
        ),
        Difference(
            "an input that is no JSON object",
            {
                "run, input no JSON": ARGUMENTS,
                "run, input no object": refused(400, "the input must be a JSON object with an argument for each key"),
                # It leaves behind the sessions that it has made for those.
                "sessions after runs": changed(lambda sessions: sessions[:1]),
            },
        ),
        Difference(
            "a service that isn't there",
            dict.fromkeys(
                ("run, unknown service", "create task, unknown service"),
                refused(404, "Service 'nope' not found in deployment 'echoes'; its services are: wf"),
            ),
        ),
        Difference(
            "a session that is named in the body alone",
            {"create task, session in the body only": changed(in_session(session_id)), "tasks": changed(with_another)},
        ),
        Difference(
            "the last line of `…/events`",
            {"events": changed(with_result("echo: hi"))},
        ),
        Difference(
            "`GET …/events` of what isn't there",
            {
                "events, unknown session": refused(410, "Session not found"),
                "events, unknown deployment": refused(410, "Deployment not found"),
            },
        ),
        Difference("`POST …/events` of an unknown task", {"send event, unknown task": refused(404, "Task not found")}),
        Difference(
            "`POST …/events` without a service",
            {"send event, no service": changed(_misses_service)},
            OLD,
        ),
        Difference("a foreign `Origin` or `Host`", dict.fromkeys(("preflight", "of another origin"), FOREIGN)),
    ]


def _misses_service(refusal: Any) -> Any:
    (first,) = refusal["detail"]
    return {"detail": missing("body", "service_id", given=first["input"])}
