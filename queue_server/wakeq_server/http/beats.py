"""Heartbeats that fall together.

A hundred parked consumers with a heartbeat every three seconds, each at its own moment, wake an idle server 33 times a
second, and their clients as well; most of what a heartbeat costs is that waking. So consumers share their moments:
whoever needs a next one takes one that others have, if it is near enough to its own and not too full. Full ones keep
10,000 consumers from beating all at once.
"""

SHARED_MAX = 128


class Beats:
    """The moments to come."""

    def __init__(self, every_s: float) -> None:
        self.every_s = every_s
        self._shared: dict[float, int] = {}

    def next(self, now: float) -> float:
        """When to beat next: ``every_s`` from now, or up to a third of that earlier or later, with others."""
        wanted, slack_s = now + self.every_s, self.every_s / 3
        for moment, count in self._shared.items():
            if abs(moment - wanted) <= slack_s and count < SHARED_MAX:
                self._shared[moment] = count + 1
                return moment
        self._forget(now)
        # A full moment at the very same instant is left as it is.
        while wanted in self._shared:
            wanted += self.every_s / 1000
        self._shared[wanted] = 1
        return wanted

    def _forget(self, now: float) -> None:
        for moment in [moment for moment in self._shared if moment <= now]:
            del self._shared[moment]
