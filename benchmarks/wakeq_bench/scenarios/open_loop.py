"""Publishes at moments that are set beforehand, whatever the server does, and one consumer that takes and acks them.

A message's time counts from the moment it was due, not from when it could be sent: a server that stalls makes everybody
late who would have come meanwhile (no coordinated omission). One thread serves all sockets, so sender and consumer read
one clock; it spins for the last moment before a message is due, since the kernel wakes it late.
"""

import select
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

import orjson

from wakeq_bench.scenarios.raw import AnswerParser, BrokenAnswer, address_of, made, request

Way = Literal["sse", "claim"]

_RECEIVE_BYTES = 262_144
_SPIN_S = 0.0002
_LATEST_S = 30.0
_AT_ONCE = 1_000
# What select(2) takes is little more.
_CONNECTIONS_MAX = 900
_LEASE_S = 60
_PADDING = "x" * 80
_DATA = b"data:"


@dataclass
class Found:
    """Seconds from when each message was due: until it was sent, and until the consumer had it."""

    sent_s: list[float] = field(default_factory=list)
    received_s: list[float] = field(default_factory=list)


class EventLines:
    """The `data:` lines among the bytes of a stream, whose chunks never cut an event."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take in bytes; the data that they complete."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.removeprefix(_DATA).strip() for line in lines if line.startswith(_DATA)]


class OpenLoop:
    """A topic with its publishers and its one consumer; a context manager that closes their connections."""

    def __init__(self, url: str, topic: str, way: Way) -> None:
        self._url = url
        self._path = f"/messages/{topic}"
        self._way = way
        self._handlers: dict[socket.socket, Callable[[bytes], None]] = {}
        self._free: list[socket.socket] = []
        self._due: list[float] = []
        self._received: list[float | None] = []
        self._leases: list[str] = []
        self._settling = 0
        self._settled = 0
        self._settler = self._connect(self._answers(self._take_settled))
        self._consumer = self._connect(self._take_events() if way == "sse" else self._answers(self._take_claimed))
        self._consumer.sendall(self._asking())

    def run(self, rate: float, seconds: float, warm_up_s: float) -> Found:
        """Publish at `rate` and wait for the last ack; what is due in the first moments does not count.

        Raises BrokenAnswer, OSError.
        """
        start, count = time.perf_counter() + _SPIN_S, round(rate * (warm_up_s + seconds))
        self._due = [start + number / rate for number in range(count)]
        self._received, self._settled = [None] * count, 0
        sent_s = []
        for number, due in enumerate(self._due):
            self._serve_until(due)
            sent_s.append(time.perf_counter() - due)
            self._publish(number)
        self._finish()
        first = round(rate * warm_up_s)
        return Found(sent_s[first:], [at for at in self._received[first:] if at is not None])

    def _serve_until(self, due: float) -> None:
        while (left := due - time.perf_counter()) > 0:
            self._serve(max(0.0, left - _SPIN_S))

    def _finish(self) -> None:
        deadline = time.perf_counter() + _LATEST_S
        while self._settled < len(self._due):
            if (left := deadline - time.perf_counter()) <= 0:
                raise BrokenAnswer(f"{self._settled:,} of {len(self._due):,} messages came within {_LATEST_S:g} s")
            self._serve(left)

    def _serve(self, seconds: float) -> None:
        # Not epoll, whose timeouts are whole milliseconds.
        for readable in select.select(list(self._handlers), [], [], seconds)[0]:
            data = readable.recv(_RECEIVE_BYTES)
            if not data:
                raise BrokenAnswer("the server closed the connection")
            self._handlers[readable](data)

    # Publishing

    def _publish(self, number: int) -> None:
        body = f'{{"n": {number}, "text": "{_PADDING}"}}'.encode()
        connection = self._free.pop() if self._free else self._publisher()
        connection.sendall(request(self._url, "POST", self._path, body))

    def _publisher(self) -> socket.socket:
        """One more connection: all others wait for their answers. Raises BrokenAnswer."""
        if len(self._handlers) >= _CONNECTIONS_MAX:
            raise BrokenAnswer(f"the server can't keep up: {_CONNECTIONS_MAX} publishes wait for their answers")
        connection = self._connect(self._answers(lambda _: self._free.append(connection)))
        return connection

    # Consuming

    def _asking(self) -> bytes:
        if self._way == "claim":
            asking = {"max": _AT_ONCE, "wait_s": 60, "lease_s": _LEASE_S}
            return request(self._url, "POST", f"{self._path}/claim", orjson.dumps(asking))
        path = f"{self._path}?lease={_LEASE_S}&prefetch={_AT_ONCE}"
        return request(self._url, "GET", path).replace(b"\r\n\r\n", b"\r\nAccept: text/event-stream\r\n\r\n")

    def _take_events(self) -> Callable[[bytes], None]:
        lines = EventLines()
        return lambda data: self._deliver(map(orjson.loads, lines.feed(data)))

    def _take_claimed(self, body: bytes) -> None:
        self._consumer.sendall(self._asking())
        self._deliver(orjson.loads(body)["messages"])

    def _deliver(self, deliveries: Iterable[dict[str, Any]]) -> None:
        for delivery in deliveries:
            number = delivery["body"]["n"]
            self._received[number] = time.perf_counter() - self._due[number]
            self._leases.append(delivery["lease_id"])
        self._settle()

    def _settle(self) -> None:
        if self._leases and not self._settling:
            ack = orjson.dumps({"ack": self._leases})
            self._settling, self._leases = len(self._leases), []
            self._settler.sendall(request(self._url, "POST", f"{self._path}/settle", ack))

    def _take_settled(self, _body: bytes) -> None:
        self._settled += self._settling
        self._settling = 0
        self._settle()

    # Connections

    def _connect(self, handler: Callable[[bytes], None]) -> socket.socket:
        connection = socket.create_connection(address_of(self._url), _LATEST_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._handlers[connection] = handler
        return connection

    def _answers(self, taken: Callable[[bytes], object]) -> Callable[[bytes], None]:
        parser = AnswerParser()

        def take(data: bytes) -> None:
            answer = parser.feed(data)
            if answer is not None:
                made(answer)
                taken(answer.body)

        return take

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._handlers:
            connection.close()
