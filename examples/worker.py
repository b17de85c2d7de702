"""Work on jobs, one of which fails the first time: `python examples/worker.py` beside a running `wakeq serve`."""

import anyio

import wakeq

JOBS = 3


async def publish(queue: wakeq.AsyncClient) -> None:
    """Returns when the jobs are on the server's disk."""
    for number in range(1, JOBS + 1):
        published = await queue.publish("jobs", {"number": number})
        print(f"published job {number} as message {published.first_seq}")


async def work(queue: wakeq.AsyncClient) -> None:
    """One stream, parked between messages. What is not acked comes back to the topic."""
    done = 0
    async with queue.consume("jobs", prefetch=1) as deliveries:
        async for delivery in deliveries:
            try:
                # Acks at the end of the block. After an error it nacks, and the topic's backoff says when to try again.
                async with delivery:
                    handle(delivery.body["number"], delivery.attempt)
            except RuntimeError as error:
                print(f"job {delivery.body['number']} failed: {error}")
                continue
            done += 1
            if done == JOBS:
                return


def handle(number: int, attempt: int) -> None:
    """What is to be done for a job."""
    if number == 2 and attempt == 1:
        raise RuntimeError("no luck")
    print(f"worked on job {number}, attempt {attempt}")


async def main() -> None:
    """`WAKEQ_URL` says where the queue is, else http://127.0.0.1:8001."""
    async with wakeq.AsyncClient() as queue:
        await queue.create_topic("jobs", schema="json", retry_backoff_s={"min": 0.1, "max": 60})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work, queue)
            tasks.start_soon(publish, queue)


if __name__ == "__main__":
    anyio.run(main)
