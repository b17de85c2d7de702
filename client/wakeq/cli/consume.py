"""`wakeq consume`."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import anyio
import orjson
import typer

import wakeq
from wakeq._async_client import DEFAULT_URL
from wakeq.cli import _values
from wakeq.cli._talk import DEFAULT_GROUP, Group, Topic, Url, counted, fail, talk

_BATCH = 100
# Claims are asked anew before their 60 s, the longest that the protocol has.
_PARK_S = 50.0
_GIVE_BACK_S = 2.0


def consume(
    topic: Topic,
    group: Group = DEFAULT_GROUP,
    most: Annotated[
        int | None, typer.Option("--max", metavar="N", min=1, help="End after so many messages.", show_default=False)
    ] = None,
    wait_s: Annotated[
        Any, typer.Option("--wait", parser=_values.seconds, metavar="DURATION", help="End when none came for so long.")
    ] = None,
    ack: Annotated[
        bool, typer.Option("--ack/--no-ack", help="Ack what was printed, or leave it to come back when its lease ends.")
    ] = True,
    url: Url = DEFAULT_URL,
) -> None:
    """Take messages off a topic as they come, and print each body as a line; the next one is waited for.

    A message is acked when it has been printed: it may come twice, but is never lost.
    """

    async def work(client: wakeq.AsyncClient) -> None:
        left = most
        while left is None or left > 0:
            wait = _PARK_S if wait_s is None else wait_s
            deliveries = await client.claim(topic, max=min(left or _BATCH, _BATCH), wait_s=wait, group=group)
            if not deliveries and wait_s is not None:
                return
            await _print(client, topic, deliveries, ack=ack)
            left = None if left is None else left - len(deliveries)

    talk(url, work, topic)


async def _print(client: wakeq.AsyncClient, topic: str, deliveries: Sequence[wakeq.Delivery], *, ack: bool) -> None:
    leases = [delivery.lease_id for delivery in deliveries]
    try:
        for delivery in deliveries:
            body = delivery.body if delivery.content_type is not None else orjson.dumps(delivery.body)
            sys.stdout.buffer.write(body + b"\n")
        sys.stdout.buffer.flush()
    except BaseException:
        # Whoever reads has gone. What nobody has seen for sure is another consumer's.
        with anyio.move_on_after(_GIVE_BACK_S, shield=True):
            await client.settle(topic, nack=[wakeq.Nack(lease, 0.0) for lease in leases])
        raise
    if ack and leases:
        results = await client.settle(topic, ack=leases)
        late = sum(result.status != "ok" for result in results)
        if late:
            fail(
                f"{counted(late, 'message')} came too late to be acked and will come again",
                "raise --lease of the topic",
            )
