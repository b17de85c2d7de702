"""Uses wakeq's plug-in as llama_deploy would, under a python that has llama_deploy; says each step as a line of JSON.

A message whose data has `fail` is not processed; one that has `wait` is when there is one on the topic `release`.
"""

# mypy: disable-error-code="import-not-found"

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from llama_deploy import CallableMessageConsumer, QueueMessage, SimpleMessageQueueConfig
from llama_deploy.message_consumers.remote import RemoteMessageConsumer

import wakeq
from wakeq.integrations.llama_deploy import WakeqMessageQueue, WakeqMessageQueueConfig

TYPE = "work"


def say(**record: Any) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


class Worker:
    """What consumers do with their messages."""

    def __init__(self) -> None:
        self._released = asyncio.Event()
        self.done = asyncio.Event()

    def consumer(self, name: str, handler: Callable[[QueueMessage], Awaitable[None]]) -> Any:
        return CallableMessageConsumer(id_=name, message_type=TYPE, handler=handler)

    async def process(self, message: QueueMessage) -> None:
        say(began=message.data)
        if "fail" in message.data:
            raise RuntimeError(message.data["fail"])
        if "wait" in message.data:
            await self._released.wait()
        say(done=message.data)
        self.done.set()

    async def release(self, _message: QueueMessage) -> None:
        self._released.set()


async def consume(queue: WakeqMessageQueue, _options: argparse.Namespace) -> None:
    worker = Worker()
    consuming = [
        await queue.register_consumer(worker.consumer("worker", worker.process), "work"),
        await queue.register_consumer(worker.consumer("releaser", worker.release), "release"),
    ]
    say(registered=True)
    await asyncio.gather(*(start() for start in consuming))


async def remote(queue: WakeqMessageQueue, options: argparse.Namespace) -> None:
    """Have messages posted to a service, as deployments do."""
    consumer = RemoteMessageConsumer(url=options.service, message_type=TYPE)
    start = await queue.register_consumer(consumer, "work")
    say(registered=True)
    await start()


async def publish(queue: WakeqMessageQueue, _options: argparse.Namespace) -> None:
    try:
        await queue.publish(QueueMessage(type=TYPE), "nobody")
    except wakeq.TopicNotFound as error:
        say(refused=str(error))
    await queue.publish(QueueMessage(type=TYPE, data={"number": 2**60, "text": "ü"}), "work")
    await queue.cleanup()
    say(published=True)


async def end(queue: WakeqMessageQueue, _options: argparse.Namespace) -> None:
    """Consumers that have worked are told to end, and each returns."""
    worker = Worker()
    consumer = worker.consumer("worker", worker.process)
    for way in ("deregistered", "cancelled"):
        start = await queue.register_consumer(consumer, "work")
        try:
            await queue.register_consumer(consumer, "work")
        except ValueError as error:
            say(refused=str(error))
        running = asyncio.create_task(start())
        worker.done.clear()
        await queue.publish(QueueMessage(type=TYPE, data={"until": way}), "work")
        await worker.done.wait()
        if way == "cancelled":
            running.cancel()
        # llama_deploy makes a consumer anew for that, with the same id.
        await queue.deregister_consumer(worker.consumer("worker", worker.process))
        say(ended=way, returned=await running)
    await queue.cleanup()


async def interrupted(queue: WakeqMessageQueue, _options: argparse.Namespace) -> None:
    """A consumer is cancelled amid a message, which another one then has."""
    began = asyncio.Event()

    async def never(message: QueueMessage) -> None:
        say(interrupted=message.data)
        began.set()
        await asyncio.Event().wait()

    worker = Worker()
    # Its id has what no name in a list of consumers may have.
    start = await queue.register_consumer(worker.consumer("first\n" * 100, never), "work")
    running = asyncio.create_task(start())
    await queue.publish(QueueMessage(type=TYPE, data={"number": 1}), "work")
    await began.wait()
    running.cancel()
    await running
    running = asyncio.create_task((await queue.register_consumer(worker.consumer("second", worker.process), "work"))())
    await worker.done.wait()
    running.cancel()
    await running
    await queue.cleanup()


async def config(_queue: WakeqMessageQueue, _options: argparse.Namespace) -> None:
    """What a control plane tells its services."""
    told = WakeqMessageQueue(WakeqMessageQueueConfig(host="queue.example", port=8002, token="secret")).as_config()
    say(told={type(told).__name__: told.model_dump()})


SCENARIOS = {scenario.__name__: scenario for scenario in (config, consume, end, interrupted, publish, remote)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario", choices=sorted(SCENARIOS))
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--service", help="where a service takes its messages")
    options = parser.parse_args()
    queue = WakeqMessageQueue(SimpleMessageQueueConfig(port=options.port))
    asyncio.run(SCENARIOS[options.scenario](queue, options))


if __name__ == "__main__":
    main()
