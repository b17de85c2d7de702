"""Thousands of parked requests from one process: bare sockets on epoll, an answer parsed only when one arrives.

Every answered connection sends its request again, as consumers do, so the number parked stays what it was.
"""

import os
import random
import resource
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from wakeq_bench.scenarios.raw import Answer, AnswerParser, BrokenAnswer, Connection, address_of

_RECEIVE_BYTES = 65_536
_EVENTS_A_POLL = 1_024
# Connections opened between two looks whether the server keeps up: half of what its backlog holds.
_BATCH = 1_000
# Between an answer and the next publish: the consumer must be parked again, and the server idle.
_REST_S = (0.003, 0.006)
_WAKE_MAX_S = 10.0

_EMPTY_BODIES = {b"", b"null", b'{"messages":[]}', b"[]"}


@dataclass(frozen=True)
class Answered:
    """An answer that a parked connection was given, and when."""

    at: float
    descriptor: int
    answer: Answer

    @property
    def has_message(self) -> bool:
        """Whether it was woken, and has not just waited long enough."""
        return self.answer.body.replace(b" ", b"") not in _EMPTY_BODIES


class Parker:
    """Keeps connections parked on a server by one and the same request; a context manager that closes them."""

    def __init__(self, url: str, request: bytes) -> None:
        self._url = url
        self._request = request
        self._sockets: dict[int, socket.socket] = {}
        self._parsers: dict[int, AnswerParser] = {}
        self._epoll = select.epoll()

    def park(self, count: int, probe: bytes, progress: Callable[[int], None]) -> None:
        """Open connections and send the request on each; `probe` is a request that is answered at once."""
        with Connection(self._url) as prober:
            for opened in range(0, count, _BATCH):
                batch = min(_BATCH, count - opened)
                for _ in range(batch):
                    self.park_one()
                # Answered when the server has come round; more connections would overflow its backlog before.
                prober.exchange(probe)
                progress(batch)

    def park_one(self) -> None:
        """Open one connection and send the request."""
        connection = socket.create_connection(address_of(self._url), _WAKE_MAX_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(self._request)
        connection.setblocking(False)
        self._sockets[connection.fileno()] = connection
        self._epoll.register(connection.fileno(), select.EPOLLIN)

    def attend(self, seconds: float) -> list[Answered]:
        """Take what arrives for a while. Raises BrokenAnswer."""
        end = time.perf_counter() + seconds
        answered: list[Answered] = []
        while (left := end - time.perf_counter()) > 0:
            answered += self._take(left)
        return answered

    def wake(self, publisher: "Publisher") -> float:
        """Publish once; seconds until the first parked connection has the message. Raises BrokenAnswer."""
        started = time.perf_counter()
        publisher.send()
        deadline = started + _WAKE_MAX_S
        while (left := deadline - time.perf_counter()) > 0:
            woken = [answered for answered in self._take(left) if answered.has_message]
            if woken:
                publisher.finish()
                return woken[0].at - started
        raise BrokenAnswer(f"nobody was woken within {_WAKE_MAX_S:g} s")

    def wakes(self, publisher: "Publisher", rounds: int) -> list[float]:
        """Seconds of so many wakes, one after the other."""
        found = []
        for _ in range(rounds):
            # At random: nothing that a server does a fixed time later may fall together with every publish.
            self.attend(random.uniform(*_REST_S))
            found.append(self.wake(publisher))
        return found

    def _take(self, seconds: float) -> list[Answered]:
        answered = []
        for descriptor, _ in self._epoll.poll(seconds, _EVENTS_A_POLL):
            data = os.read(descriptor, _RECEIVE_BYTES)
            if not data:
                raise BrokenAnswer("the server closed a parked connection")
            answer = self._parsers.setdefault(descriptor, AnswerParser()).feed(data)
            if answer is not None:
                answered.append(self._park_again(descriptor, answer))
        return answered

    def _park_again(self, descriptor: int, answer: Answer) -> Answered:
        at = time.perf_counter()
        if answer.status >= 300:
            raise BrokenAnswer(f"a parked request was answered {answer.status}: {answer.body[:200]!r}")
        os.write(descriptor, self._request)
        return Answered(at, descriptor, answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._epoll.close()
        for connection in self._sockets.values():
            connection.close()


class Publisher:
    """Publishes by one and the same request on a connection of its own, and reads the answer when there is time."""

    def __init__(self, url: str, request: bytes) -> None:
        self._connection = Connection(url)
        self._request = request

    def send(self) -> None:
        """Send the request."""
        self._connection.send(self._request)

    def finish(self) -> Answer:
        """Read its answer. Raises BrokenAnswer."""
        return self._connection.receive()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()


def connections_possible(wanted: int) -> int:
    """How many connections this process may hold, up to `wanted`, after its limit has been raised."""
    spare = 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted + spare:
        raised = wanted + spare if hard == resource.RLIM_INFINITY else min(hard, wanted + spare)
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft = raised
    return min(wanted, soft - spare)
