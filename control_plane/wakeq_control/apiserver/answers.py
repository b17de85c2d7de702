"""Refusals, in a body for programs and in the status line for people: `llamactl` shows nothing of a body."""

from typing import NamedTuple

from wakeq._errors import sentence_of
from wakeq_control.apiserver.errors import NO_DEPLOYMENT, DeploymentRefused, Relayed
from wakeq_control.codec import dump
from wakeq_control.deploy.errors import DeploymentError, DeploymentNotFound
from wakeq_control.errors import ControlError, InvalidBody, Stopping
from wakeq_control.http.wire import JSON_TYPE, STATUS, Response


class Refusal(NamedTuple):
    """An answer that says no."""

    response: Response
    reason: str
    """For the status line: the code, and a sentence."""


def refusal_of(error: ControlError | DeploymentError) -> Refusal:
    """What a refusal looks like on the wire."""
    if isinstance(error, DeploymentError):
        error = DeploymentRefused(error)
    if isinstance(error, Relayed):
        return _refusal(error.status, error.relayed_code, error.detail)
    if isinstance(error, DeploymentRefused):
        missing = error.relayed_code == DeploymentNotFound.code
        return _refusal(
            STATUS[error.relayed_code],
            error.relayed_code,
            NO_DEPLOYMENT if missing else error.detail,
            "" if missing else error.hint,
        )
    if isinstance(error, InvalidBody):
        return _refusal(STATUS[error.code], error.code, error.errors)
    if isinstance(error, Stopping):
        return _refusal(STATUS[error.code], error.code, "the API server is stopping")
    return _refusal(STATUS[error.code], error.code, error.detail)


def _refusal(status: int, code: str, detail: object, hint: str = "") -> Refusal:
    title = code.replace("_", " ").capitalize()
    problem = {"detail": detail, "type": f"urn:wakeq:error:{code}", "title": title, "status": status, "code": code}
    if hint:
        problem["hint"] = hint
    sentence = detail if isinstance(detail, str) else sentence_of(detail)
    reason = f"{code}: {sentence}" + (f" (hint: {hint})" if hint else "")
    return Refusal(Response(status, [JSON_TYPE], dump(problem)), reason)
