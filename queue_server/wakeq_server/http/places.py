"""How many requests are parked: each costs a connection, a task and their memory, so there is a limit."""

from wakeq_server.errors import TooManyParked


class Places:
    """The requests that are parked, or may be at any moment, such as streams. A context manager for being one.

    Whether there is a place left must be asked before entering, with no await between.
    """

    def __init__(self, limit: int) -> None:
        self.taken = 0
        self._limit = limit

    @property
    def full(self) -> bool:
        """Whether another would be one too many."""
        return self.taken >= self._limit

    def refusal(self) -> TooManyParked:
        """What to tell another."""
        return TooManyParked(self._limit)

    def __enter__(self) -> None:
        self.taken += 1

    def __exit__(self, *_: object) -> None:
        self.taken -= 1
