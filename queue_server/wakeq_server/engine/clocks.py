"""The clocks that an engine is given; a test gives its own."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import anyio
import anyio.lowlevel


class Clocks(NamedTuple):
    """Where the time comes from."""

    wall: Callable[[], float]
    """Seconds since the epoch: what is stored and shown."""
    timer: Callable[[], float]
    """For statistics alone, since the event loop's clock may have steps of a millisecond."""
    now: Callable[[], float] = anyio.current_time
    """Monotonic, and the clock that anyio's deadlines go by. A backend's own saves looking up which one runs."""
    turn: Callable[[], Awaitable[object]] = anyio.lowlevel.checkpoint
    """Lets everybody else who can run do so; likewise."""
