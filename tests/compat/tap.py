"""A TCP relay in front of a queue server, which keeps what passes: it shows what an unmodified client really sent."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Tap(socketserver.ThreadingTCPServer):
    """Listens on a port of its own and relays every connection to the queue server."""

    def __init__(self, target: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        self.target = target
        self.requests = bytearray()
        self.answers = bytearray()

    @property
    def port(self) -> int:
        """Where clients connect to."""
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        """The same, as a URL."""
        return f"http://127.0.0.1:{self.port}"


class _Relay(socketserver.BaseRequestHandler):
    server: Tap

    def handle(self) -> None:
        with socket.create_connection(self.server.target) as upstream:
            back = threading.Thread(target=_pump, args=(upstream, self.request, self.server.answers))
            back.start()
            _pump(self.request, upstream, self.server.requests)
            back.join()


def _pump(source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
    # A peer that was killed resets its connections; for the relay that is an end like any other.
    with suppress(OSError):
        while chunk := source.recv(65536):
            kept += chunk
            sink.sendall(chunk)
    for each in (source, sink):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@contextmanager
def tapped(host: str, port: int) -> Iterator[Tap]:
    """A tap in front of that server. The clients must have ended before it does."""
    with Tap((host, port)) as tap:
        accepting = threading.Thread(target=tap.serve_forever, kwargs={"poll_interval": 0.05})
        accepting.start()
        try:
            yield tap
        finally:
            tap.shutdown()
            accepting.join()
