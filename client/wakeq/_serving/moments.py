"""Moments that many share: when to send the next heartbeat, when to end a wait.

A hundred parked consumers, each with a heartbeat every three seconds at its own moment, wake an idle server 33 times a
second, and their clients as well; most of what such a moment costs is the waking. None of them needs to be exact. So
whoever has one to come takes one that others have, if it is near enough and not too full; kernels do the same with
timers (`timer_slack_ns`). Full ones keep 10,000 consumers from being answered, and coming back, all at once.
"""

import random

SHARED_MAX = 128
"""What one turn of the loop can do without keeping a message waiting for long."""


class Moments:
    """The moments to come, of one kind."""

    def __init__(self) -> None:
        self._shared: dict[float, int] = {}
        """Those with room, and how many have each: a full one is nobody's concern any more."""

    def within(self, now: float, earliest: float, latest: float) -> float:
        """One that others have, if there is one in that time; else a new one, anywhere in it."""
        for moment, count in self._shared.items():
            if earliest <= moment <= latest:
                if count + 1 < SHARED_MAX:
                    self._shared[moment] = count + 1
                else:
                    del self._shared[moment]
                return moment
        for moment in [moment for moment in self._shared if moment <= now]:
            del self._shared[moment]
        moment = random.uniform(earliest, latest)
        self._shared[moment] = 1
        return moment


class Beats:
    """Heartbeats: every so many seconds, and up to a third of that earlier or later."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._moments = Moments()

    def next(self, now: float) -> float:
        """When the next one is to be sent."""
        return self._moments.within(now, now + self._every_s * 2 / 3, now + self._every_s * 4 / 3)
