"""`wakeq serve`, and what looks after its data: `wakeq backup` and `wakeq doctor`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
import typer
import uvloop
from pydantic import ValidationError

from wakeq._serving import logs
from wakeq._serving.commands import fail, option, problem_of
from wakeq_server.errors import StartupError
from wakeq_server.server import serve as run_server
from wakeq_server.settings import Durability, Settings


def _option(name: str, flag: str | None = None) -> Any:
    return option(Settings, name, "WAKEQ_", flag)


def serve(
    host: Annotated[str | None, _option("host")] = None,
    port: Annotated[int | None, _option("port")] = None,
    data: Annotated[Path | None, _option("data")] = None,
    durability: Annotated[Durability | None, _option("durability")] = None,
    legacy_wait: Annotated[float | None, _option("legacy_wait")] = None,
    legacy_heartbeat: Annotated[float | None, _option("legacy_heartbeat")] = None,
    auto_create_topics: Annotated[
        bool | None, _option("auto_create_topics", "--auto-create-topics/--no-auto-create-topics")
    ] = None,
    drain: Annotated[float | None, _option("drain")] = None,
    memory_budget: Annotated[str | None, _option("memory_budget")] = None,
    max_topics: Annotated[int | None, _option("max_topics")] = None,
    max_parked: Annotated[int | None, _option("max_parked")] = None,
    head_timeout: Annotated[float | None, _option("head_timeout")] = None,
    body_timeout: Annotated[float | None, _option("body_timeout")] = None,
    token: Annotated[str | None, _option("token")] = None,
    token_file: Annotated[Path | None, _option("token_file")] = None,
    allowed_hosts: Annotated[str | None, _option("allowed_hosts")] = None,
    cors_origin: Annotated[str | None, _option("cors_origin")] = None,
    push_allow: Annotated[str | None, _option("push_allow")] = None,
    log_format: Annotated[Literal["text", "json"] | None, _option("log_format")] = None,
    access_log: Annotated[bool | None, _option("access_log", "--access-log/--no-access-log")] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with any of these settings.", envvar="WAKEQ_CONFIG")
    ] = None,
) -> None:
    """Run the queue server.

    An option given here wins over the environment, that over the file of --config, that over the default.
    """
    given = {name: value for name, value in locals().items() if name != "config" and value is not None}
    settings = read_settings(config, given)
    logs.configure(settings.log_format)
    try:
        anyio.run(run_server, settings, _version(), backend_options={"loop_factory": uvloop.new_event_loop})
    except StartupError as error:
        fail(str(error), error.hint, code=1)


Data = Annotated[Path, _option("data")]
_DATA: Path = Settings.model_fields["data"].get_default(call_default_factory=True)


def backup(
    file: Annotated[Path, typer.Argument(help="Where the copy goes; it must not exist.", show_default=False)],
    data: Data = _DATA,
) -> None:
    """Copy the database to a file, as it stands at this moment. The server may run.

    To put a copy back, stop the server and move the file to an empty directory, under the name wakeq.sqlite3.
    """
    from wakeq_server.store import doctor as maintenance  # noqa: PLC0415  `serve` doesn't need it

    with _told():
        size = maintenance.back_up(data, file)
    typer.echo(f"copied {size / 1e6:,.1f} MB to {file}")


def doctor(
    data: Data = _DATA,
    repair: Annotated[
        bool, typer.Option("--repair", help="Save what can be read into a new database; the server must not run.")
    ] = False,
) -> None:
    """Look for damage in the database: every page, every row, every body. The server may run.

    The exit code is 1 where there is any.
    """
    from wakeq_server.store import doctor as maintenance  # noqa: PLC0415  `serve` doesn't need it

    with _told():
        if repair:
            found, aside = maintenance.repair(data)
        else:
            found = maintenance.examine(data)
    counts = ", ".join(f"{count:,} {what}" for what, count in found.counts.items()) or "nothing"
    for problem in found.problems:
        typer.echo(f"damaged: {problem}", err=True)
    if repair:
        typer.echo(f"saved {counts}; the old database is in {aside}")
        return
    typer.echo(f"read {counts}: {'damaged' if found.problems else 'no damage'}")
    if found.problems:
        typer.echo("hint: stop the server and save what can be read with --repair, or restore a backup", err=True)
        raise typer.Exit(1)


@contextmanager
def _told() -> Iterator[None]:
    """What goes wrong ends in a sentence."""
    try:
        yield
    except StartupError as error:
        fail(str(error), error.hint, code=1)
    except OSError as error:
        fail(f"{error.filename or 'the disk'}: {error.strerror or error}", "", code=1)


def read_settings(config: Path | None, given: dict[str, Any], command: str = "serve") -> Settings:
    """Settings with what was given on the command line. A mistake is told, and is the end."""
    try:
        return Settings.load(config, given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        fail(f"{name.replace('_', '-')}: {problem_of(Settings, name, first)}", f"see wakeq {command} --help", code=2)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        fail(f"{config} can't be read: {reason}", "--config names a TOML file", code=2)


def _version() -> str:
    from wakeq import __version__  # noqa: PLC0415  the client package is not needed for anything else

    return __version__
