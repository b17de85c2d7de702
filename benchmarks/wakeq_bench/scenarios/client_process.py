"""One process that imports wakeq alone and does one thing with its client; what it found is a line of JSON.

Run by `client`, so that what is measured of the process is the client's.
"""

import argparse
import asyncio
import json
import sys
import time
from typing import Any

import anyio

import wakeq

TOPIC = "t"
_WARM_UP = 50
_PACE_S = 0.01
_SPIN_S = 0.0012
"""The event loop's timeouts are whole milliseconds, rounded up."""
_BATCH = 1_000
_BODY = {"text": "x" * 80}


def main() -> None:
    """Parse the command line and do the job until it is done, or until the process is terminated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", choices=("wakes", "drain", "wait"))
    parser.add_argument("--url", required=True)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--prefetch", type=int, default=32)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    options = parser.parse_args()
    anyio.run(_run, options, backend_options={"use_uvloop": options.loop == "uvloop"})


async def _run(options: argparse.Namespace) -> None:
    async with wakeq.AsyncClient(options.url) as client:
        if options.job == "wakes":
            found = await _wakes(client, options.count)
        elif options.job == "drain":
            found = await _drain(client, options.count, options.prefetch)
        else:
            found = await _wait(client)
    _say(found)


async def _wakes(client: wakeq.AsyncClient, count: int) -> dict[str, Any]:
    """From before each publish to its handler, one at a time, at an even pace."""
    received_s = []
    async with client.consume(TOPIC) as deliveries:
        for number in range(_WARM_UP + count):
            started = await _pause()
            async with asyncio.TaskGroup() as publishing:
                publishing.create_task(client.publish(TOPIC, _BODY))
                async with await anext(deliveries):
                    taken_s = time.perf_counter() - started
            if number >= _WARM_UP:
                received_s.append(taken_s)
    return {"received_s": received_s}


async def _pause() -> float:
    """The moment at which it is over, to the point, with a processor that is awake: as over bare sockets."""
    due = time.perf_counter() + _PACE_S
    await asyncio.sleep(_PACE_S - _SPIN_S)
    while time.perf_counter() < due:
        pass
    return time.perf_counter()


async def _drain(client: wakeq.AsyncClient, count: int, prefetch: int) -> dict[str, Any]:
    """CPU seconds of this process for each message consumed and acked, as fast as they come."""
    for _ in range(count // _BATCH):
        await client.publish_many(TOPIC, [_BODY] * _BATCH)
    async with client.consume(TOPIC, prefetch=prefetch) as deliveries:
        await _take(deliveries, _BATCH)
        cpu_s, started = time.process_time(), time.perf_counter()
        await _take(deliveries, count - _BATCH)
        cpu_s, taken_s = time.process_time() - cpu_s, time.perf_counter() - started
    return {"cpu_s": cpu_s / (count - _BATCH), "per_second": (count - _BATCH) / taken_s}


async def _take(deliveries: wakeq.Consumer, count: int) -> None:
    for _ in range(count):
        async with await anext(deliveries):
            pass


async def _wait(client: wakeq.AsyncClient) -> dict[str, Any]:
    """Consume from a topic that nobody publishes to."""
    async with client.consume(TOPIC) as deliveries:
        _say({"waiting": True})
        async for _ in deliveries:
            raise AssertionError("nobody publishes")
    return {}


def _say(found: dict[str, Any]) -> None:
    sys.stdout.write(f"{json.dumps(found)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
