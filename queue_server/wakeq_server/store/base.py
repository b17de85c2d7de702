"""What the embedded engine asks of a store. A store decides nothing: it keeps rows, whole transactions of them.

All calls block. Those that write are made one at a time, from a thread of the engine's choice;
`read_bodies` may run beside them.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from wakeq_server.core.model import Message, Record, Snapshot


class Store(Protocol):
    """Keeps what transactions say, until they say otherwise."""

    durable: bool
    """Whether anything is there after a restart; where not, the engine spares itself the writing."""
    full: bool
    """Whether what takes room is refused, and only what makes room is taken."""

    def load(self) -> Snapshot:
        """Open, and return all that is kept, with an epoch higher than at any load before.

        Raises StartupError: another process has it open, it is damaged, or of a newer version.
        """

    def commit(self, transactions: Sequence[Iterable[Record]]) -> None:
        """Write all of them in one step, and return when they are as durable as this store makes anything.

        Raises StorageFull or StorageFailed, and then has written none of them.
        """

    def read_bodies(self, topic_id: int, first: int, last: int) -> list[Message]:
        """The topic's messages with ``first <= seq <= last``, in order, bodies and all; no body where it is damaged.

        May be called from another thread than `commit`, while that runs.

        Raises StorageFailed.
        """

    def close(self) -> None:
        """Let go of files and locks. Calling it twice is fine."""
