"""A queue server for a program's tests: in the test's own process, in memory, without a socket.

    async with wakeq.testing.MemoryServer() as server, server.client() as queue:
        await queue.create_topic("jobs", schema="json")
        await queue.publish("jobs", {"n": 1})

    with wakeq.Client(transport=wakeq.testing.MemoryServer()) as queue:
        queue.create_topic("jobs", schema="json")

A topic that is named before it is made takes llama_deploy's messages, as on any server without a disk. The server runs
on asyncio. `wakeq.testing.fixtures` has pytest's fixtures.
"""

from wakeq.testing._server import MemoryServer

__all__ = ["MemoryServer"]
