"""What wakeq's own worker runs in the scenario `task`: the workflow of the peers' scripts, and a bare echo."""

import asyncio
import time

from workflows import Context, Workflow, step
from workflows.events import Event, StartEvent, StopEvent


class ProgressEvent(Event):
    """One of the streamed events, with its number and when it was emitted, in seconds since 1970."""

    number: int
    at: float


class Echo(Workflow):
    """Echoes ``user_msg``, and streams so many ``events`` first, with a ``pause`` in seconds in front of each."""

    @step
    async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
        """Do all of it."""
        for number in range(int(ev.get("events", 0))):
            if pause := float(ev.get("pause", 0)):
                await asyncio.sleep(pause)
            ctx.write_event_to_stream(ProgressEvent(number=number, at=time.time()))
        return StopEvent(result=f"echo: {ev.user_msg}")


workflow = Echo(timeout=None)
