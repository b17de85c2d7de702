"""A consumer that acks every message by a call of its own, beside the others.

Run by the python of a peer's environment: the standard library only.
"""

# mypy: disable-error-code="import-not-found"

import asyncio
from collections.abc import Callable
from typing import Any

from _client import Queue


def _nothing() -> None:
    return None


async def consume_singly(
    queue: Queue,
    topic: str,
    prefetch: int,
    taken: Callable[[bytes | str], None],
    acked: Callable[[], None] = _nothing,
    group: str | None = None,
) -> None:
    """Take messages for ever; `taken` is told of each body as it comes, `acked` of each ack that is through."""
    unacked = asyncio.Semaphore(prefetch)

    async def ack(token: Any) -> None:
        await queue.ack_one(token)
        unacked.release()
        acked()

    async with asyncio.TaskGroup() as acks:
        async for token, body in queue.deliveries(topic, prefetch, group):
            taken(body)
            await unacked.acquire()
            acks.create_task(ack(token))
