"""An asyncio loop without I/O: time stands still until it is moved, and who runs first is drawn from a seed."""

import asyncio
import math
from collections import deque
from collections.abc import Iterable
from random import Random

START = 1_000.0
TICK = 1 / 64
"""Times are multiples of a power of two, so sums and differences of them are exact."""


class VirtualLoop(asyncio.BaseEventLoop):
    """What asyncio's own loops share, on a clock of ours. The engine runs on it as it runs in production."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, rng: Random | None) -> None:
        """``rng`` shuffles who runs first of those who can run; None: in the order in which they became able to."""
        super().__init__()
        self._rng = rng
        self._now = START
        self._selector = self

    def time(self) -> float:
        return self._now

    def idle(self) -> bool:
        """Whether nobody but the caller can run before time moves."""
        return not self._ready

    def next_timer(self) -> float | None:
        """When time brings something; None: never."""
        return min((handle.when() for handle in self._scheduled if not handle.cancelled()), default=None)

    def move(self, to: float) -> None:
        """Let it be that late, or up to a tick later; what is due by then can run."""
        self._now = max(self._now, math.ceil(to / TICK) * TICK)

    def select(self, timeout: float | None) -> Iterable[object]:
        """Called by asyncio when it would wait for I/O. Whoever drives the simulation can always run."""
        assert timeout == 0, "everybody waits, and nobody moves the time"
        if self._rng is not None and len(self._ready) > 1:
            ready = list(self._ready)
            self._rng.shuffle(ready)
            self._ready.clear()
            self._ready.extend(ready)
        return ()

    def _process_events(self, events: Iterable[object]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass
