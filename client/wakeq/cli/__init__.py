"""The `wakeq` command. A subcommand's code is imported when it is called: `wakeq --version` loads no server."""

import sys
from importlib import import_module
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from wakeq._version import __version__
from wakeq.cli._style import STYLE

_LAZY = {
    "backup": ("wakeq_server.cli", "backup", "Copy a server's database, while it runs."),
    "bench": ("wakeq_bench.cli", "app", "Measure what polling costs, and what waiting costs."),
    "control-plane": ("wakeq_control.cli", "control_plane", "Run the control plane."),
    "consume": ("wakeq.cli.messages", "consume", "Take messages off a topic as they come, a line each."),
    "demo": ("wakeq_bench.demo", "demo", "Run llama_deploy on its own queue and on wakeq, and compare."),
    "groups": ("wakeq.cli.groups", "app", "Make, show and delete the groups of a topic."),
    "publish": ("wakeq.cli.messages", "publish", "Publish a message."),
    "doctor": ("wakeq_server.cli", "doctor", "Look for damage in a server's database, and save what can be read."),
    "serve": ("wakeq_server.cli", "serve", "Run the queue server."),
    "topics": ("wakeq.cli.topics", "app", "Make, configure, look at and look after topics."),
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
        alone = typer.Typer(**STYLE)
        alone.command(name)(found)
        found = alone
    return typer.main.get_command(found)


app = typer.Typer(cls=_LazyGroup, no_args_is_help=True, **STYLE)


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
    if isinstance(sys.stdout, TextIOWrapper):
        # A name that the locale has no letters for is still a name.
        sys.stdout.reconfigure(errors="backslashreplace")
    app()
