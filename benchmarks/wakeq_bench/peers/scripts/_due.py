"""Moments that are set beforehand: what comes late is late for everybody who would have come meanwhile.

A duration counts from when something was due, not from when it could be done (no coordinated omission).

Run by the python of a peer's environment: the standard library only.
"""

import asyncio
import time

IN_FLIGHT_MAX = 200
"""Calls at a time, beyond which the next one waits, and is late: each may have a socket of its own."""
_SPIN_S = 0.0002


async def until(due: float) -> None:
    """Wait until a moment of time.perf_counter; by spinning in the end, since the kernel wakes late."""
    while (left := due - time.perf_counter()) > 0:  # noqa: ASYNC110
        await asyncio.sleep(max(0.0, left - _SPIN_S))


def microseconds(seconds: float) -> int:
    """So that ten thousand of them are a short line."""
    return round(1e6 * seconds)
