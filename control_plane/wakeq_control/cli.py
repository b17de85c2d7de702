"""`wakeq control-plane`."""

from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import anyio
import uvloop
from pydantic import ValidationError

from wakeq import __version__
from wakeq._serving import logs
from wakeq._serving.commands import fail, option, problem_of
from wakeq_control.errors import StartupError, StorageFailed
from wakeq_control.server import serve
from wakeq_control.settings import Settings


def _option(name: str) -> Any:
    return option(Settings, name, "WAKEQ_CONTROL_")


def control_plane(
    host: Annotated[str | None, _option("host")] = None,
    port: Annotated[int | None, _option("port")] = None,
    queue: Annotated[str | None, _option("queue")] = None,
    data: Annotated[Path | None, _option("data")] = None,
    durability: Annotated[Literal["fsync", "memory"] | None, _option("durability")] = None,
    namespace: Annotated[str | None, _option("namespace")] = None,
    wait_for_service: Annotated[float | None, _option("wait_for_service")] = None,
    keep_tasks: Annotated[int | None, _option("keep_tasks")] = None,
    keep_for: Annotated[float | None, _option("keep_for")] = None,
    keep_sessions_for: Annotated[float | None, _option("keep_sessions_for")] = None,
    max_sessions: Annotated[int | None, _option("max_sessions")] = None,
    max_tasks: Annotated[int | None, _option("max_tasks")] = None,
    max_events: Annotated[int | None, _option("max_events")] = None,
    max_events_bytes: Annotated[str | None, _option("max_events_bytes")] = None,
    max_state_bytes: Annotated[str | None, _option("max_state_bytes")] = None,
    max_body_bytes: Annotated[str | None, _option("max_body_bytes")] = None,
    token: Annotated[str | None, _option("token")] = None,
    token_file: Annotated[Path | None, _option("token_file")] = None,
    allowed_hosts: Annotated[str | None, _option("allowed_hosts")] = None,
    log_format: Annotated[Literal["text", "json"] | None, _option("log_format")] = None,
) -> None:
    """Run the control plane for clients and services of llama_deploy, on a queue server that runs elsewhere.

    The queue's token, where it asks for one, comes from the environment: WAKEQ_CONTROL_QUEUE_TOKEN, else WAKEQ_TOKEN.
    """
    settings = read_settings({name: value for name, value in locals().items() if value is not None})
    logs.configure(settings.log_format)
    try:
        anyio.run(serve, settings, __version__, backend_options={"loop_factory": uvloop.new_event_loop})
    except (StartupError, StorageFailed) as error:
        tell(error)


def read_settings(given: dict[str, Any], command: str = "control-plane") -> Settings:
    """Settings with what was given on the command line. A mistake is told, and is the end."""
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        fail(f"{name.replace('_', '-')}: {problem_of(Settings, name, first)}", f"see wakeq {command} --help", code=2)


def tell(error: StartupError | StorageFailed) -> NoReturn:
    """Why the control plane has ended; then the end."""
    hint = error.hint if isinstance(error, StartupError) else "what was answered is kept; make room, and start it again"
    fail(str(error), hint, code=1)
