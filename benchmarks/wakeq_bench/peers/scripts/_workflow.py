"""The workflow that is deployed: echoes `user_msg`, streams so many `events` first, and asks a human what `ask` says.

It rests for `pause` seconds before each event. With `ask` it returns the answer. It imports llama_index only, so that
an API server can be given this file alone.
"""

# mypy: disable-error-code="import-not-found", allow-subclassing-any, allow-untyped-decorators

import asyncio
import time

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


class ProgressEvent(Event):
    """One of the streamed events, numbered from 0, and when it was emitted, in seconds since 1970."""

    number: int
    at: float


class AgenticWorkflow(Workflow):
    """Echoes, streams, asks."""

    @step
    async def start(self, ctx: Context, ev: StartEvent) -> InputRequiredEvent | StopEvent:
        """Stream what was asked for, then answer or put the question."""
        answer = f"echo: {ev.user_msg}"
        for number in range(int(ev.get("events", 0))):
            if pause := float(ev.get("pause", 0)):
                await asyncio.sleep(pause)
            ctx.write_event_to_stream(ProgressEvent(number=number, at=time.time()))
        question = ev.get("ask", "")
        return InputRequiredEvent(prefix=question) if question else StopEvent(result=answer)

    @step
    async def answered(self, ev: HumanResponseEvent) -> StopEvent:
        """Return what the human said."""
        return StopEvent(result=f"answer: {ev.response}")


workflow = AgenticWorkflow(timeout=None)
