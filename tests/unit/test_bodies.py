"""Bodies that are in the store alone: how far ahead they are read."""

import pytest

from tests.support.stores import KeepingStore
from wakeq._serving.offload import OneThread
from wakeq_server.core.model import Message, MessageAdded
from wakeq_server.engine.bodies import AHEAD, Bodies

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Reading(KeepingStore):
    """A store that notes what it is asked for."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.ranges: list[tuple[int, int]] = []
        for seq in range(1, 1_001):
            self.apply(MessageAdded(1, Message(seq, b"x" * size, size, 0.0)))

    def read_bodies(self, topic_id: int, first: int, last: int) -> list[Message]:
        self.ranges.append((first, last))
        return super().read_bodies(topic_id, first, last)


@pytest.mark.parametrize(("size", "ahead"), [(1, AHEAD), (10, 100), (400, 2), (5_000, 1), (0, AHEAD)])
async def test_as_far_as_what_is_read_has_room(size: int, ahead: int) -> None:
    store = Reading(size)
    bodies = Bodies(store, OneThread(), kept_bytes=1_000)
    for seq in range(1, ahead + 2):
        (message,) = (await bodies.read(1, [seq], size)).values()
        assert message.seq == seq
    assert store.ranges == [(1, ahead), (ahead + 1, 2 * ahead)]


async def test_what_is_asked_for_is_read_whatever_the_room() -> None:
    store = Reading(400)
    bodies = Bodies(store, OneThread(), kept_bytes=1_000)
    assert list(await bodies.read(1, [1, 2, 3, 500], 400)) == [1, 2, 3, 500]
