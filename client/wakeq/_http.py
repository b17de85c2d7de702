"""HTTP/1.1 over connections of our own: as much of it as a queue's client needs, and little between it and the socket.

Each request has the connection that was used last. One that was cancelled, or whose answer was not read to its end, is
closed: what would come on it is nobody's.
"""

import os
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import anyio

from wakeq import _anyio_line, _asyncio_line
from wakeq._answers import Answers, NoAnswer
from wakeq._line import Line, LineTooSlow
from wakeq._loops import on_asyncio
from wakeq._wire import Arriving, Broken, Header, Kind, Request, Wire

IDLE_S = 60.0
"""How long a connection is kept that nobody uses; servers keep theirs for 75 s."""
MOST: dict[Kind, int] = {"requests": 100, "settles": 100, "streams": 10_000}
"""How many of a kind are under way at a time: a settle must wait neither for a stream to end nor for a publish."""


class Http(Wire):
    """Connections to one server."""

    def __init__(self, host: str, port: int, *, is_secure: bool, headers: Sequence[Header], timeout_s: float) -> None:
        """``headers`` are those of all requests. ``timeout_s`` bounds connecting, sending, and waiting for a place."""
        self._headers = _lines(headers)
        self._host = host
        self._port = port
        self._is_secure = is_secure
        self._context: ssl.SSLContext | None = None
        self._timeout_s = timeout_s
        self._places: dict[Kind, anyio.Semaphore] = {}
        self._idle: deque[_Connection] = deque()
        """The one that was used the longest ago first."""
        self._used: set[_Connection] = set()

    async def aopen(self) -> None:
        """See `Wire`: connections are made when they are needed."""

    async def send(self, request: Request, kind: Kind, silence_s: float) -> Arriving:
        """See `Wire`."""
        place = await self._place(kind)
        connection: _Connection | None = None
        try:
            connection = await self._connection()
            await connection.ask(self._written(request), self._timeout_s, silence_s)
        except BaseException as error:
            await self.drop(connection, place)
            if isinstance(error, _BREAKING):
                raise Broken(_reason(error), unsent=connection is None) from error
            raise
        return _Arriving(self, connection, place, silence_s)

    async def aclose(self) -> None:
        """See `Wire`."""
        connections = [*self._used, *self._idle]
        self._idle.clear()
        for connection in connections:
            await connection.line.aclose()

    def give_back(self, connection: "_Connection", place: anyio.Semaphore) -> None:
        """It is good for another request."""
        self._used.discard(connection)
        connection.used_at = time.monotonic()
        self._idle.append(connection)
        place.release()

    async def drop(self, connection: "_Connection | None", place: anyio.Semaphore) -> None:
        """It is good for nothing any more."""
        place.release()
        if connection is not None:
            self._used.discard(connection)
            with anyio.CancelScope(shield=True):
                await connection.line.aclose()

    def _written(self, request: Request) -> bytes:
        """In one piece: the head alone would wake a server that can do nothing with it."""
        method, target, headers, content = request
        return b"%b %b HTTP/1.1\r\n%b%b\r\n%b" % (method.encode(), target, self._headers, _lines(headers), content)

    async def _place(self, kind: Kind) -> anyio.Semaphore:
        place = self._places.get(kind)
        if place is None:
            place = self._places[kind] = anyio.Semaphore(MOST[kind], fast_acquire=True)
        try:
            place.acquire_nowait()
        except anyio.WouldBlock:
            try:
                with anyio.fail_after(self._timeout_s):
                    await place.acquire()
            except TimeoutError:
                raise Broken("all connections are in use", unsent=True) from None
        return place

    async def _connection(self) -> "_Connection":
        idle = self._idle
        while idle and idle[0].used_at < time.monotonic() - IDLE_S:
            await idle.popleft().line.aclose()
        while idle:
            connection = idle.pop()
            # A server that was started anew has closed it, too.
            if connection.line.is_quiet:
                self._used.add(connection)
                return connection
            await connection.line.aclose()
        connection = _Connection(await self._connect())
        self._used.add(connection)
        return connection

    async def _connect(self) -> Line:
        if self._is_secure and self._context is None:
            self._context = _context()
        try:
            with anyio.fail_after(self._timeout_s):
                return await _connector()(self._host, self._port, self._context)
        except TimeoutError:
            raise LineTooSlow from None
        except UnicodeError as error:
            raise OSError(f"{self._host!r} is no host name: {error}") from None


class _Connection:
    """One to the server, which has one request at a time."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.answers = Answers()
        self.used_at = 0.0

    async def ask(self, request: bytes, timeout_s: float, silence_s: float) -> None:
        """Send a request, and wait for the head of its answer. Raises what `_BREAKING` has."""
        self.answers.begin()
        await self.line.send(request, timeout_s)
        while not self.answers.status:
            await self.read(silence_s)

    async def read(self, silence_s: float) -> None:
        """Take in what comes next."""
        self.answers.feed(await self.line.receive(silence_s))


class _Arriving(Arriving):
    """What a connection brings."""

    def __init__(self, http: Http, connection: _Connection, place: anyio.Semaphore, silence_s: float) -> None:
        self.status = connection.answers.status
        self.headers = connection.answers.headers
        self._http = http
        self._connection: _Connection | None = connection
        self._place = place
        self._silence_s = silence_s

    async def __anext__(self) -> bytes:
        """See `Arriving`."""
        answers = self._answers()
        while not (part := answers.take()):
            if answers.over:
                raise StopAsyncIteration
            await self._read()
        return part

    async def whole(self) -> bytes:
        """See `Arriving`."""
        answers = self._answers()
        while not answers.over:
            await self._read()
        return answers.take()

    async def aclose(self) -> None:
        """See `Arriving`."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if connection.answers.can_go_on:
            self._http.give_back(connection, self._place)
        else:
            await self._http.drop(connection, self._place)

    def _answers(self) -> Answers:
        if self._connection is None:
            raise Broken("it was closed")
        return self._connection.answers

    async def _read(self) -> None:
        assert self._connection is not None
        try:
            await self._connection.read(self._silence_s)
        except _BREAKING as error:
            raise Broken(_reason(error)) from error


_BREAKING = (OSError, LineTooSlow, NoAnswer)


def _lines(headers: Sequence[Header]) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def _context() -> ssl.SSLContext:
    # Takes long to load, as certificates do, and plain HTTP needs neither.
    import httpx  # noqa: PLC0415

    return httpx.create_ssl_context()


def _reason(error: BaseException) -> str:
    if isinstance(error, LineTooSlow):
        return "it was silent for too long"
    if isinstance(error, ConnectionError) and error.errno is not None:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


def _connector() -> Callable[[str, int, ssl.SSLContext | None], Awaitable[Line]]:
    """What makes lines on the event loop that runs."""
    return _asyncio_line.connect if on_asyncio() else _anyio_line.connect
