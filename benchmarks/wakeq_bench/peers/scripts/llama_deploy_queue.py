"""Runs the original SimpleMessageQueueServer; prints READY when it accepts connections."""

# mypy: disable-error-code="import-not-found"

import argparse
import asyncio

from _output import say
from _process import run_until_terminated, wait_until_listening
from llama_deploy import SimpleMessageQueueConfig, SimpleMessageQueueServer


async def serve(host: str, port: int) -> None:
    """Run the server until it ends."""
    server = SimpleMessageQueueServer(SimpleMessageQueueConfig(host=host, port=port))
    serving = asyncio.create_task(server.launch_server())
    await wait_until_listening(host, port)
    say("READY")
    await serving


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    run_until_terminated(lambda: serve(options.host, options.port))


if __name__ == "__main__":
    main()
