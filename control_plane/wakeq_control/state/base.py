"""What a store of the control plane's state can do."""

from collections.abc import Sequence
from typing import Protocol

from wakeq_control.model import Change, Snapshot


class StateStore(Protocol):
    """Rows by table, key and number. One process at a time has one; calls may come from any thread, one at a time."""

    def load(self) -> Snapshot:
        """All of it. Raises StorageFailed."""

    def commit(self, changes: Sequence[Change]) -> None:
        """Make changes, in their order: all of them or none, durable on return. Raises StorageFailed."""

    def close(self) -> None:
        """Let go of it."""
