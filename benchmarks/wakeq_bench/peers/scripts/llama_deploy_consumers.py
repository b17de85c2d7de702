"""Runs consumers through the original SimpleMessageQueue client, each on a topic of its own.

Prints READY when all of them have asked for their first message, then a line of JSON a message.
"""

# mypy: disable-error-code="import-not-found"

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from _output import say, say_json
from _process import run_until_terminated
from llama_deploy import CallableMessageConsumer, QueueMessage
from llama_deploy.message_queues.simple import SimpleMessageQueue, SimpleMessageQueueConfig


def recorder(topic: str, consumer: str) -> Callable[[Any], Awaitable[None]]:
    """A handler that writes down what it is given."""

    async def record(message: QueueMessage) -> None:
        say_json(
            {
                "topic": topic,
                "consumer": consumer,
                "id": message.id_,
                "data": message.data,
                "received_at": time.time(),
            }
        )

    return record


async def consume(options: argparse.Namespace) -> None:
    """Register all consumers, start them, and run until one of them dies."""
    address = urlsplit(options.url)
    config = SimpleMessageQueueConfig(
        host=address.hostname, port=address.port or 80, client_kwargs=json.loads(options.client_kwargs)
    )
    queue = SimpleMessageQueue(config)
    starts = []
    for number in range(options.topics * options.per_topic):
        topic, name = f"{options.topic_prefix}{number % options.topics}", f"consumer-{number}"
        consumer = CallableMessageConsumer(id_=name, message_type=options.type, handler=recorder(topic, name))
        starts.append(await queue.register_consumer(consumer, topic))
    running = [asyncio.create_task(start()) for start in starts]
    # Tasks start in order, so each has come to its first wait when this one goes on.
    await asyncio.sleep(0)
    say("READY")
    await asyncio.gather(*running)


def main() -> None:
    """Parse the command line and consume."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="of the queue server, as http://127.0.0.1:PORT")
    parser.add_argument("--topics", type=int, default=1, help="how many")
    parser.add_argument("--topic-prefix", default="topic-", help="topics are named PREFIX0, PREFIX1, ...")
    parser.add_argument("--per-topic", type=int, default=1, help="consumers that compete on each topic")
    parser.add_argument("--type", default="default", help="of the messages; the client refuses any other")
    parser.add_argument("--client-kwargs", default="{}", help="JSON, handed to httpx.AsyncClient")
    options = parser.parse_args()
    run_until_terminated(lambda: consume(options))


if __name__ == "__main__":
    main()
