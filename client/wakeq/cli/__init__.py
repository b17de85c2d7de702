"""The `wakeq` command. A subcommand's code is imported when it is called: `wakeq --version` loads no server."""

import gc
import os
import sys
from importlib import import_module
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from wakeq._loading import loading
from wakeq._version import __version__
from wakeq.cli._style import STYLE

# In the order in which somebody new to it needs them.
_LAZY = {
    "up": ("wakeq_control.up", "up", "Run the queue server and the control plane in one process."),
    "serve": ("wakeq_server.cli", "serve", "Run the queue server."),
    "topics": ("wakeq.cli.topics", "app", "Make, configure, look at and look after topics."),
    "publish": ("wakeq.cli.publish", "publish", "Publish messages."),
    "consume": ("wakeq.cli.consume", "consume", "Take messages off a topic: print them, or run a command for each."),
    "stats": ("wakeq.cli.stats", "stats", "Show what topics hold, what comes and goes, and who waits."),
    "peek": ("wakeq.cli.messages", "peek", "Show messages of a topic, and take none."),
    "redrive": ("wakeq.cli.messages", "redrive", "Make dead letters of a topic ready again."),
    "groups": ("wakeq.cli.groups", "app", "Make, show and delete the groups of a topic."),
    "backup": ("wakeq_server.cli", "backup", "Copy a server's database, while it runs."),
    "doctor": ("wakeq_server.cli", "doctor", "Look for damage in a server's database; save what can be read."),
    "control-plane": ("wakeq_control.cli", "control_plane", "Run the control plane for clients of llama_deploy."),
    "services": ("wakeq.cli.services", "app", "Show the services of a control plane."),
    "sessions": ("wakeq.cli.sessions", "app", "Make, show and delete the sessions of a control plane."),
    "tasks": ("wakeq.cli.tasks", "app", "Give tasks to services, and look at and look after them."),
    "worker": ("wakeq_control.service.cli", "worker", "Run an async function or a workflow as a service."),
    "deploy": ("wakeq_control.deploy.cli", "deploy", "Run what a deployment file of llama_deploy describes."),
    "status": ("wakeq_control.deploy.status", "status", "Show which deployments run, and how their services are."),
    "run": ("wakeq.cli.run", "app", "Run a task of a deployment, and print its result."),
    "bench": ("wakeq_bench.cli", "app", "Measure what polling costs, and what waiting costs."),
    "demo": ("wakeq_bench.demo", "demo", "Run llama_deploy on its own queue and on wakeq, and compare."),
}


class _LazyGroup(TyperGroup):
    """Knows its commands by name and by one line of help, and imports one when it is called."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.commands.update({name: TyperCommand(name, help=line) for name, (_, _, line) in _LAZY.items()})

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, _load(name) if name in _LAZY else command, rest


def _load(name: str) -> Any:
    module, attribute, _ = _LAZY[name]
    with loading():
        found = getattr(import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        alone = typer.Typer(**STYLE)
        alone.command(name)(found)
        found = alone
    return typer.main.get_command(found)


app = typer.Typer(cls=_LazyGroup, no_args_is_help=True, **STYLE | {"add_completion": True})


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
    """A message queue over HTTP whose consumers are woken, not polling.

    WAKEQ_URL says where the server is, and WAKEQ_TOKEN has the token that it asks for, if it does;
    WAKEQ_CONTROL_PLANE and WAKEQ_CONTROL_TOKEN are those of the control plane. To begin:

    \b
    wakeq serve
    wakeq topics create jobs
    wakeq publish jobs '{"n": 1}'
    wakeq consume jobs --follow
    """


def main() -> None:
    """Run the command line."""
    if isinstance(sys.stdout, TextIOWrapper):
        # A name that the locale has no letters for is still a name.
        sys.stdout.reconfigure(errors="backslashreplace")
    # What reads a command line is loaded when there is one to read; `_load` switches it on again.
    gc.disable()
    try:
        # Named here, because the shell asks for completion by this name, however it was started.
        app(prog_name="wakeq")
    except OSError as error:
        # A disk that is full, mostly; what is still in the buffers would be said to fail once more at the end.
        os.write(2, f"wakeq: can't write or read: {error}\n".encode())
        os._exit(1)
