"""The store that keeps nothing: messages live in the core alone, and end with the process."""

from collections.abc import Iterable, Sequence

from wakeq_server.core.model import Message, Record, Snapshot


class MemoryStore:
    """A store for ``--durability memory``."""

    durable = False
    full = False

    def __init__(self, epoch: int) -> None:
        """``epoch`` must differ from that of every earlier start: the wall clock in nanoseconds, say."""
        self._epoch = epoch

    def load(self) -> Snapshot:
        """Nothing was kept."""
        return Snapshot(epoch=self._epoch)

    def commit(self, transactions: Sequence[Iterable[Record]]) -> None:
        """Nothing is kept."""

    def read_bodies(self, topic_id: int, first: int, last: int) -> list[Message]:
        """Bodies never leave the core."""
        return []

    def close(self) -> None:
        """Nothing is open."""
