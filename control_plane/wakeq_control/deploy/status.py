"""`wakeq status`."""

import json
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer

from wakeq._connection import is_server_url
from wakeq._serving.commands import fail

_TIMEOUT_S = 10.0


def status(
    api_server: Annotated[
        str, typer.Option(envvar="WAKEQ_APISERVER", metavar="URL", help="The API server.")
    ] = "http://127.0.0.1:4501",
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each deployment.")] = False,
) -> None:
    """Show which deployments run, and how their services are."""
    if not is_server_url(api_server):
        hint = "see wakeq status --help"
        fail(f"api-server: {api_server!r} is no address of a server; write http://HOST:PORT", hint, code=2)
    for deployment in _deployments(api_server.rstrip("/")):
        typer.echo(json.dumps(deployment) if as_json else _shown(deployment))


def _deployments(url: str) -> list[dict[str, Any]]:
    try:
        # A proxy of the environment is for what is far away.
        with httpx.Client(timeout=_TIMEOUT_S, trust_env=False) as client:
            names = client.get(f"{url}/deployments/").raise_for_status().json()
            paths = [f"{url}/deployments/{quote(each['name'], safe='')}" for each in names]
            return [client.get(path).raise_for_status().json() for path in paths]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        hint = "is wakeq deploy running there? --api-server says where"
        fail(f"the API server at {url} doesn't answer as one: {error}", hint, code=1)


def _shown(deployment: dict[str, Any]) -> str:
    lines = [f"{deployment['name']}  control plane {deployment['control_plane_url']}  queue {deployment['queue_url']}"]
    width = max((len(service["name"]) for service in deployment["services"]), default=0)
    for service in deployment["services"]:
        default = "  default" if service["name"] == deployment["default_service"] else ""
        process = f"  process {service['pid']}" if service["pid"] is not None else ""
        restarts = f"  restarts {service['restarts']}"
        lines.append(f"  {service['name']:{width}}  {service['state']}{process}{restarts}{default}")
    return "\n".join(lines)
