"""Runs the original control plane and one workflow service, or one of them, on a queue server that runs elsewhere.

With `--plugin`, wakeq's client stands for llama_deploy's, and llama_deploy is left to start a queue if it would.

Prints READY when its parts consume from the queue. The workflow is that of `_workflow`.
"""

# mypy: disable-error-code="import-not-found"

import argparse
import asyncio
import importlib
import logging

from _output import say
from _process import run_until_terminated, wait_until_listening
from _workflow import workflow
from llama_deploy import (
    ControlPlaneConfig,
    SimpleMessageQueueConfig,
    WorkflowServiceConfig,
    deploy_core,
    deploy_workflow,
)

HOST = "127.0.0.1"
PARTS = ("core", "service")


class Registrations(logging.Handler):
    """Counts the consumers that the queue client has registered; its log is the only place that tells."""

    def __init__(self, expected: int) -> None:
        super().__init__()
        self._missing = expected
        self.complete = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line of the client's log."""
        self._missing -= "has been registered" in record.getMessage()
        if self._missing == 0:
            self.complete.set()


async def deploy(options: argparse.Namespace) -> None:
    """Run what is asked for until a part of it ends."""
    registrations = Registrations(expected=len(options.part))
    logging.getLogger("llama_deploy.message_queues").addHandler(registrations)
    control_plane = ControlPlaneConfig(host=HOST, port=options.control_plane_port)
    queue = SimpleMessageQueueConfig(host=options.queue_host, port=options.queue_port)
    service = WorkflowServiceConfig(host=HOST, port=options.service_port, service_name=options.service_name)
    running = []
    if "core" in options.part:
        core = deploy_core(control_plane, queue, disable_message_queue=not options.plugin)
        running.append(asyncio.create_task(core))
    await wait_until_listening(HOST, options.control_plane_port)
    if "service" in options.part:
        running.append(asyncio.create_task(deploy_workflow(workflow, service, control_plane)))
    ready = asyncio.create_task(registrations.complete.wait())
    done, _ = await asyncio.wait({*running, ready}, return_when=asyncio.FIRST_COMPLETED)
    if ready in done:
        say("READY")
    await asyncio.gather(*running)


def main() -> None:
    """Parse the command line and deploy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queue-host", default=HOST)
    parser.add_argument("--queue-port", type=int, default=0, help="a service alone learns it from the control plane")
    parser.add_argument("--control-plane-port", type=int, required=True)
    parser.add_argument("--service-port", type=int, required=True)
    parser.add_argument("--service-name", default="agentic_workflow")
    parser.add_argument("--plugin", action="store_true")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    if options.plugin:
        importlib.import_module("wakeq.integrations.llama_deploy.auto")
    run_until_terminated(lambda: deploy(options))


if __name__ == "__main__":
    main()
