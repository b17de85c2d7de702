"""A store that keeps nothing beyond its process."""

from collections.abc import Sequence

from wakeq_control.model import TABLES, Change, Snapshot, Table
from wakeq_control.state.rows import snapshot


class MemoryStore:
    """A StateStore in dictionaries."""

    def __init__(self) -> None:
        self._rows: dict[Table, dict[str, dict[int, bytes]]] = {table: {} for table in TABLES}

    def load(self) -> Snapshot:
        """See StateStore."""
        return snapshot(
            {
                table: [(key, values[number]) for key, values in keys.items() for number in sorted(values)]
                for table, keys in self._rows.items()
            }
        )

    def commit(self, changes: Sequence[Change]) -> None:
        """See StateStore."""
        for change in changes:
            keys = self._rows[change.table]
            if change.value is not None:
                keys.setdefault(change.key, {})[change.number] = change.value
            else:
                keys.pop(change.key, None)

    def close(self) -> None:
        """See StateStore."""
