"""How long to wait before trying again: exponential, with full jitter, so that clients of one server that went away
do not come back together (M. Brooker, "Exponential Backoff And Jitter", AWS 2015)."""

from collections.abc import Callable


class Backoff:
    """Delays of one series of attempts."""

    def __init__(self, jitter: Callable[[], float], base_s: float = 0.1, max_s: float = 10.0) -> None:
        """``jitter`` gives numbers in [0, 1)."""
        self._jitter = jitter
        self._base_s = base_s
        self._max_s = max_s
        self._failures = 0

    def succeeded(self) -> None:
        """The series is over."""
        self._failures = 0

    def next_delay_s(self, at_least_s: float = 0.0) -> float:
        """Seconds to wait after one more failure; the server's own wish comes first."""
        longest = min(self._max_s, self._base_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return at_least_s + longest * self._jitter()
