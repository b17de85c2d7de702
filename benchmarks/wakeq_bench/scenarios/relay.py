"""A relay that counts requests on their way to a server which does not count them itself.

It runs in a thread of the measuring process, so that its cost is neither the server's nor the clients'.
"""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from wakeq_bench.scenarios.raw import address_of

_READ_BYTES = 65_536
# Ends the first line of every request, and stands nowhere else in what clients of a queue send.
_REQUEST_MARK = b" HTTP/1.1\r\n"
_HOST = "127.0.0.1"


class CountingRelay:
    """Relays connections to one server, and counts the requests in them."""

    def __init__(self, target_url: str) -> None:
        self._target = address_of(target_url)
        self._ended = asyncio.Event()
        self._relays: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.requests = 0
        self.url = ""

    async def serve(self, listening: threading.Event) -> None:
        """Relay until `end` is called."""
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._relay, _HOST, 0)
        self.url = f"http://{_HOST}:{server.sockets[0].getsockname()[1]}"
        listening.set()
        await self._ended.wait()
        server.close()
        await self._close_all()

    def end(self) -> None:
        """Stop relaying; from any thread."""
        self._loop.call_soon_threadsafe(self._ended.set)

    async def _close_all(self) -> None:
        """Close what clients have left open, while there is a loop to close it in."""
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            self._relays.add(task)
        self._writers.append(writer)
        # Cancelled only when the relay ends, which asyncio would log as a failure of every connection left.
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.CancelledError):
            onward_reader, onward_writer = await asyncio.open_connection(*self._target)
            self._writers.append(onward_writer)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, onward_writer, count=True))
                pumps.create_task(self._pump(onward_reader, writer, count=False))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, count: bool) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            while data := await reader.read(_READ_BYTES):
                if count:
                    self.requests += data.count(_REQUEST_MARK)
                writer.write(data)
                await writer.drain()


@contextlib.contextmanager
def counting_relay(target_url: str) -> Iterator[CountingRelay]:
    """A relay to `target_url` that is running."""
    relay, listening = CountingRelay(target_url), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(relay.serve(listening)), name="relay", daemon=True)
    thread.start()
    listening.wait()
    try:
        yield relay
    finally:
        relay.end()
        thread.join()
