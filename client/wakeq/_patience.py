"""How long something is tried again: with the delays of a `Backoff`, and not for ever."""

import random
from collections.abc import Callable

import anyio

from wakeq._backoff import Backoff
from wakeq._errors import WakeqError


class Patience:
    """That of one series of attempts."""

    def __init__(self, retry_s: float, jitter: Callable[[], float] = random.random, *, max_s: float = 10.0) -> None:
        """``retry_s``: how long after a first failure the last attempt may begin; ``max_s``: the longest delay."""
        self._retry_s = retry_s
        self._backoff = Backoff(jitter, max_s=max_s)
        self._last_try_at: float | None = None

    def succeeded(self) -> None:
        """The next failure is a first one."""
        self._backoff.succeeded()
        self._last_try_at = None

    async def wait(self, error: WakeqError, at_least_s: float = 0.0) -> None:
        """Wait until it may be tried again after this error. Raises the error where that would be too late."""
        now = anyio.current_time()
        if self._last_try_at is None:
            self._last_try_at = now + self._retry_s
        at = now + self._backoff.next_delay_s(error.retry_after_s or at_least_s)
        if at > self._last_try_at:
            raise error
        await anyio.sleep_until(at)
