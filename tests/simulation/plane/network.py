"""The network: what is sent takes a while, and now and then doesn't arrive, or its answer doesn't."""

import asyncio
from random import Random

import anyio

import wakeq
from tests.simulation.loop import TICK

LATE = 0.15
"""How much of what is sent takes time; the rest some turns of the loop."""
LATE_TICKS = 96


class Lost(wakeq.ServerUnavailable):
    """What was asked, or its answer, was lost."""


class Network:
    """Between any two."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.loss = 0.0
        """How much is lost, either way."""

    async def carry(self) -> None:
        """One way. Raises Lost."""
        if self._rng.random() < LATE:
            await anyio.sleep(self._rng.randint(1, LATE_TICKS) * TICK)
        else:
            for _ in range(self._rng.randint(1, 4)):
                await asyncio.sleep(0)
        if self._rng.random() < self.loss:
            raise Lost("lost on the way")
