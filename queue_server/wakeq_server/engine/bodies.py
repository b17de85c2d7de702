"""Bodies that are in the store alone, read when they are about to be delivered.

Consumers take a backlog in order, so what follows a wanted message is read with it; one reading serves the next few
hundred claims.
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

from wakeq._serving.offload import Offload
from wakeq_server.core.model import Message
from wakeq_server.store.base import Store

AHEAD = 256
KEPT_BYTES = 16 * 1024 * 1024


class Bodies:
    """Reads whole messages, and keeps some that were read ahead."""

    def __init__(self, store: Store, offload: Offload, kept_bytes: int = KEPT_BYTES) -> None:
        """``kept_bytes``: what was read ahead may take so many."""
        self._store = store
        self._offload = offload
        self._kept: OrderedDict[tuple[int, int], Message] = OrderedDict()
        self._kept_bytes = 0
        self._kept_max = kept_bytes

    async def read(self, topic_id: int, seqs: Sequence[int], size: int = 0) -> dict[int, Message]:
        """Those of these messages that are there, bodies and all but damaged ones; some may go while it reads.

        ``size`` is about that of one. Raises StorageFailed.
        """
        # Large ones read ahead would only push each other out, and take the memory that they were left out of.
        ahead = max(1, min(AHEAD, self._kept_max // max(1, size)))
        found = {seq: message for seq in seqs if (message := self._take(topic_id, seq)) is not None}
        missing = sorted(set(seqs) - found.keys())
        while missing:
            first, last = missing[0], missing[0] + ahead - 1
            rows = await self._offload(partial(self._store.read_bodies, topic_id, first, last))
            for row in rows:
                if row.seq in missing:
                    found[row.seq] = row
                else:
                    self._keep(topic_id, row)
            missing = [seq for seq in missing if seq > last]
        return found

    def forget(self, topic_id: int) -> None:
        """A topic is gone."""
        for key in [key for key in self._kept if key[0] == topic_id]:
            self._kept_bytes -= self._kept.pop(key).size

    def _take(self, topic_id: int, seq: int) -> Message | None:
        message = self._kept.pop((topic_id, seq), None)
        if message is not None:
            self._kept_bytes -= message.size
        return message

    def _keep(self, topic_id: int, message: Message) -> None:
        self._take(topic_id, message.seq)
        self._kept[topic_id, message.seq] = message
        self._kept_bytes += message.size
        while self._kept_bytes > self._kept_max:
            self._kept_bytes -= self._kept.popitem(last=False)[1].size
