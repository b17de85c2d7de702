"""Publishes numbered messages through the original SimpleMessageQueue client, one after the other.

Their data is {"number": N, "published_at": SECONDS}. Prints a line of JSON at the end. The client ignores what the
server answers: to a topic that does not exist, everything is lost without a word.
"""

# mypy: disable-error-code="import-not-found"

import argparse
import asyncio
import json
import logging
import time
from urllib.parse import urlsplit

from _output import say_json
from llama_deploy import QueueMessage
from llama_deploy.message_queues.simple import SimpleMessageQueue, SimpleMessageQueueConfig


async def run(options: argparse.Namespace) -> None:
    """Publish them all."""
    # A line of log a message would be measured with it.
    logging.getLogger("llama_deploy").setLevel(logging.WARNING)
    address = urlsplit(options.url)
    config = SimpleMessageQueueConfig(
        host=address.hostname, port=address.port or 80, client_kwargs=json.loads(options.client_kwargs)
    )
    queue = SimpleMessageQueue(config)
    started = time.perf_counter()
    for number in range(options.first, options.first + options.count):
        data = {"number": number, "published_at": time.time()}
        await queue.publish(QueueMessage(type=options.type, data=data), options.topic)
    say_json({"published": options.count, "seconds": time.perf_counter() - started})


def parser() -> argparse.ArgumentParser:
    """The command line's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="of the queue server, as http://127.0.0.1:PORT")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first message")
    parser.add_argument("--type", default="default")
    parser.add_argument("--client-kwargs", default="{}", help="JSON, handed to httpx.AsyncClient")
    return parser


if __name__ == "__main__":
    asyncio.run(run(parser().parse_args()))
