"""How often something happens, now: a count that decays, so that no timer has to look."""

from math import exp

OVER_S = 60.0
"""What happened so long ago weighs 1/e of what happens now."""


class Rate:
    """Events a second, averaged over the last minute or so (an exponentially decaying count).

    It is brought up to date by an event or by whoever reads it, and costs nothing in between.
    """

    __slots__ = ("_at", "_per_s")

    def __init__(self) -> None:
        self._per_s = 0.0
        self._at = 0.0

    def add(self, count: int, now: float) -> None:
        """So many events have happened."""
        # Much happens at one moment, and then nothing has decayed.
        if now != self._at:
            self._per_s *= exp((self._at - now) / OVER_S)
            self._at = now
        self._per_s += count / OVER_S

    def at(self, now: float) -> float:
        """Events a second."""
        return self._per_s and self._per_s * exp((self._at - now) / OVER_S)
