"""A process of asyncio that reads what it is sent, and imports nothing else: what waking costs at least."""

import asyncio
import sys


async def _read(port: int) -> None:
    reader, _ = await asyncio.open_connection("127.0.0.1", port)
    while await reader.read(1):
        pass


asyncio.run(_read(int(sys.argv[1])))
