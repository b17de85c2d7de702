"""Proxies that do to a stream what proxies do; everything else gets through."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from typing import Any

PATIENCE_S = 20.0
_HOP = {"connection", "host", "transfer-encoding", "content-length", "keep-alive"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Proxy"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def handle_one_request(self) -> None:
        # Clients that give up are what this is about.
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def do_GET(self) -> None:
        """Hold a stream back, or forward."""
        if "text/event-stream" in self.headers.get("accept", ""):
            self.server.seen.put("stream")
            self.server.on_stream(self)
        else:
            self._forward()

    def do_POST(self) -> None:
        """Forward."""
        self._forward()

    def _forward(self) -> None:
        self.server.seen.put(self.path.rpartition("/")[2])
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        upstream = HTTPConnection("127.0.0.1", self.server.upstream_port, timeout=PATIENCE_S)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        try:
            upstream.connect()
            self.server.forwards(upstream.sock)
            upstream.request(self.command, self.path, body, headers)
            with upstream.getresponse() as answer:
                self.answer(answer.status, answer.getheader("content-type") or "", answer.read())
        finally:
            upstream.close()

    def answer(self, status: int, content_type: str, body: bytes) -> None:
        """Answer whole."""
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


OnStream = Callable[[_Handler], None]


class Proxy(ThreadingHTTPServer):
    """Listens on a free port; ``seen`` has the last part of each request's path, and `stream` for streams."""

    daemon_threads = False

    def __init__(self, upstream_port: int, on_stream: OnStream) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream_port = upstream_port
        self.on_stream = on_stream
        self.seen: SimpleQueue[str] = SimpleQueue()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self._upstream: list[socket.socket] = []
        self._changing = threading.Lock()
        self._hung_up = False

    def forwards(self, upstream: socket.socket) -> None:
        """Something is asked over that connection, which is broken off when the proxy ends."""
        with self._changing:
            self._upstream.append(upstream)
            hung_up = self._hung_up
        if hung_up:
            raise ConnectionAbortedError

    def hang_up(self) -> None:
        """Wait for no answer any more: a claim's may take its whole wait."""
        with self._changing:
            self._hung_up = True
        for upstream in self._upstream:
            with suppress(OSError):
                upstream.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxy(upstream_port: int, on_stream: OnStream) -> Iterator[Proxy]:
    """A proxy in threads of its own, which have ended on the way out."""
    with Proxy(upstream_port, on_stream) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            server.hang_up()
            thread.join(PATIENCE_S)


def silent(handler: _Handler) -> None:
    """Takes the request, and shows nothing until the client gives up."""
    handler.connection.settimeout(PATIENCE_S)
    handler.rfile.read(1)
    handler.close_connection = True


def head_only(handler: _Handler) -> None:
    """Shows the head of the stream, and nothing of its body until the client gives up."""
    handler.send_response(200)
    handler.send_header("content-type", "text/event-stream")
    handler.send_header("transfer-encoding", "chunked")
    handler.end_headers()
    silent(handler)


def another_type(handler: _Handler) -> None:
    """Answers what no stream is."""
    handler.answer(200, "application/json", b"null")


def ends_at_once(handler: _Handler) -> None:
    """A stream without a byte: a server that went down just then."""
    handler.answer(200, "text/event-stream", b"")


def unavailable(handler: _Handler) -> None:
    """What a balancer says while its servers restart."""
    handler.answer(503, "text/html", b"<h1>Service Unavailable</h1>")
