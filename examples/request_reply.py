"""Ask, and be answered, over two topics: `python examples/request_reply.py` beside a running `wakeq serve`.

Questions go to a topic that all who answer share. Each client has a topic of its own for answers, which a question
names in its headers, and tells the answers apart by the idempotency key of the question.
"""

import secrets
from typing import Any

import anyio

import wakeq


class Asker:
    """Asks, and gives each answer to whoever waits for it."""

    def __init__(self, queue: wakeq.AsyncClient) -> None:
        self._queue = queue
        self._answers = f"answers-{secrets.token_hex(8)}"
        self._waiting: dict[str, anyio.Event] = {}
        self._answered: dict[str, Any] = {}

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Take answers until cancelled."""
        await self._queue.create_topic(self._answers, ttl_s=3600)
        task_status.started()
        try:
            async with self._queue.consume(self._answers) as deliveries:
                async for delivery in deliveries:
                    async with delivery:
                        question = delivery.headers["in-reply-to"]
                        self._answered[question] = delivery.body
                        self._waiting[question].set()
        finally:
            with anyio.move_on_after(5, shield=True):
                await self._queue.delete_topic(self._answers)

    async def ask(self, question: Any, within_s: float = 30.0) -> Any:
        """The answer to a question. Raises TimeoutError."""
        key = secrets.token_hex(8)
        self._waiting[key] = anyio.Event()
        try:
            with anyio.fail_after(within_s):
                # Nobody has to answer a question that nobody waits for any more.
                headers = {"reply-to": self._answers}
                await self._queue.publish(
                    "questions", question, headers=headers, idempotency_key=key, ttl_s=max(1.0, within_s)
                )
                await self._waiting[key].wait()
            return self._answered.pop(key)
        finally:
            del self._waiting[key]


async def answer(queue: wakeq.AsyncClient) -> None:
    """Square numbers for whoever asks."""
    async with queue.consume("questions", prefetch=4) as deliveries:
        async for delivery in deliveries:
            async with delivery:
                # With the question's key an answer that is given twice is delivered once.
                await queue.publish(
                    delivery.headers["reply-to"],
                    delivery.body**2,
                    headers={"in-reply-to": str(delivery.id)},
                    idempotency_key=f"answer-{delivery.id}",
                )


async def main() -> None:
    """Three questions at a time."""
    async with wakeq.AsyncClient() as queue, anyio.create_task_group() as tasks:
        await queue.create_topic("questions", schema="json")
        tasks.start_soon(answer, queue)
        asker = Asker(queue)
        await tasks.start(asker.run)

        async def ask(number: int) -> None:
            print(f"{number} squared is {await asker.ask(number)}")

        async with anyio.create_task_group() as questions:
            for number in (3, 4, 5):
                questions.start_soon(ask, number)
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main)
