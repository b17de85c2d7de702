"""Runs the original control plane and one workflow service on a queue server that runs elsewhere.

With `--plugin`, wakeq's stands for llama_deploy's client, and llama_deploy is left to start a queue if it would.

Prints READY when both consume from it. The workflow echoes `user_msg`; `events` makes it stream so many events first,
and with `ask` it puts that question to a human and returns the answer.
"""

# mypy: disable-error-code="import-not-found", allow-subclassing-any, allow-untyped-decorators

import argparse
import asyncio
import importlib
import logging

from _output import say
from _process import run_until_terminated, wait_until_listening
from llama_deploy import (
    ControlPlaneConfig,
    SimpleMessageQueueConfig,
    WorkflowServiceConfig,
    deploy_core,
    deploy_workflow,
)
from llama_index.core.workflow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)

HOST = "127.0.0.1"


class ProgressEvent(Event):
    """One of the streamed events; they are numbered from 0."""

    number: int


class AgenticWorkflow(Workflow):
    """Echoes, streams, asks."""

    @step
    async def start(self, ctx: Context, ev: StartEvent) -> InputRequiredEvent | StopEvent:
        """Stream what was asked for, then answer or put the question."""
        answer = f"echo: {ev.user_msg}"
        for number in range(int(ev.get("events", 0))):
            ctx.write_event_to_stream(ProgressEvent(number=number))
        question = ev.get("ask", "")
        return InputRequiredEvent(prefix=question) if question else StopEvent(result=answer)

    @step
    async def answered(self, ev: HumanResponseEvent) -> StopEvent:
        """Return what the human said."""
        return StopEvent(result=f"answer: {ev.response}")


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
    """Run both until one of them ends."""
    registrations = Registrations(expected=2)
    logging.getLogger("llama_deploy.message_queues").addHandler(registrations)
    control_plane = ControlPlaneConfig(host=HOST, port=options.control_plane_port)
    queue = SimpleMessageQueueConfig(host=options.queue_host, port=options.queue_port)
    service = WorkflowServiceConfig(host=HOST, port=options.service_port, service_name=options.service_name)
    core = asyncio.create_task(deploy_core(control_plane, queue, disable_message_queue=not options.plugin))
    await wait_until_listening(HOST, options.control_plane_port)
    workflow = asyncio.create_task(deploy_workflow(AgenticWorkflow(timeout=None), service, control_plane))
    ready = asyncio.create_task(registrations.complete.wait())
    done, _ = await asyncio.wait({core, workflow, ready}, return_when=asyncio.FIRST_COMPLETED)
    if ready in done:
        say("READY")
    await asyncio.gather(core, workflow)


def main() -> None:
    """Parse the command line and deploy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queue-host", default=HOST)
    parser.add_argument("--queue-port", type=int, required=True)
    parser.add_argument("--control-plane-port", type=int, required=True)
    parser.add_argument("--service-port", type=int, required=True)
    parser.add_argument("--service-name", default="agentic_workflow")
    parser.add_argument("--plugin", action="store_true")
    options = parser.parse_args()
    if options.plugin:
        importlib.import_module("wakeq.integrations.llama_deploy.auto")
    run_until_terminated(lambda: deploy(options))


if __name__ == "__main__":
    main()
