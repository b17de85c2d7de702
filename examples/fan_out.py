"""One topic, several groups, each with every message: `python examples/fan_out.py` beside a running `wakeq serve`."""

import anyio

import wakeq

ORDERS = ("a book", "a lamp")


async def member(queue: wakeq.AsyncClient, group: str, done: anyio.Semaphore) -> None:
    """A consumer of a group; its members share the group's messages."""
    async with queue.consume("orders", group=group, prefetch=1) as deliveries:
        async for delivery in deliveries:
            async with delivery:
                print(f"{group}: {delivery.body['item']}")
            done.release()


async def main() -> None:
    """Two in shipping share the orders that billing has too."""
    async with wakeq.AsyncClient() as queue, anyio.create_task_group() as tasks:
        await queue.create_topic("orders", schema="json")
        # A group has what is published after it was made. `default`, which nobody here reads, would only fill up.
        for group in ("billing", "shipping"):
            await queue.put_group("orders", group)
        await queue.delete_group("orders", "default")
        done = anyio.Semaphore(0)
        for group in ("billing", "shipping", "shipping"):
            tasks.start_soon(member, queue, group, done)
        for item in ORDERS:
            await queue.publish("orders", {"item": item})
        for _ in range(2 * len(ORDERS)):
            await done.acquire()
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main)
