"""A request and its answer: uvicorn's cycle, as short as it can be.

An answer's head waits for the first part of its body, so that both are one write: the head alone would wake a client
that can do nothing with it.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from wakeq_server.http.wire import Event

if TYPE_CHECKING:
    from wakeq_server.connection import Connection

_CONTROLS = bytes({*range(32), 127} - {9})
"""What a header can't have. A line break in one would be the end of it, and what follows a header of its own."""


class Arrivals:
    """Something has come, or there is nothing more to come: an event for one waiter, which most never have."""

    __slots__ = ("_loop", "_waiter", "there")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # Asked for the running one, CPython 3.11 asks the kernel whether the process has forked.
        self._loop = loop
        self.there = False
        """Whether there is something, so that nobody need wait."""
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Wake the waiter, or let the next one pass."""
        self.there = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def clear(self) -> None:
        """Let the next one wait."""
        self.there = False

    async def wait(self) -> None:
        """Return when it is set."""
        while not self.there:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None


class Exchange(RequestResponseCycle):
    """One request on a connection, and its answer."""

    def __init__(self, connection: "Connection", *, keep_alive: bool) -> None:
        # uvicorn's own makes, for each request, what only some need.
        self.connection = connection
        self.scope = connection.scope
        self.transport = connection.transport
        self.flow = connection.flow
        self.logger = connection.logger
        self.message_event: Any = Arrivals(connection.loop)
        self.disconnected = False
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = connection.expect_100_continue
        self.body: Any = b""
        self.more_body = True
        self.response_started = False
        self.response_complete = False
        self.chunked_encoding: bool | None = None
        self.expected_content_length = 0
        self.task: asyncio.Task[None] | None = None
        self._head: bytes | None = None

    async def run_asgi(self, app: ASGI3Application) -> None:
        """Have the application answer."""
        try:
            await app(self.scope, self.receive, self.send)
            if not self.response_complete and not self.disconnected:
                raise RuntimeError("the application has ended before its answer")
        except Exception as error:
            self.logger.error("a request could not be answered", exc_info=error)
            await self._fail()
        except BaseException:
            self.transport.close()
            raise
        finally:
            if self.task is not None:
                self.connection.tasks.discard(self.task)
                self.task = None
                self.connection.let_go()

    async def _fail(self) -> None:
        if self.response_started and self._head is None:
            # Its beginning has been sent: that this is no end is all that can be said.
            self.transport.close()
            return
        self.response_started, self._head = False, None
        self.chunked_encoding, self.expected_content_length = None, 0
        await self.send_500_response()

    def add(self, part: bytes) -> None:
        """A part of the body has come."""
        if not self.body:
            self.body = part
        elif isinstance(self.body, bytes):
            self.body = bytearray(self.body + part)
        else:
            self.body += part
        self.message_event.set()

    def end(self) -> None:
        """The body is whole."""
        self.more_body = False
        self.message_event.set()

    async def receive(self) -> Any:
        """ASGI's."""
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if not self.disconnected and not self.response_complete:
            self.flow.resume_reading()
            if not self.message_event.there:
                await self.message_event.wait()
            self.message_event.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body, self.body = self.body, b""
        return {"type": "http.request", "body": bytes(body), "more_body": self.more_body}

    async def send(self, message: Any) -> None:
        """ASGI's."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if kind == "http.response.start" and not self.response_started:
            self._head = self._head_of(message["status"], message.get("headers", ()))
            self.response_started = True
            self.waiting_for_100_continue = False
        elif kind == "http.response.body" and self.response_started and not self.response_complete:
            self._write(message)
        else:
            raise RuntimeError(f"{kind} is out of place: started {self.response_started}, "
                               f"complete {self.response_complete}")  # fmt: skip

    def _head_of(self, status: int, headers: Any) -> bytes:
        content = [STATUS_LINE[status]]
        lines = 2
        closes = False
        for name, value in (*self.connection.server_state.default_headers, *headers):
            if name == b"content-length":
                self.expected_content_length = int(value)
                self.chunked_encoding = False
            elif name == b"connection" and value == b"close":
                self.keep_alive, closes = False, True
            content += (name, b": ", value, b"\r\n")
            lines += 1
        if not self.keep_alive and not closes:
            content.append(b"connection: close\r\n")
            lines += 1
        if self.chunked_encoding is None and status not in (204, 304) and self.scope["method"] != "HEAD":
            self.chunked_encoding = True
            content.append(b"transfer-encoding: chunked\r\n")
            lines += 1
        content.append(b"\r\n")
        head = b"".join(content)
        if len(head) - len(head.translate(None, _CONTROLS)) != 2 * lines:
            raise RuntimeError(f"a header of the answer has a control character: {headers}")
        return head

    def _write(self, message: Event) -> None:
        head, self._head = self._head or b"", None
        more = message.get("more_body", False)
        data = head + self._framed(message.get("body", b""), more=more)
        if data:
            self.transport.write(data)
        if not more:
            self._complete()

    def _framed(self, body: bytes, *, more: bool) -> bytes:
        if self.scope["method"] == "HEAD":
            self.expected_content_length = 0
            return b""
        if self.chunked_encoding:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return chunk if more else chunk + b"0\r\n\r\n"
        if len(body) > self.expected_content_length:
            raise RuntimeError("the answer is longer than its content-length")
        self.expected_content_length -= len(body)
        return body

    def _complete(self) -> None:
        if self.expected_content_length:
            raise RuntimeError("the answer is shorter than its content-length")
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive and self.connection.fault is None:
            # What was refused is closed when all has been said.
            self.transport.close()
        self.connection.on_response_complete()
