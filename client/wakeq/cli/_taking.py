"""Taking messages off a topic: claims that park, and ride out a server that restarts."""

import math
import random

import anyio

import wakeq
from wakeq._backoff import Backoff

# Claims are asked anew before their 60 s, the longest that the protocol has.
_PARK_S = 50.0
_PASSING = (wakeq.ServerUnavailable, wakeq.Draining, wakeq.TooManyParked, wakeq.StorageFailed)


class Intake:
    """Messages of a topic's group, as a command wants them."""

    def __init__(
        self, client: wakeq.AsyncClient, topic: str, *, group: str, most: int | None, wait_s: float | None
    ) -> None:
        """At most ``most`` in all. ``wait_s`` is how long the next is waited for; None: for ever."""
        self.client = client
        self.topic = topic
        self._group = group
        self._left = math.inf if most is None else most
        self._wait_s = math.inf if wait_s is None else wait_s
        self._backoff = Backoff(random.random)
        self._reached = False

    async def take(self, most: int) -> list[wakeq.Delivery]:
        """At most so many, as soon as there is one; none is the end."""
        wait_s = self._wait_s
        while self._left:
            park_s = min(wait_s, _PARK_S)
            deliveries = await self._claim(int(min(most, self._left)), park_s)
            self._left -= len(deliveries)
            wait_s -= park_s
            if deliveries or not wait_s:
                return deliveries
        return []

    async def _claim(self, most: int, park_s: float) -> list[wakeq.Delivery]:
        while True:
            try:
                deliveries = await self.client.claim(self.topic, max=most, wait_s=park_s, group=self._group)
            except _PASSING as error:
                # A server that was never there is rather a mistake in its address than one that restarts.
                if self._wait_s != math.inf or not self._reached:
                    raise
                await anyio.sleep(self._backoff.next_delay_s(error.retry_after_s or 0.0))
                continue
            self._reached = True
            self._backoff.succeeded()
            return deliveries
