"""Runs one original workflow service on a control plane that runs elsewhere, which tells it where the queue is.

Prints READY when it consumes. The workflow is that of `llama_deploy_system.py`.
"""

# mypy: disable-error-code="import-not-found"

import argparse
import asyncio
import logging
from urllib.parse import urlsplit

from _output import say
from _process import run_until_terminated
from llama_deploy import ControlPlaneConfig, WorkflowServiceConfig, deploy_workflow
from llama_deploy_system import HOST, AgenticWorkflow, Registrations


async def deploy(options: argparse.Namespace) -> None:
    """Run the service until it ends."""
    registrations = Registrations(expected=1)
    logging.getLogger("llama_deploy.message_queues.simple").addHandler(registrations)
    url = urlsplit(options.control_plane_url)
    control_plane = ControlPlaneConfig(host=url.hostname, port=url.port)
    service = WorkflowServiceConfig(host=HOST, port=options.port, service_name=options.service_name)
    workflow = asyncio.create_task(deploy_workflow(AgenticWorkflow(timeout=None), service, control_plane))
    ready = asyncio.create_task(registrations.complete.wait())
    done, _ = await asyncio.wait({workflow, ready}, return_when=asyncio.FIRST_COMPLETED)
    if ready in done:
        say("READY")
    await workflow


def main() -> None:
    """Parse the command line and deploy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--control-plane-url", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--service-name", default="agentic_workflow")
    options = parser.parse_args()
    run_until_terminated(lambda: deploy(options))


if __name__ == "__main__":
    main()
