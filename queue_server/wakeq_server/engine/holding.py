"""Publishers that wait for room, in order. Room for one wakes one; it wakes the next when it has got in."""

from collections import OrderedDict

import anyio

from wakeq_server.core.topic import Topic


class Holding:
    """Publishers held by topic."""

    def __init__(self) -> None:
        self._held: dict[Topic, OrderedDict[anyio.Event, None]] = {}

    async def wait(self, topic: Topic, until: float, *, first: bool) -> None:
        """Wait for room, or until then; ``first`` for one that was woken before its turn had come."""
        woken = anyio.Event()
        line = self._held.setdefault(topic, OrderedDict())
        line[woken] = None
        line.move_to_end(woken, last=not first)
        try:
            with anyio.CancelScope(deadline=until):
                await woken.wait()
        except BaseException:
            if woken.is_set():
                self.wake(topic)
            raise
        finally:
            line.pop(woken, None)
            if not line and self._held.get(topic) is line:
                self._held.pop(topic, None)

    def wake(self, topic: Topic) -> None:
        """There is room: tell the longest held."""
        line = self._held.get(topic)
        if line:
            line.popitem(last=False)[0].set()

    def wake_all_topics(self) -> None:
        """Storage works again: tell the longest held of each topic."""
        for topic in list(self._held):
            self.wake(topic)
