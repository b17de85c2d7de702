"""Request bodies that come in parts, and how many bytes of them the server holds.

Each may have up to 64 MiB, and thousands may be coming at a time. Over the limit only the body that began first is read
on: it ends, and makes room. The others stay unread, which TCP tells their clients; nothing is refused, since clients of
llama_deploy don't look at a refusal. Beside what is counted here, a connection holds what one reading of it brings.
"""

from collections import OrderedDict

import anyio

from wakeq_server.http.wire import Connection, Event, Receive


class Intake:
    """The bodies that are coming."""

    def __init__(self, limit_bytes: int) -> None:
        self.bytes = 0
        self._limit = limit_bytes
        self._coming: OrderedDict[Body, None] = OrderedDict()

    def body(self, receive: Receive, peer: Connection, *, kept: bool) -> "Body":
        """The body of a request, as its ``receive``. ``kept``: whoever reads it keeps it until it is whole."""
        body = Body(self, receive, peer, kept=kept)
        if kept:
            self._coming[body] = None
        return body

    async def turn(self, body: "Body") -> None:
        """Return when more of this body may be read."""
        while self.bytes > self._limit and next(iter(self._coming), body) is not body:
            body.go_on = anyio.Event()
            await body.go_on.wait()

    def end(self, body: "Body", size: int) -> None:
        """It is whole, or given up; so many of its bytes were counted."""
        was_over = self.bytes > self._limit
        del self._coming[body]
        self.bytes -= size
        if was_over:
            for other in self._coming:
                other.go_on.set()


class Body:
    """An ASGI ``receive`` that counts what it passes on. ``close`` it when the request is over."""

    def __init__(self, intake: Intake, receive: Receive, peer: Connection, *, kept: bool) -> None:
        self.go_on = anyio.Event()
        self._intake = intake
        self._receive = receive
        self._peer = peer
        self._kept = kept
        self._bytes = 0

    async def __call__(self) -> Event:
        """The next event. Raises what is wrong with how the body comes: RequestTimeout, BadRequest, HeadTooLarge."""
        if self._kept:
            await self._intake.turn(self)
        event = await self._receive()
        if self._peer.fault is not None:
            raise self._peer.fault
        if self._kept and event["type"] == "http.request":
            self._count(event)
        return event

    def _count(self, event: Event) -> None:
        if not event.get("more_body"):
            self.close()
            return
        self._bytes += len(event["body"])
        self._intake.bytes += len(event["body"])

    def close(self) -> None:
        """Nobody holds anything of it any more, or it is somebody else's to count."""
        if self._kept:
            self._kept = False
            self._intake.end(self, self._bytes)
