"""The `wakeq` command. A subcommand's code is imported when it is called: `wakeq --version` loads no server."""

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from wakeq._version import __version__

_LAZY = {
    "bench": ("wakeq_bench.cli", "app", "Measure what polling costs, and what waiting costs."),
    "demo": ("wakeq_bench.demo", "demo", "Run llama_deploy on its own queue and on wakeq, and compare."),
    "serve": ("wakeq_server.cli", "serve", "Run the queue server."),
}


class _LazyGroup(TyperGroup):
    """Knows its commands by name and by one line of help, and imports one when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted({*super().list_commands(ctx), *_LAZY})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _LAZY:
            return super().get_command(ctx, cmd_name)
        return TyperCommand(cmd_name, help=_LAZY[cmd_name][2])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, _load(name) if name in _LAZY else command, rest


def _load(name: str) -> Any:
    module, attribute, _ = _LAZY[name]
    found = getattr(import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        alone = typer.Typer(**_STYLE)
        alone.command(name)(found)
        found = alone
    return typer.main.get_command(found)


# Rich's boxes cut option names off in a terminal of 80 columns.
_STYLE: dict[str, Any] = {"add_completion": False, "pretty_exceptions_enable": False, "rich_markup_mode": None}
app = typer.Typer(cls=_LazyGroup, no_args_is_help=True, **_STYLE)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wakeq {__version__}")
        raise typer.Exit


@app.callback()
def _wakeq(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """A message queue over HTTP whose consumers are woken, not polling."""


def main() -> None:
    """Run the command line."""
    app()
