"""What the commands that run servers have in common: options of settings, and how a mistake is told."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    # A command that has no such settings needs none of it.
    from pydantic import BaseModel


def option(settings: "type[BaseModel]", name: str, prefix: str, flag: str | None = None) -> Any:
    """A command-line option of a setting: one description and one default, those of ``settings``."""
    field = settings.model_fields[name]
    default = field.get_default(call_default_factory=True)
    shown = ", ".join(default) if isinstance(default, tuple) else "" if default is None else str(default)
    return typer.Option(
        flag or f"--{name.replace('_', '-')}",
        help=field.description,
        envvar=f"{prefix}{name.upper()}",
        show_default=shown or False,
    )


def problem_of(settings: "type[BaseModel]", name: str, error: Mapping[str, Any]) -> str:
    """What is wrong with a setting, from pydantic's error."""
    if error["type"] == "extra_forbidden":
        return "there is no such setting"
    limits = settings.model_fields[name].metadata if name in settings.model_fields else ()
    low, high = (next((getattr(x, end) for x in limits if hasattr(x, end)), None) for end in ("ge", "le"))
    if error["type"] in ("byte_size", "byte_size_unit"):
        return "must be a number of bytes, or one with a unit: 128MB, 1GiB"
    if low is not None and high is not None:
        return f"must be from {low} to {high}"
    said: str = error["msg"].removeprefix("Value error, ")
    return said[0].lower() + said[1:]


def fail(message: str, hint: str, *, code: int) -> NoReturn:
    """One sentence and what to do, on stderr; then the end."""
    typer.echo(f"wakeq: {message}", err=True)
    if hint:
        typer.echo(f"hint: {hint}", err=True)
    raise typer.Exit(code)
