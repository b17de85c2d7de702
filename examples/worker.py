"""Work on typed jobs: `python examples/worker.py` beside a running `wakeq serve`.

One job fails the first time, and is tried again. One is no job at all, and becomes a dead letter. The log says so.
"""

from dataclasses import dataclass

import anyio

import wakeq

JOBS = 3

worker = wakeq.Worker(concurrency=4)
done = 0


@dataclass
class Job:
    """What a message of the topic is."""

    number: int


@worker.handler("jobs", time_limit_s=60)
async def work(job: Job, delivery: wakeq.Delivery) -> None:
    """Acked when it returns. When it raises it is nacked, and the topic's backoff says when it is tried again."""
    if job.number == 2 and delivery.attempt == 1:
        raise RuntimeError("no luck")
    print(f"worked on job {job.number}, attempt {delivery.attempt}")
    global done
    done += 1
    if done == JOBS:
        worker.stop()


async def publish() -> None:
    """Returns when the jobs are on the server's disk."""
    async with wakeq.AsyncClient() as queue:
        await queue.create_topic("jobs", schema="json", retry_backoff_s={"min": 0.1, "max": 60})
        await queue.publish("jobs", {"number": "one"})
        for number in range(1, JOBS + 1):
            await queue.publish("jobs", Job(number))


async def show_dead_letters() -> None:
    """What could not be a job."""
    async with wakeq.AsyncClient() as queue:
        for peeked in await queue.peek("jobs", state="dead"):
            print(f"dead letter {peeked.seq}: {peeked.body}")


if __name__ == "__main__":
    anyio.run(publish)
    # Until SIGTERM or SIGINT, as a rule; here until all is done.
    worker.run()
    anyio.run(show_dead_letters)
