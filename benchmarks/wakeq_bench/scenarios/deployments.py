"""Whole deployments, each from one file: by `wakeq deploy`, and by llama_deploy's own API server."""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from wakeq_bench.peers.environments import script
from wakeq_bench.processes import HOST, Child, free_ports, json_record
from wakeq_bench.scenarios.raw import BrokenAnswer

NAME = "Echoes"
SERVICE = "agentic_workflow"
_FLOWS = Path(__file__).parent.parent / "flows.py"
_DEPLOY_MAX_S = 60.0


def file_of(services: int = 1) -> str:
    """A deployment file of so many services, the first of which is the default one."""
    head = f"""\
name: {NAME}
control-plane: {{port: 0}}
message-queue: {{type: simple, port: 0}}
default-service: {SERVICE}
services:
"""
    service = """\
  {name}:
    name: Echoes what it is told
    source: {{type: local, name: src}}
    path: src/flows:workflow
"""
    names = [SERVICE, *(f"{SERVICE}_{number}" for number in range(2, services + 1))]
    return head + "".join(service.format(name=name) for name in names)


@dataclass(frozen=True)
class Deployed:
    """A deployment of ours that is up."""

    child: Child
    """Its supervisor, the parent of all its processes."""
    api_url: str
    control_plane_url: str
    queue_url: str
    started_s: float
    """From the command until its services take tasks, and its API server answers."""


@contextmanager
def deployed(services: int = 1) -> Iterator[Deployed]:
    """`wakeq deploy` of a file."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="wakeq-bench-") as directory:
        home = Path(directory)
        (home / "src").mkdir()
        shutil.copy(_FLOWS, home / "src" / "flows.py")
        (home / "deployment.yml").write_text(file_of(services), encoding="utf-8")
        command = [sys.executable, "-m", "wakeq", "deploy", str(home / "deployment.yml"), "--data", str(home / "data")]
        command += ["--api-port", "0", "--grace", "0", "--log-format", "json"]
        with Child("wakeq deploy", command) as child:
            said = child.wait_for(_event("deployed"))
            # Those of its parts came before.
            api_url = child.wait_for(_event("listening"))["url"]
            started_s = time.perf_counter() - began
            yield Deployed(child, api_url, said["control_plane"], said["queue"], started_s)


@contextmanager
def original_api_server(python: Path) -> Iterator[str]:
    """The URL of llama_deploy's API server, to which the same workflow is deployed. Raises BrokenAnswer."""
    api, control_plane, queue, service = free_ports(4)
    with tempfile.TemporaryDirectory(prefix="wakeq-bench-") as directory:
        home = Path(directory)
        (home / "src").mkdir()
        shutil.copy(script("_workflow"), home / "src" / "flows.py")
        file = file_of().replace("control-plane: {port: 0}", f"control-plane: {{host: {HOST}, port: {control_plane}}}")
        file = file.replace("type: simple, port: 0", f"type: simple, host: {HOST}, port: {queue}")
        file = f"{file}    host: {HOST}\n    port: {service}\n"
        environment = {"TMPDIR": directory, "LLAMA_DEPLOY_APISERVER_RC_PATH": str(home / "none")}
        command = [str(python), "-m", "uvicorn", "llama_deploy.apiserver:app", "--host", HOST, "--port", str(api)]
        with Child("llama_deploy's API server", [*command, "--no-access-log"], environment) as child:
            child.wait_for(lambda line: True if "Uvicorn running on" in line else None)
            url = f"http://{HOST}:{api}"
            params = {"base_path": directory, "reload": "false", "local": "false"}
            answer = httpx.post(
                f"{url}/deployments/create", params=params, files={"config_file": file}, timeout=_DEPLOY_MAX_S,
                trust_env=False,
            )  # fmt: skip
            if answer.status_code != httpx.codes.OK:
                raise BrokenAnswer(f"llama_deploy's API server answered {answer.status_code}: {answer.text[:200]}")
            yield url


def _event(name: str) -> Callable[[str], dict[str, Any] | None]:
    def found(line: str) -> dict[str, Any] | None:
        record = json_record(line, "event")
        return record if record is not None and record["event"] == name else None

    return found
