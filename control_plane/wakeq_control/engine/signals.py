"""Who waits for what, by name. Waking costs as much as there are waiters for that name.

A waiter looks at the state, then waits without an await in between, then looks again: nothing happens unseen.
"""

import anyio


class Signals:
    """Waiters by name."""

    def __init__(self) -> None:
        self._events: dict[str, anyio.Event] = {}

    def wake(self, name: str) -> None:
        """Wake everybody who waits for it."""
        event = self._events.pop(name, None)
        if event is not None:
            event.set()

    async def wait(self, name: str) -> None:
        """Return when it is woken."""
        event = self._events.setdefault(name, anyio.Event())
        try:
            await event.wait()
        finally:
            # The last waiter that gives up leaves nothing behind.
            if not event.statistics().tasks_waiting and self._events.get(name) is event:
                del self._events[name]

    def waiting(self) -> int:
        """How many names are waited for."""
        return len(self._events)
