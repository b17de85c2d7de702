"""`wakeq services`."""

import typer

from wakeq._connection import DEFAULT_CONTROL_URL
from wakeq.cli import _control_tables
from wakeq.cli._control import Service, Url, talk
from wakeq.cli._style import STYLE
from wakeq.cli._talk import Json, note, print_json

app = typer.Typer(no_args_is_help=True, help="Show the services of a control plane.", **STYLE)


@app.command("list")
def list_(as_json: Json = False, url: Url = DEFAULT_CONTROL_URL) -> None:
    """Show all services, a line each; one that is up has somebody who takes its tasks."""
    services = talk(url, lambda control: control.services())
    if as_json:
        print_json({"services": [one.raw for one in services]})
    elif services:
        _control_tables.show_services(services)
    else:
        note("there are no services")


@app.command()
def show(service: Service, as_json: Json = False, url: Url = DEFAULT_CONTROL_URL) -> None:
    """Show a service: who works for it, and what its tasks take."""
    found = talk(url, lambda control: control.service(service), service=service)
    if as_json:
        print_json(found.raw)
    else:
        _control_tables.show_service(found)
